"""Checkpoints of a training step in an object store, for pods whose disks do not outlive them.

    PREFIX/claim.json                     who writes, and which checkpoints are whole (`checkpoint_claim`)
    PREFIX/NUMBER-WRITER/PATH/...         a checkpoint's files (`checkpoint_files`), manifest.json last

PREFIX ends with the name that `training.checkpoint_folder` gives, so only the same work finds it. The process that
starts the step claims and fetches (`begin`) and deletes in the end (`finish`); the process that trains uploads each
checkpoint when it is whole (`upload`), and learns where from remote.json in the checkpoints' folder.
"""

from __future__ import annotations

import json
import logging
import tempfile
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from conf_profile.errors import RegistryError, StudentError
from conf_profile.files import write_text
from conf_profile.storage import object_store, object_tree
from conf_profile.storage.object_store import ObjectStore
from conf_profile.students import processes
from conf_profile.students.checkpoints import claim as checkpoint_claim
from conf_profile.students.checkpoints import files as checkpoint_files
from conf_profile.students.checkpoints.claim import CLAIM, Claim, LostClaimError, StoredCheckpoint

PLACE = "remote.json"
KEPT_CHECKPOINTS = 2
"""Checkpoints of one training that stay in the store: the newest, and one in case that it is damaged."""
_CHECKPOINT = "checkpoint-"
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RemotePlace:
    """Where the copies of a folder of checkpoints go, and as whose."""

    address: str
    name: str
    writer: str

    def open(self) -> tuple[ObjectStore, str]:
        """The bucket, and the prefix of this work. RegistryError where the store cannot be reached."""
        store, prefix = self.locate()
        store.ensure_bucket(create=False)
        return store, prefix

    def locate(self) -> tuple[ObjectStore, str]:
        """The same without asking the store whether it is there."""
        store, prefix = _locate_cached(self.address)
        return store, f"{prefix}/{self.name}".lstrip("/")


@lru_cache(maxsize=1)
def _locate_cached(address: str) -> tuple[ObjectStore, str]:
    """A client takes a third of a second to make, and is asked for at every checkpoint."""
    return object_store.locate(address)


def begin(address: str, folder: Path) -> RemotePlace:
    """Becomes the writer of this work and fetches its newest good checkpoints into the empty `folder`.

    What is damaged is left out with a warning. RegistryError where the store cannot be reached.
    """
    store, prefix = RemotePlace(address, folder.name, "").open()
    claim = checkpoint_claim.take(store, prefix)
    place = RemotePlace(address, folder.name, claim.writer)
    good, damaged = _fetch_newest(store, prefix, claim.checkpoints, folder)
    if damaged:
        kept = tuple(entry for entry in claim.checkpoints if entry not in damaged)
        claim = checkpoint_claim.change(store, prefix, claim, kept)
    _delete_unlisted(store, prefix, claim)
    write_text(folder / PLACE, json.dumps(vars(place)))
    if good:
        _log.info("goes on from %s, which an earlier try has kept", ", ".join(entry.path for entry in good))
    return place


def upload(folder: Path) -> None:
    """Copies a whole checkpoint, or any finished folder beside it, where the folder's remote.json says.

    Does nothing without one, nor in another process than the first. A store that fails costs a warning. So does another
    try, or another run of the same work, that has taken over: nothing is copied from then on, and the training goes on.
    """
    root = next((parent for parent in list(folder.parents)[:2] if (parent / PLACE).is_file()), None)
    if root is None or not processes.is_first():
        return
    place = RemotePlace(**json.loads((root / PLACE).read_text(encoding="utf-8")))
    try:
        store, prefix = place.locate()
        # The training should not wait for a copy that the next checkpoint brings as well.
        _publish(store.without_retries(), prefix, place.writer, folder, folder.relative_to(root).as_posix())
    except LostClaimError as error:
        (root / PLACE).unlink()
        _log.warning("no further checkpoint is copied to the store: %s", error)
    except (RegistryError, StudentError, OSError) as error:
        _log.warning("%s is not copied to the store; the next checkpoint may be: %s", folder.name, error)


def finish(place: RemotePlace) -> None:
    """Deletes everything of this work; a failure costs a warning, since the step's outputs are whole."""
    try:
        store, prefix = place.open()
        claim = checkpoint_claim.read_current(store, prefix, place.writer)
        # First nobody finds them, then they go.
        _delete_unlisted(store, prefix, checkpoint_claim.change(store, prefix, claim, ()))
        checkpoint_claim.read_current(store, prefix, place.writer)
        store.delete(f"{prefix}/{CLAIM}")
    except (RegistryError, LostClaimError) as error:
        _log.warning("the checkpoints of %s are not deleted: %s", place.name, error)


