"""Where events and users lie: files, folders with or without partitions, and objects in S3.

Objects are brought to this machine in portions, with the keys, certificates and retries of every other command, and
deleted as soon as they are read: DuckDB's own reader of S3 is an extension that it downloads.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import unquote

from conf_profile.errors import DataError
from conf_profile.storage import object_store, object_tree
from conf_profile.storage.object_address import is_remote
from conf_profile.storage.object_store import ObjectStore

Format = Literal["parquet", "csv", "json"]

SUFFIXES: dict[str, Format] = {
    ".parquet": "parquet", ".pq": "parquet", ".parq": "parquet", ".csv": "csv", ".tsv": "csv", ".jsonl": "json",
    ".ndjson": "json", ".json": "json",
}  # fmt: skip
PORTION_BYTES = 512 << 20
PORTION_FILES = 256
_MAGIC = b"PAR1"
_DEFAULT_PARTITION = "__HIVE_DEFAULT_PARTITION__"


@dataclass(frozen=True)
class SourceFile:
    """One file: its name as the user knows it, and what its folders say (`day=2025-01-01`), null as None.

    An object has its `key` in a `store`, any other file its `path`.
    """

    name: str
    format: Format
    size: int
    partitions: tuple[tuple[str, str | None], ...] = ()
    path: Path | None = None
    store: ObjectStore | None = None
    key: str = ""


@dataclass(frozen=True)
class FoundFiles:
    """What a place holds; `ignored` are names of files that are none of the known formats, or empty."""

    files: tuple[SourceFile, ...]
    ignored: tuple[str, ...]


def find_files(place: str) -> FoundFiles:
    """All files of a place, in the order of their names. DataError where there is none that can be read."""
    found = _find_objects(place) if is_remote(place) else _find_paths(place)
    if not found.files:
        others = f"; of other kinds, or empty: {', '.join(found.ignored[:3])}" if found.ignored else ""
        raise DataError(f"{place}: no file to read there; expected {', '.join(SUFFIXES)} (or .gz of these){others}")
    return found


def portions(files: Sequence[SourceFile]) -> Iterator[list[SourceFile]]:
    """Files to bring here at a time: those of this machine all at once, objects in limited portions."""
    if files[0].store is None:
        yield list(files)
        return
    portion: list[SourceFile] = []
    for file in files:
        if portion and (len(portion) == PORTION_FILES or sum(f.size for f in portion) + file.size > PORTION_BYTES):
            yield portion
            portion = []
        portion.append(file)
    yield portion


@contextmanager
def fetch_files(files: Sequence[SourceFile], folder: Path) -> Iterator[list[Path]]:
    """The files on this machine, in order, for as long as the block runs."""
    paths = [file.path or folder / f"{number}{_suffixes(file)}" for number, file in enumerate(files)]
    try:
        for file, path in zip(files, paths, strict=True):
            if file.store is not None and file.store.download(file.key, path, file.size) is None:
                raise DataError(f"{file.name}: was deleted while it was read; run again when nobody writes there")
        yield paths
    finally:
        for file, path in zip(files, paths, strict=True):
            if file.store is not None:
                path.unlink(missing_ok=True)


def _find_paths(place: str) -> FoundFiles:
    path = Path(place).expanduser()
    if path.is_dir():
        inside = sorted(found for found in path.rglob("*") if found.is_file() and not _is_hidden(found, path))
        return _sort_out([(_local_file(found), str(found)) for found in inside])
    if path.is_file():
        file = _local_file(path)
        if file is None or not file.size:
            raise DataError(
                f"{place}: {'is empty' if path.stat().st_size == 0 else 'is of no known kind'}; expected "
                f"{', '.join(SUFFIXES)} (or .gz of these)"
            )
        return FoundFiles((file,), ())
    matches = sorted(Path(path.anchor or ".").glob(str(path.relative_to(path.anchor))))
    if not matches:
        raise DataError(f"{place}: there is no such file or folder; correct --events or --users")
    return _sort_out([(_local_file(found), str(found)) for found in matches if found.is_file()])


def _find_objects(place: str) -> FoundFiles:
    store, key = object_store.open_location(place)
    sizes = object_tree.sizes(store, key) if key else store.sizes("")
    if not sizes:
        raise DataError(f"{place}: there is no such object, nor one below it; correct --events or --users")
    files: list[tuple[SourceFile | None, str]] = []
    for name, size in sorted(sizes.items()):
        if _is_hidden(Path(name), Path(key) if name != key else Path(name).parent):
            continue
        known, address = _format(Path(name)), f"s3://{store.bucket}/{name}"
        file = known and SourceFile(address, known, size, _partitions(name), store=store, key=name)
        files.append((file or None, address))
    return _sort_out(files)


def _sort_out(files: Sequence[tuple[SourceFile | None, str]]) -> FoundFiles:
    return FoundFiles(
        tuple(file for file, _ in files if file and file.size),
        tuple(name for file, name in files if not (file and file.size)),
    )


def _local_file(path: Path) -> SourceFile | None:
    known = _format(path)
    if known is None:
        with path.open("rb") as file:
            known = "parquet" if file.read(len(_MAGIC)) == _MAGIC else None
    return known and SourceFile(str(path), known, path.stat().st_size, _partitions(str(path)), path=path)


def _format(path: Path) -> Format | None:
    name = path.name.lower().removesuffix(".gz")
    known = SUFFIXES.get(Path(name).suffix)
    return None if known == "parquet" and name != path.name.lower() else known


def _suffixes(file: SourceFile) -> str:
    return "." + file.format + (".gz" if file.name.lower().endswith(".gz") else "")


def _is_hidden(path: Path, below: Path) -> bool:
    """What Spark and others put beside their files: _SUCCESS, .crc, _temporary/."""
    return any(part.startswith(("_", ".")) and "=" not in part for part in path.relative_to(below).parts)


def _partitions(name: str) -> tuple[tuple[str, str | None], ...]:
    pairs = [part.partition("=") for part in Path(name).parts[:-1] if "=" in part]
    return tuple(
        (unquote(column), None if value == _DEFAULT_PARTITION else unquote(value)) for column, _, value in pairs
    )
