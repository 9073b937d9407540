"""A file or a folder in an object store, as KFP keeps artefacts: an object of that name, or objects below it."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from conf_profile.errors import RegistryError
from conf_profile.storage.object_store import ObjectStore, digest_of


def fetch(store: ObjectStore, key: str, target: Path) -> None:
    """Writes the object `key` to `target`, or the objects below it into the folder `target`.

    RegistryError where there is neither, and for a name that leads out of the folder.
    """
    found = sizes(store, key)
    if not found:
        raise RegistryError(f"s3://{store.bucket}/{key}: there is nothing; correct the address")
    for name, size in found.items():
        store.download(name, target / _relative_path(store, key, name), size)


def upload(store: ObjectStore, source: Path, key: str) -> None:
    """Uploads a file as `key`, or a folder's files below it. RegistryError where one of them is there, and another."""
    files = {key: source}
    if source.is_dir():
        files = {f"{key}/{path.relative_to(source).as_posix()}": path for path in source.rglob("*") if path.is_file()}
    for name, path in files.items():
        # A write whose reply was lost is repeated, and then finds itself.
        if not store.write_new(name, path) and store.digest(name) != digest_of(path):
            raise RegistryError(f"s3://{store.bucket}/{name} exists already; choose another place for the output")


def sizes(store: ObjectStore, key: str) -> dict[str, int]:
    """Name -> bytes of the object `key` and of those below it; empty where there is nothing."""
    return {name: size for name, size in store.sizes(key).items() if name == key or name.startswith(f"{key}/")}


def clear(store: ObjectStore, key: str) -> None:
    """Deletes the object `key` and those below it, and drops what nobody completed there."""
    store.abort_uploads(f"{key}/")
    for name in sizes(store, key):
        store.delete(name)


def _relative_path(store: ObjectStore, key: str, name: str) -> PurePosixPath:
    relative = PurePosixPath(name[len(key) :].lstrip("/"))
    if ".." in relative.parts:
        raise RegistryError(f"s3://{store.bucket}/{name}: leads out of its folder; it is not fetched")
    return relative