def _publish(store: ObjectStore, prefix: str, writer: str, folder: Path, path: str) -> None:
    claim = checkpoint_claim.read_current(store, prefix, writer)
    key = f"{claim.folder}/{path}"
    with tempfile.TemporaryDirectory(prefix="packed-") as scratch:
        packed = checkpoint_files.pack(folder, Path(scratch))
        body = checkpoint_files.manifest(packed)
        for name, file in packed.items():
            object_tree.upload(store, file, f"{prefix}/{key}/{name}")
    place = f"{prefix}/{key}/{checkpoint_files.MANIFEST}"
    if not store.write_new(place, body) and store.digest(place) != object_store.digest_of(body):
        raise RegistryError(f"s3://{store.bucket}/{place} exists already, with another content")
    entry = StoredCheckpoint(path, key, object_store.digest_of(body).sha256)
    kept = _select_kept(claim.checkpoints, entry)
    checkpoint_claim.change(store, prefix, claim, kept)
    for dropped in set(claim.checkpoints) - set(kept):
        object_tree.clear(store, f"{prefix}/{dropped.place}")


def _select_kept(before: tuple[StoredCheckpoint, ...], new: StoredCheckpoint) -> tuple[StoredCheckpoint, ...]:
    """Finished folders, and the last checkpoints of the training that is under way."""
    others = [entry for entry in before if entry.path != new.path]
    finished = [entry for entry in others if not _is_checkpoint(entry)]
    if not _is_checkpoint(new):
        return (*finished, new)
    # In the order of writing, not of their numbers: a damaged one may have a higher number.
    under_way = [e for e in others if _is_checkpoint(e) and _parent(e.path) == _parent(new.path)]
    return (*finished, *under_way[1 - KEPT_CHECKPOINTS :], new)


def _fetch_newest(
    store: ObjectStore, prefix: str, entries: tuple[StoredCheckpoint, ...], folder: Path
) -> tuple[list[StoredCheckpoint], list[StoredCheckpoint]]:
    """Fetches finished folders and the newest good checkpoint of each training; returns those, and the damaged."""
    good: list[StoredCheckpoint] = []
    damaged: list[StoredCheckpoint] = []
    for entry in reversed(entries):
        if _is_checkpoint(entry) and any(_is_checkpoint(e) and _parent(e.path) == _parent(entry.path) for e in good):
            continue
        try:
            _fetch(store, f"{prefix}/{entry.place}", entry, folder / entry.path)
            good.append(entry)
        except StudentError as error:
            _log.warning("checkpoint s3://%s/%s/%s is not used: %s", store.bucket, prefix, entry.place, error)
            damaged.append(entry)
    return good, damaged


def _fetch(store: ObjectStore, key: str, entry: StoredCheckpoint, target: Path) -> None:
    """Every hash is compared before anything is read. StudentError for what is damaged or missing."""
    stored = store.read(f"{key}/{checkpoint_files.MANIFEST}")
    if stored is None:
        raise StudentError("its manifest is missing")
    if object_store.digest_of(stored.body).sha256 != entry.sha256:
        raise StudentError("its manifest is not the one that was written")
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".fetched-") as scratch:
        files: dict[str, Path] = {}
        for name, expected in checkpoint_files.read_manifest(stored.body).items():
            files[name] = Path(scratch) / name
            found = store.download(f"{key}/{name}", files[name], expected.size)
            if found != expected:
                raise StudentError(f"{name} is missing" if found is None else f"{name} differs from its hash")
        checkpoint_files.unpack(files, target)


def _delete_unlisted(store: ObjectStore, prefix: str, claim: Claim) -> None:
    """Deletes what no claim lists: half an upload of a killed try, a checkpoint that was damaged."""
    store.abort_uploads(f"{prefix}/")
    listed = tuple(f"{prefix}/{entry.place}/" for entry in claim.checkpoints)
    for key in store.sizes(f"{prefix}/"):
        if key != f"{prefix}/{CLAIM}" and not key.startswith(listed):
            store.delete(key)


def _is_checkpoint(entry: StoredCheckpoint) -> bool:
    return entry.path.rpartition("/")[2].startswith(_CHECKPOINT)


def _parent(path: str) -> str:
    return path.rpartition("/")[0]
