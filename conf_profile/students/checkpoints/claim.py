"""Who writes the checkpoints of one piece of work, and which of them are whole: one small object, claim.json.

    {"format": 1, "number": 2, "writer": "5f0c...", "checkpoints": [{"path": ..., "place": ..., "sha256": ...}]}

Every change is conditional on what was read before. A second try of the same step takes the claim over under the next
number; the first one finds that out when it next writes, and has changed nothing by then. A checkpoint exists once it
is listed here, so nobody sees half of one. `sha256` is that of its manifest.
"""

from __future__ import annotations

import json
import logging
import uuid
from dataclasses import asdict, dataclass, replace

from conf_profile.errors import RegistryError, StudentError
from conf_profile.storage.object_store import ObjectStore

CLAIM = "claim.json"
_FORMAT = 1
_ATTEMPTS = 5
_log = logging.getLogger(__name__)


class LostClaimError(StudentError):
    """Another try of the same step writes now."""


@dataclass(frozen=True)
class StoredCheckpoint:
    """A whole checkpoint: its path below the step's checkpoint folder, and its place below the claim's prefix."""

    path: str
    place: str
    sha256: str


@dataclass(frozen=True)
class Claim:
    """The writer and its checkpoints, in the order in which they were written."""

    number: int
    writer: str
    checkpoints: tuple[StoredCheckpoint, ...] = ()

    @property
    def folder(self) -> str:
        """The writer's own folder below the claim's prefix."""
        return f"{self.number}-{self.writer}"

    def to_json(self) -> bytes:
        """The object's body."""
        return json.dumps({"format": _FORMAT, **asdict(self)}, indent=1).encode()


def take(store: ObjectStore, prefix: str) -> Claim:
    """Makes a new writer of `prefix`, which keeps the checkpoints that are there."""
    key = f"{prefix}/{CLAIM}"
    for _ in range(_ATTEMPTS):
        stored = store.read(key)
        before = _read(stored.body, key) if stored is not None else Claim(0, "")
        claim = Claim(before.number + 1, uuid.uuid4().hex, before.checkpoints)
        body = claim.to_json()
        if store.write_new(key, body) if stored is None else store.replace(key, body, stored.etag):
            return claim
        # A write whose reply was lost is repeated, and then finds itself.
        if _is_there(store, key, body):
            return claim
    raise RegistryError(f"s3://{store.bucket}/{key}: others keep changing it; end the other tries of this step")


def change(store: ObjectStore, prefix: str, claim: Claim, checkpoints: tuple[StoredCheckpoint, ...]) -> Claim:
    """The claim with other checkpoints, written. LostClaimError where it is another writer's by now."""
    key, changed = f"{prefix}/{CLAIM}", replace(claim, checkpoints=checkpoints)
    etag = _read_own(store, key, claim.writer)[1]
    if store.replace(key, changed.to_json(), etag) or _is_there(store, key, changed.to_json()):
        return changed
    _read_own(store, key, claim.writer)
    raise RegistryError(f"s3://{store.bucket}/{key}: the store refuses the change, and is the same as before")


def read_current(store: ObjectStore, prefix: str, writer: str) -> Claim:
    """The writer's claim as it is stored. LostClaimError where it is another writer's by now."""
    return _read_own(store, f"{prefix}/{CLAIM}", writer)[0]


def _read_own(store: ObjectStore, key: str, writer: str) -> tuple[Claim, str]:
    stored = store.read(key)
    claim = _read(stored.body, key) if stored is not None else None
    if stored is None or claim is None or claim.writer != writer:
        found = f"try {claim.number} has taken over" if claim is not None else "they were deleted"
        raise LostClaimError(
            f"s3://{store.bucket}/{key}: the checkpoints are not this try's any more: {found}; see "
            "whether another pod of this step runs, or another run that trains on the same"
        )
    return claim, stored.etag


def _is_there(store: ObjectStore, key: str, body: bytes) -> bool:
    stored = store.read(key)
    return stored is not None and stored.body == body


def _read(body: bytes, key: str) -> Claim:
    """The stored claim; one without checkpoints where it is damaged, or another version's."""
    try:
        content = json.loads(body)
        if content["format"] != _FORMAT:
            raise ValueError(f"format {content['format']!r}")
        checkpoints = tuple(StoredCheckpoint(**entry) for entry in content["checkpoints"])
        return Claim(int(content["number"]), str(content["writer"]), checkpoints)
    except (ValueError, LookupError, TypeError) as error:
        _log.warning("%s: cannot be read (%r); the checkpoints that it lists are not used", key, error)
        return Claim(0, "")
