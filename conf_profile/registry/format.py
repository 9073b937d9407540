"""What the registry's files and names say: the URI, the manifest, the champion pointer, a version's contents.

Parsing and rendering only; `registry` moves the bytes.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Any

from conf_profile.errors import RegistryError
from conf_profile.registry.version_files import MANIFEST
from conf_profile.storage.object_store import Digest, StoredObject, digest_of

MODEL_URI_VARIABLE = "CONF_PROFILE_MODEL_URI"
"""The transformer's environment variable: it overrides `model` of its settings, so a rollout changes no file."""
MODEL_URI_ANNOTATION = "conf-profile/model"
"""Annotation of the transformer's pods, from which the variable is read; an older chart gave the variable a value."""
SCHEME = "champion://"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_URI = re.compile(SCHEME + r"(?P<bucket>[^/@]+)/models/(?P<model>[^/@]+)(@(?P<version>[^/@]+))?")


@dataclass(frozen=True)
class ModelURI:
    """`champion://BUCKET/models/NAME[@VERSION]`; without a version: the champion."""

    bucket: str
    model: str
    version: str | None = None

    def __str__(self) -> str:
        return f"{SCHEME}{self.bucket}/models/{self.model}" + (f"@{self.version}" if self.version else "")


@dataclass(frozen=True)
class Version:
    """One published version, as its manifest tells; `manifest` is that file as it is."""

    name: str
    created_at: str
    content_sha256: str
    manifest_sha256: str
    files: Mapping[str, Digest]
    extra: Mapping[str, Any]
    manifest: bytes = field(repr=False)

    @property
    def judged(self) -> bool:
        """Whether true labels have judged it. False: it was promoted without any, because the operator allowed it."""
        return self.extra.get("judged") is not False

    @property
    def bytes(self) -> int:
        """Size of all files."""
        return sum(file.size for file in self.files.values())


@dataclass(frozen=True)
class Champion:
    """The pointer, and the ETag that the next move of it must name."""

    version: str
    manifest_sha256: str
    metrics: Mapping[str, Any]
    promoted_at: str
    previous: str | None
    etag: str


@dataclass(frozen=True)
class Content:
    """One file of a version before its upload."""

    source: Path | bytes
    digest: Digest


def parse_uri(uri: str) -> ModelURI:
    """Reads a champion URI; RegistryError says what form it must have."""
    match = _URI.fullmatch(uri)
    if match is None:
        raise RegistryError(f"{uri!r} is not a model URI; expected champion://BUCKET/models/NAME or ...NAME@VERSION")
    for part in ("model", "version"):
        if match[part] is not None:
            check_name(match[part], part)
    return ModelURI(match["bucket"], match["model"], match["version"])


def read_contents(folder: Path, generated: Mapping[str, bytes]) -> dict[str, Content]:
    """Path inside the version -> content, of a folder's files and the generated ones."""
    if not folder.is_dir():
        raise RegistryError(f"{folder}: no such folder; expected the model's files")
    sources: dict[str, Path | bytes] = {
        path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()
    }
    twice = (sources.keys() & generated.keys()) | (sources.keys() & {MANIFEST})
    if twice or not sources:
        fault = f"holds {', '.join(sorted(twice))}, which the registry writes" if twice else "holds no file"
        raise RegistryError(f"{folder}: {fault}; expected the model's files")
    sources.update(generated)
    return {path: Content(source, digest_of(source)) for path, source in sorted(sources.items())}


def content_hash(files: Mapping[str, Digest]) -> str:
    """One hash over all paths and contents; the second half of a version's name comes from it."""
    return hashlib.sha256(to_json({path: digest.sha256 for path, digest in files.items()})).hexdigest()


def is_name(name: str) -> bool:
    """Whether `name` can be one part of a key."""
    return _NAME.fullmatch(name) is not None


def check_name(name: str, what: str) -> None:
    """RegistryError unless `name` can be one part of a key."""
    if not is_name(name):
        raise RegistryError(f"{what} {name!r}: use 1-100 letters, digits, dots, dashes or underscores")


def new_name(content_sha256: str) -> str:
    """A version's name: time-ordered and bound to its content, e.g. 20261122-120000-1f2e3d4c."""
    return datetime.now(UTC).strftime("%Y%m%d-%H%M%S") + name_ending(content_sha256)


def name_ending(content_sha256: str) -> str:
    """What the names of all versions with this content end with."""
    return f"-{content_sha256[:8]}"


def render_manifest(
    model: str, version: str, contents: Mapping[str, Content], content_sha256: str, extra: Mapping[str, Any]
) -> bytes:
    """manifest.json: the last object of a version."""
    return to_json(
        {
            "model": model,
            "version": version,
            "created_at": now(),
            "content_sha256": content_sha256,
            "files": {path: asdict(content.digest) for path, content in contents.items()},
            "extra": dict(extra),
        }
    )


def parse_manifest(body: bytes, version: str, key: str) -> Version:
    """Reads manifest.json; RegistryError names the key and the fault."""
    data = _parse_object(body, key)
    try:
        files = {str(path): Digest(str(entry["sha256"]), int(entry["size"])) for path, entry in data["files"].items()}
        manifest_sha256 = hashlib.sha256(body).hexdigest()
        _check_paths(files, key)
        return Version(
            version, data["created_at"], data["content_sha256"], manifest_sha256, files, dict(data["extra"]), body
        )
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise RegistryError(f"{key}: is not a manifest of ours ({error!r}); do not use this version") from error


def parse_champion(stored: StoredObject, key: str) -> Champion:
    """Reads champion.json; RegistryError names the key and the fault."""
    data = _parse_object(stored.body, key)
    try:
        return Champion(**data, etag=stored.etag)
    except TypeError as error:
        raise RegistryError(f"{key}: is not a champion pointer of ours ({error}); put it right by hand") from error


def _check_paths(files: Mapping[str, Digest], key: str) -> None:
    """A manifest comes from a bucket that others may write: its paths must stay inside the target folder."""
    for path in files:
        pure = PurePosixPath(path)
        leaves = pure.is_absolute() or ".." in pure.parts or "\0" in path
        if leaves or path == MANIFEST or path != str(pure) or path == ".":
            raise RegistryError(f"{key}: the path {path!r} is not allowed; do not use this version")


def _parse_object(body: bytes, key: str) -> dict[str, Any]:
    try:
        data = json.loads(body)
    except ValueError as error:
        raise RegistryError(f"{key}: is not valid JSON ({error}); roll back or publish again") from error
    if not isinstance(data, dict):
        raise RegistryError(f"{key}: expected a JSON object, found {type(data).__name__}")
    return data


def to_json(data: Mapping[str, Any]) -> bytes:
    """The one way in which the registry's own files are written."""
    return json.dumps(data, indent=2, sort_keys=True, ensure_ascii=False).encode()


def now() -> str:
    """The time of an event, UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")
