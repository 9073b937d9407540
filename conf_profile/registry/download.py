"""A version's files from the registry into a folder: several at once, hashed on their way, the manifest last.

Every file is written under a temporary name and renamed once its SHA-256 is the manifest's. A folder with a manifest is
whole; a killed download goes on where it stopped, and what is there with the right hash is not fetched again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from conf_profile.errors import RegistryError
from conf_profile.files import atomic_folder, atomic_path
from conf_profile.registry.format import Version, parse_manifest
from conf_profile.registry.version_files import MANIFEST
from conf_profile.storage.object_store import Digest, ObjectStore, digest_of

INCOMING_MANIFEST = f".{MANIFEST}.incoming"
"""The manifest of the version that is being fetched."""
PARALLEL_FILES = 4
WEIGHTS = frozenset({".safetensors", ".bin", ".pt", ".pth", ".gguf", ".onnx"})

FileFilter = Callable[[str], bool]
"""Whether a path of a version is to be fetched."""


@dataclass(frozen=True)
class FillResult:
    """What `fill` did: the version, files fetched and their bytes, files that were there."""

    version: Version
    fetched: int
    bytes: int
    kept: int


def select_all(_: str) -> bool:
    return True


def exclude_weights(path: str) -> bool:
    """All that the transformer reads."""
    return Path(path).suffix not in WEIGHTS


def fill(store: ObjectStore, prefix: str, version: Version, target: Path, wanted: FileFilter, label: str) -> FillResult:
    """Makes `target` hold the wanted files of a version; files of another version that was there before go.

    `prefix` is where its objects are, `label` what messages call it. RegistryError names the file that is missing or
    has another hash; then there is no manifest.
    """
    files = {path: digest for path, digest in version.files.items() if wanted(path)}
    _begin(target, version, files)
    missing = {path: digest for path, digest in files.items() if not _is_there(target / path, digest)}

    def fetch(path: str) -> None:
        _fetch(store, prefix + path, target / path, missing[path], f"{label}: {path}")

    # The largest first, so that nobody waits for one that began last.
    _fetch_all(fetch, sorted(missing, key=lambda path: -missing[path].size))
    (target / INCOMING_MANIFEST).replace(target / MANIFEST)
    return FillResult(version, len(missing), sum(one.size for one in missing.values()), len(files) - len(missing))


def _begin(target: Path, version: Version, files: Iterable[str]) -> None:
    target.mkdir(parents=True, exist_ok=True)
    for earlier in (target / MANIFEST, target / INCOMING_MANIFEST):
        if earlier.is_file() and earlier.read_bytes() != version.manifest:
            _remove(target, _read_file_names(earlier) - set(files))
    (target / MANIFEST).unlink(missing_ok=True)
    with atomic_path(target / INCOMING_MANIFEST, one_writer=True, error=RegistryError) as part:
        part.write_bytes(version.manifest)


def _read_file_names(manifest: Path) -> set[str]:
    """The files that an earlier version's manifest names; none if that was cut, by a full disk or a power failure."""
    try:
        return set(parse_manifest(manifest.read_bytes(), "", str(manifest)).files)
    except RegistryError:
        return set()


def _remove(target: Path, paths: Iterable[str]) -> None:
    for path in paths:
        (target / path).unlink(missing_ok=True)


def _is_there(path: Path, expected: Digest) -> bool:
    return path.is_file() and path.stat().st_size == expected.size and digest_of(path) == expected


def _fetch(store: ObjectStore, key: str, path: Path, expected: Digest, label: str) -> None:
    with atomic_path(path, one_writer=True, error=RegistryError) as part:
        got = store.download(key, part, expected.size)
        if got != expected:
            state = "is missing" if got is None else f"has the SHA-256 {got.sha256[:12]}, not {expected.sha256[:12]}"
            raise RegistryError(f"{label} {state}; do not serve it, roll back")


def _fetch_all(fetch: Callable[[str], None], paths: Iterable[str]) -> None:
    pool = ThreadPoolExecutor(PARALLEL_FILES)
    try:
        for _ in pool.map(fetch, paths):
            pass
    finally:
        pool.shutdown(cancel_futures=True)


@contextmanager
def stage_folder(target: Path) -> Iterator[Path]:
    """A folder that becomes `target` when the block ends without an error, and vanishes otherwise.

    A mounted volume cannot be renamed onto: there it is `target` itself, and what is incomplete lacks a manifest.
    """
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise RegistryError(f"{target}: exists already; remove it or choose another folder")
    if target.is_mount():
        yield target
        return
    try:
        with atomic_folder(target) as temporary:
            yield temporary
    except FileExistsError as error:
        raise RegistryError(f"{target}: somebody else filled it meanwhile; choose another folder") from error
