"""RUN/erased.jsonl: that somebody was erased, when, and from which model versions nobody can erase them.

Never the id: a slow hash (scrypt) with the file's own salt. Whoever has the file and an id can tell whether that id
was erased; ids that can be guessed can be tried, at some fifty milliseconds each. Protect the file like the run.

Of an object store the record is an object, erasures/MODEL.jsonl; `open_record_in_store` makes it a file for as long as
one of these functions works on it.

An erasure is recorded twice, when it begins and when it is proven, because the versions can only be told from the
rows: one that was killed in between is repeated with what its beginning had found.
"""

from __future__ import annotations

import hashlib
import json
import secrets
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from conf_profile.errors import RegistryConflictError
from conf_profile.files import write_text
from conf_profile.registry.trained_versions import TrainedVersion
from conf_profile.storage.object_store import ObjectStore

FILE = "erased.jsonl"


def begin(run: Path, user_id: str, versions: Sequence[TrainedVersion]) -> list[TrainedVersion]:
    """Records that an erasure begins; returns these versions and those that earlier beginnings had found."""
    salt, entries = _read(run)
    user = _hash(user_id, salt)
    before = [
        TrainedVersion.from_json(found) for entry in entries if entry["user"] == user for found in entry["versions"]
    ]
    known = {version.version: version for version in (*before, *versions)}
    _write(run, salt, [*entries, _entry(user, "begun", list(known.values()))])
    return list(known.values())


def finish(run: Path, user_id: str, rows: int) -> None:
    """Records that no row is left; `rows` were removed."""
    salt, entries = _read(run)
    _write(run, salt, [*entries, _entry(_hash(user_id, salt), "erased", []) | {"rows": rows}])


def is_erased(run: Path, user_id: str) -> bool:
    """Whether this user was erased from the run."""
    salt, entries = _read(run)
    user = _hash(user_id, salt)
    return any(entry["user"] == user and entry["state"] == "erased" for entry in entries)


@contextmanager
def open_record_in_store(store: ObjectStore, model: str) -> Iterator[Path]:
    """A folder with the record of a model's bucket, which is written back; RegistryConflictError where it has moved."""
    key = f"erasures/{model}.jsonl"
    before = store.read(key)
    with tempfile.TemporaryDirectory(prefix="erasures-") as temporary:
        path = Path(temporary) / FILE
        if before is not None:
            path.write_bytes(before.body)
        yield Path(temporary)
        body = path.read_bytes()
    if not (store.write_new(key, body) if before is None else store.replace(key, body, before.etag)):
        raise RegistryConflictError(f"s3://{store.bucket}/{key}: another erasure is under way; erase again after it")


def _entry(user: str, state: str, versions: Sequence[TrainedVersion]) -> dict[str, Any]:
    at = datetime.now(UTC).isoformat(timespec="seconds")
    return {"user": user, "state": state, "at": at, "versions": [asdict(version) for version in versions]}


def _hash(user_id: str, salt: str) -> str:
    return hashlib.scrypt(user_id.encode(), salt=bytes.fromhex(salt), n=2**14, r=8, p=1, dklen=16).hex()


def _read(run: Path) -> tuple[str, list[dict[str, Any]]]:
    path = run / FILE
    if not path.is_file():
        return secrets.token_hex(16), []
    header, *entries = map(json.loads, path.read_text(encoding="utf-8").splitlines())
    return str(header["salt"]), entries


def _write(run: Path, salt: str, entries: Sequence[dict[str, Any]]) -> None:
    write_text(run / FILE, "".join(json.dumps(line) + "\n" for line in ({"salt": salt}, *entries)))
