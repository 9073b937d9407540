"""The model registry in S3: immutable versions and one champion pointer for each model.

    models/<name>/versions/<version>/...   files, and manifest.json with the SHA-256 of every file
    models/<name>/champion.json            {version, manifest_sha256, metrics, promoted_at, previous}

A version exists if and only if its manifest does: the manifest is written last, after every file was read
back and its hash compared. The pointer moves by compare-and-swap on its ETag. Nothing here deletes or
overwrites a version, and nothing here judges a model: that is the gate's work.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from conf_profile.config import StorageConfig
from conf_profile.errors import RegistryConflictError, RegistryError
from conf_profile.registry import download as registry_download
from conf_profile.registry.download import FileFilter, FillResult, select_all
from conf_profile.registry.format import (
    Champion,
    Content,
    ModelURI,
    Version,
    check_name,
    content_hash,
    is_name,
    name_ending,
    new_name,
    now,
    parse_champion,
    parse_manifest,
    parse_uri,
    read_contents,
    render_manifest,
    to_json,
)
from conf_profile.registry.version_files import MANIFEST
from conf_profile.storage import conditional_writes, object_store
from conf_profile.storage.local_s3 import S3Access
from conf_profile.storage.object_store import Digest, ObjectStore

__all__ = ["ANY_CHAMPION", "Champion", "ModelURI", "Registry", "Version", "connect", "parse_uri"]

ANY_CHAMPION: Final = "any"
"""`promote(expected=ANY_CHAMPION)`: whatever the champion is when the promotion begins."""

_NO_CHAMPION = "no champion yet, run the pipeline: conf-profile run, or conf-profile submit on a cluster"


def connect(config: StorageConfig, access: S3Access | None = None, create_bucket: bool = True) -> Registry:
    """The registry at `access`, else at the configured endpoint, else at the environment's.

    Keys come from `access` or from where boto3 looks. One request checks address, keys and bucket.
    """
    if access is not None:
        client = object_store.s3_client(access.endpoint, access.region, access.access_key, access.secret_key)
        store = ObjectStore(client, config.bucket)
    else:
        store = object_store.connect(config.bucket, config.endpoint, config.region, config.encryption)
    store.ensure_bucket(create_bucket)
    return Registry(config.bucket, config.model, store.client)


class Registry:
    """The versions and the champion of one model in one bucket."""

    def __init__(self, bucket: str, model: str, client: Any) -> None:
        check_name(model, "model")
        self.bucket = bucket
        self.model = model
        self._store = ObjectStore(client, bucket)
        self._versions = f"models/{model}/versions/"
        self._pointer = f"models/{model}/champion.json"

    def uri(self, version: str | None = None) -> str:
        """The champion URI of this model, pinned if `version` is given."""
        return str(ModelURI(self.bucket, self.model, version))

    def publish(
        self,
        folder: Path,
        version: str | None = None,
        manifest_extra: Mapping[str, Any] | None = None,
        generated: Mapping[str, bytes] | None = None,
    ) -> Version:
        """Uploads and verifies a folder's files and the `generated` ones; the manifest comes last.

        Content that is already published gives its existing version. A publish that died half-way goes on
        where it stopped. RegistryConflictError when the version holds other content.
        """
        contents = read_contents(folder, generated or {})
        content_sha256 = content_hash({path: content.digest for path, content in contents.items()})
        name = version or self._name_for(content_sha256)
        check_name(name, "version")
        published = self.find(name)
        if published is None:
            self.require_conditional_writes()
            self._upload(name, contents)
            published = self._finish(name, contents, content_sha256, manifest_extra or {})
        if published.content_sha256 != content_sha256:
            raise RegistryConflictError(
                f"{self.uri(name)} exists with other content and never changes; publish under another version"
            )
        return published

    def require_conditional_writes(self) -> None:
        """RegistryError where the store ignores conditions: two promotions at once would both win there.

        Asked once a process, by writing and removing an object beside the versions.
        """
        conditional_writes.require(self._store, f"models/{self.model}")

    def promote(self, version: str, metrics: Mapping[str, Any], expected: str | None = ANY_CHAMPION) -> Champion:
        """Makes a published version the champion.

        `expected` is the ETag of the champion that the version was judged against, None if there was none.
        RegistryConflictError when the champion is another one by now. Promoting the champion changes nothing.
        """
        target = self.show(version)
        current = self.champion()
        if current is not None and (current.version, current.manifest_sha256) == (
            version,
            target.manifest_sha256,
        ):
            return current
        return self._move(target, metrics, current, expected)

    def rollback(self, to: str | None = None) -> Champion:
        """Moves the pointer back to `to`, by default to the champion's predecessor.

        Rolling back twice returns to where it began. The target must be complete.
        """
        current = self.require_champion()
        target = self.complete(self._choose_rollback_target(current, to))
        return self._move(target, target.extra.get("metrics", {}), current, current.etag)

    def predecessor(self, to: str | None = None) -> str:
        """The version that `rollback` returns to."""
        return self._choose_rollback_target(self.require_champion(), to)

    def list_versions(self) -> list[Version]:
        """All published versions, the oldest first; half-published ones are not among them."""
        found = (self.find(name) for name in self._store.folders(self._versions))
        return [version for version in found if version is not None]

    def show(self, version: str | None = None) -> Version:
        """One version, by default (None or "champion") the champion's. RegistryError where there is none."""
        if version is None or version == "champion":
            champion = self.require_champion()
            return self._version_of_pointer(champion)
        check_name(version, "version")
        found = self.find(version)
        if found is None:
            raise RegistryError(f"{self.uri(version)}: no such version; `models list` shows those that exist")
        return found

    def complete(self, version: str | None = None) -> Version:
        """What `show` gives, with all its files there in full size; whoever downloads them checks their hashes."""
        found = self.show(version)
        sizes = self._store.sizes(self._key(found.name, ""))
        for path, digest in found.files.items():
            if sizes.get(self._key(found.name, path)) != digest.size:
                raise RegistryError(f"{self.uri(found.name)}: {path} is missing or cut; choose another version")
        return found

    def find(self, version: str) -> Version | None:
        """A version by its name, None where there is none (a name that no version can have: none either)."""
        key = self._key(version, MANIFEST)
        stored = self._store.read(key) if is_name(version) else None
        return parse_manifest(stored.body, version, key) if stored else None

    def read(self, version: Version, path: str) -> bytes:
        """A small file of a version. RegistryError where it is not what was published."""
        stored = self._store.read(self._key(version.name, path))
        if stored is None or object_store.digest_of(stored.body) != version.files[path]:
            raise RegistryError(f"{self.uri(version.name)}: {path} is missing or damaged; choose another version")
        return stored.body

    def champion(self) -> Champion | None:
        """The pointer, or None before the first promotion."""
        stored = self._store.read(self._pointer)
        if stored is None:
            return None
        return parse_champion(stored, self._pointer)

    def require_champion(self) -> Champion:
        """The pointer; RegistryError before the first promotion."""
        champion = self.champion()
        if champion is None:
            raise RegistryError(f"{self.uri()}: {_NO_CHAMPION}")
        return champion

    def download(self, version: str | None, target: Path, wanted: FileFilter = select_all) -> Version:
        """Fetches a version (None: the champion) with its manifest; `target` appears whole or not at all.

        `target` must be absent or empty. RegistryError names the file whose hash is not the manifest's.
        """
        found = self.show(version)
        with _explain_write_errors(target), registry_download.stage_folder(target) as staging:
            self._fill(found, staging, wanted)
        return found

    def fill(self, version: str | None, target: Path, wanted: FileFilter = select_all) -> FillResult:
        """Makes a folder hold a version (None: the champion), whatever an earlier call has left in it.

        The manifest is written last: without one the folder is not complete.
        """
        found = self.show(version)
        with _explain_write_errors(target):
            return self._fill(found, target, wanted)

    def _fill(self, version: Version, target: Path, wanted: FileFilter) -> FillResult:
        prefix, label = self._key(version.name, ""), self.uri(version.name)
        return registry_download.fill(self._store, prefix, version, target, wanted, label)

    def _key(self, version: str, path: str) -> str:
        return f"{self._versions}{version}/{path}"

    def _name_for(self, content_sha256: str) -> str:
        """The version with this content if there is one, else the half-published one, else a new name."""
        ending = name_ending(content_sha256)
        names = [name for name in self._store.folders(self._versions) if name.endswith(ending)]
        versions = {name: self.find(name) for name in names}
        for name, found in versions.items():
            if found is not None and found.content_sha256 == content_sha256:
                return name
        unfinished = [name for name, found in versions.items() if found is None]
        return unfinished[-1] if unfinished else new_name(content_sha256)

    def _upload(self, version: str, contents: Mapping[str, Content]) -> None:
        there = self._store.sizes(self._key(version, ""))
        for path, content in contents.items():
            key = self._key(version, path)
            if key not in there:
                self._store.write_new(key, content.source)

    def _finish(
        self, version: str, contents: Mapping[str, Content], content_sha256: str, extra: Mapping[str, Any]
    ) -> Version:
        for path, content in contents.items():
            self._verify(version, path, content.digest)
        self._refuse_strangers(version, contents)
        # Lost to another publisher of the same version: then its manifest decides, and publish compares.
        self._store.write_new(
            self._key(version, MANIFEST),
            render_manifest(self.model, version, contents, content_sha256, extra),
        )
        self._store.abort_uploads(self._key(version, ""))
        return self.show(version)

    def _verify(self, version: str, path: str, expected: Digest) -> None:
        stored = self._store.digest(self._key(version, path))
        if stored is None:
            raise RegistryError(f"{self.uri(version)}: {path} is gone right after its upload; publish again")
        if stored != expected:
            raise RegistryConflictError(
                f"{self.uri(version)}: {path} holds other content (SHA-256 {stored.sha256[:12]}, "
                f"{stored.size} bytes; expected {expected.sha256[:12]}, {expected.size} bytes): somebody "
                "else published it or the store damaged it; publish under another version"
            )

    def _refuse_strangers(self, version: str, contents: Mapping[str, Content]) -> None:
        prefix = self._key(version, "")
        strangers = {key.removeprefix(prefix) for key in self._store.sizes(prefix)} - {*contents, MANIFEST}
        if strangers:
            raise RegistryConflictError(
                f"{self.uri(version)}: holds {', '.join(sorted(strangers))}, which this model does not have; "
                "publish under another version"
            )

    def _choose_rollback_target(self, current: Champion, to: str | None) -> str:
        name = to or current.previous
        if name is None:
            raise RegistryError(f"{self.uri()}: {current.version} has no predecessor; name the version to return to")
        if name == current.version:
            raise RegistryError(f"{self.uri()}: {name} is the champion already")
        return name

    def _version_of_pointer(self, champion: Champion) -> Version:
        version = self.find(champion.version)
        if version is None:
            raise RegistryError(
                f"{self.uri()}: the champion pointer names {champion.version}, which is not there; "
                f"go back with: conf-profile models rollback {champion.previous or 'VERSION'}"
            )
        if version.manifest_sha256 != champion.manifest_sha256:
            raise RegistryError(
                f"{self.uri(version.name)}: {MANIFEST} is not the one that was promoted (SHA-256 "
                f"{version.manifest_sha256[:12]}, promoted {champion.manifest_sha256[:12]}); roll back"
            )
        return version

    def _move(
        self, target: Version, metrics: Mapping[str, Any], current: Champion | None, expected: str | None
    ) -> Champion:
        self.require_conditional_writes()
        etag = current.etag if current else None
        previous = current.version if current else None
        body = to_json(
            {
                "version": target.name,
                "manifest_sha256": target.manifest_sha256,
                "metrics": dict(metrics),
                "promoted_at": now(),
                "previous": previous,
            }
        )
        if expected in (ANY_CHAMPION, etag) and self._swap(body, etag):
            return self.require_champion()
        raise self._conflict(target.name)

    def _swap(self, body: bytes, etag: str | None) -> bool:
        won = self._store.write_new(self._pointer, body) if etag is None else self._store.replace(
            self._pointer, body, etag
        )  # fmt: skip
        if won:
            return True
        # A retry after a lost answer meets its own first attempt.
        now = self._store.read(self._pointer)
        return now is not None and now.body == body

    def _conflict(self, version: str) -> RegistryConflictError:
        now = self.champion()
        state = f"is now {now.version}, promoted {now.promoted_at}" if now else "is not there any more"
        return RegistryConflictError(
            f"{self.uri()}: another promotion came first, the champion {state}; {version} stays "
            "published but was not promoted: evaluate it against that champion and promote again"
        )


@contextmanager
def _explain_write_errors(target: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise RegistryError(f"{target}: cannot be written: {error.strerror or error}") from error
