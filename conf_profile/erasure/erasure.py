"""Erasing one user from everything that a run keeps in files: which stores there are, taking out, looking again.

A model is not a store: what its weights have learnt stays (`trained_versions` says which versions that concerns).
Feast's stores are the feature repository's; its command puts both together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from conf_profile import parquet_rows
from conf_profile.data import dataset
from conf_profile.errors import DataError
from conf_profile.teachers import answers

REGISTRY = "s3"
"""The run's local S3 server keeps models there, and no row of anybody."""
SOURCES = ("behaviour_uri", "demographics_uri", "labels_uri", "ceiling_uri")


@dataclass(frozen=True)
class Store:
    """A place that may hold rows of a user: `remove` takes them out, `count` reads the place again; both give rows."""

    name: str
    remove: Callable[[str], int]
    count: Callable[[str], int]


@dataclass(frozen=True)
class ErasureResult:
    """What became of one store; rows."""

    store: str
    removed: int
    left: int


def erase(user_id: str, stores: Sequence[Store]) -> list[ErasureResult]:
    """Takes the user out of every store, then reads every store again. A killed call can be repeated."""
    removed = [store.remove(user_id) for store in stores]
    left = [store.count(user_id) for store in stores]
    return [ErasureResult(*found) for found in zip((store.name for store in stores), removed, left, strict=True)]


def stores(run: Path, arguments: Mapping[str, Any], further: Iterable[Path], data_too: bool) -> list[Store]:
    """Every store of a run in files: tables, kept answers, and what a kill left half-written.

    `further` are folders outside the run's. The user's own tables are outside too: unless `data_too` is given they
    are only looked at, and what is in them counts as left.
    """
    folders = [run, *further]
    return [
        *(_parquet_store(name, paths) for folder in folders for name, paths in _groups(folder)),
        *(_own_tables_store(path, data_too) for path in own_tables(run, arguments)),
        *(
            _answers_store(folder)
            for folder in sorted({run / "workspace" / "answers", Path(arguments["answers_folder"])})
        ),
        *(_unfinished_files_store(folder) for folder in folders),
    ]


def own_tables(run: Path, arguments: Mapping[str, Any]) -> list[Path]:
    """The run's source tables that do not lie in its folder; DataError for one that is not on this machine."""
    given = [str(arguments[name]) for name in SOURCES if arguments[name]]
    remote = [uri for uri in given if "://" in uri]
    if remote:
        raise DataError(f"{remote[0]}: is not on this machine; take the user out where it is, and erase there")
    outside = [path for path in map(Path, given) if not path.resolve().is_relative_to(run.resolve())]
    return [path for path in outside if path.is_file() and path.stat().st_size]


def _groups(folder: Path) -> Iterator[tuple[str, list[Path]]]:
    """The tables of a folder by what they are: ten shards of candidates are one store to whoever reads the list."""
    found = sorted(parquet_rows.tables_of_users(folder, (REGISTRY,)), key=lambda path: _kind(folder, path))
    for kind, paths in groupby(found, key=lambda path: _kind(folder, path)):
        yield kind, list(paths)


def _kind(folder: Path, path: Path) -> str:
    """`artefacts: candidates`, `backfill`, ...; the folder's own name for a file that lies directly in it."""
    top, *rest = path.relative_to(folder).parts
    if not rest:
        return folder.name
    return f"{top}: {path.stem}" if top in ("artefacts", "data") else top


def _parquet_store(name: str, paths: Sequence[Path]) -> Store:
    return Store(name, lambda user_id: _remove(paths, user_id), lambda user_id: _count(paths, user_id))


def _own_tables_store(path: Path, data_too: bool) -> Store:
    if data_too:
        return _parquet_store(f"your own {path.name}", [path])
    return Store(f"your own {path.name} (not touched)", lambda user_id: 0, lambda user_id: _count([path], user_id))


def _answers_store(folder: Path) -> Store:
    return Store(
        "kept answers",
        lambda user_id: answers.forget(folder, user_id),
        lambda user_id: answers.count_kept(folder, user_id),
    )


def _unfinished_files_store(folder: Path) -> Store:
    """Their rows cannot be read, so they are deleted whole and counted by the file."""

    def remove(_: str) -> int:
        found = list(parquet_rows.find_unfinished(folder, (REGISTRY,)))
        for path in found:
            path.unlink(missing_ok=True)
        return len(found)

    return Store("half-written files", remove, lambda _: len(list(parquet_rows.find_unfinished(folder, (REGISTRY,)))))


def _remove(paths: Sequence[Path], user_id: str) -> int:
    removed = {path: parquet_rows.remove(path, user_id) for path in paths}
    for folder in {path.parent for path, rows in removed.items() if rows}:
        if (folder / dataset.MANIFEST).is_file():
            dataset.finish_again(folder)
    return sum(removed.values())


def _count(paths: Sequence[Path], user_id: str) -> int:
    return sum(parquet_rows.count(path, user_id) for path in paths)
