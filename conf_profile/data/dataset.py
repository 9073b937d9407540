"""A data set on disk: one folder, one form, whoever made it.

    behaviour.parquet      snapshots of each user's most recent keyphrases   (tables.BEHAVIOUR)
    demographics.parquet   what each user said at sign-up, and the consent   (tables.DEMOGRAPHICS)
    task.yaml              attributes with their closed tag sets, features, words (dialogue.task)
    lexicon.json           optional: evidence for the lexicon teacher
    labels.parquet         optional: true labels, for evaluation alone       (tables.LABELS)
    dataset.json           name, users, as_of, source, licence, and the SHA-256 of every file

Makers of data sets write their files and call `finish`, which writes dataset.json last: a folder that has
one is whole. `digest` and `labels_digest` are cache keys; they are kept apart so that a change of the labels
never touches a step that may not know them. This module does not look into the tables; `own.check_folder`
does.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from conf_profile.dialogue import task as tasks
from conf_profile.errors import DataError
from conf_profile.files import write_text

T = TypeVar("T")

BEHAVIOUR = "behaviour.parquet"
DEMOGRAPHICS = "demographics.parquet"
LABELS = "labels.parquet"
TASK, FORMER_TASK = tasks.TASK, tasks.FORMER_TASK
LEXICON = "lexicon.json"
MANIFEST = "dataset.json"

FEATURE_FILES = (BEHAVIOUR, DEMOGRAPHICS)
"""What the features step reads."""

TEACHING_FILES = (TASK, FORMER_TASK, LEXICON)
"""What the steps after it read besides."""

REQUIRED_FILES = (BEHAVIOUR, DEMOGRAPHICS, TASK)


@dataclass(frozen=True)
class Dataset:
    """One data set. `paths` and `hashes` (SHA-256, hexadecimal) are keyed by the file names of this module.

    `as_of` is the moment for which profiles are inferred, in ISO form with a zone.
    """

    folder: Path
    name: str
    users: int
    as_of: str
    source: str
    licence: str
    paths: Mapping[str, Path]
    hashes: Mapping[str, str]

    @property
    def behaviour(self) -> Path:
        return self.paths[BEHAVIOUR]

    @property
    def demographics(self) -> Path:
        return self.paths[DEMOGRAPHICS]

    @property
    def task(self) -> Path:
        return task_of(self.paths)

    @property
    def lexicon(self) -> Path | None:
        return self.paths.get(LEXICON)

    @property
    def labels(self) -> Path | None:
        """True labels: for the evaluation step alone."""
        return self.paths.get(LABELS)

    def digest(self, names: Iterable[str] = FEATURE_FILES) -> str:
        """A hash of the contents of the named files; those that are absent count as absent."""
        return _digest({name: self.hashes[name] for name in names if name in self.hashes})

    def labels_digest(self) -> str:
        """A hash of the labels and of every other file that is neither features nor teaching material.

        A file that this module does not know (a generator's exact posterior, say) is taken for a kind of
        truth, which is the safe side.
        """
        known = {*FEATURE_FILES, *TEACHING_FILES}
        return _digest({name: value for name, value in self.hashes.items() if name not in known})


def finish(
    folder: Path,
    name: str,
    as_of: datetime | str,
    *,
    source: str,
    licence: str,
    users: int | None = None,
) -> Dataset:
    """Hashes the files of a folder that is otherwise complete, writes dataset.json and returns the data set.

    `users` defaults to the number of different users in demographics. Raises DataError where a required file
    is missing or `as_of` has no zone.
    """
    paths = _files(folder)
    dataset = Dataset(
        folder=folder,
        name=name,
        users=count_users(paths[DEMOGRAPHICS]) if users is None else users,
        as_of=parse_time(as_of, "as_of").isoformat(),
        source=source,
        licence=licence,
        paths=paths,
        hashes={file: sha256(path) for file, path in paths.items()},
    )
    write_text(folder / MANIFEST, json.dumps(_manifest(dataset), indent=2, ensure_ascii=False) + "\n")
    return dataset


def finish_again(folder: Path) -> None:
    """Writes dataset.json anew after its tables were changed on purpose: hashes and number of users."""
    manifest = read_manifest(folder)
    changed = {
        "users": count_users(folder / DEMOGRAPHICS),
        "files": {name: sha256(folder / name) for name in manifest["files"]},
    }
    write_text(folder / MANIFEST, json.dumps(manifest | changed, indent=2, ensure_ascii=False) + "\n")


def load(folder: Path) -> Dataset:
    """Reads a finished data set and verifies every file against its hash; DataError names the offence."""
    manifest = read_manifest(folder)
    paths = {name: folder / name for name in manifest["files"]}
    for name, path in paths.items():
        _verify(path, manifest["files"][name])
    return Dataset(
        folder=folder,
        name=manifest["name"],
        users=int(manifest["users"]),
        as_of=parse_time(manifest["as_of"], f"{folder / MANIFEST}: as_of").isoformat(),
        source=manifest["source"],
        licence=manifest["licence"],
        paths=paths,
        hashes=dict(manifest["files"]),
    )


def read_manifest(folder: Path) -> dict[str, Any]:
    """The contents of dataset.json, with all its keys present."""
    path = folder / MANIFEST
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); is {folder} a finished data set?") from error
    except ValueError as error:
        raise DataError(f"{path}: not valid JSON: {error}") from error
    wanted = ("name", "users", "as_of", "files", "source", "licence")
    missing = [key for key in wanted if not isinstance(manifest, dict) or key not in manifest]
    if missing:
        raise DataError(f"{path}: lacks {', '.join(missing)}; build the data set again")
    return dict(manifest)


def parse_time(value: datetime | str, where: str) -> datetime:
    """A moment with a zone, in UTC. DataError (naming `where`) for anything else."""
    try:
        moment = value if isinstance(value, datetime) else datetime.fromisoformat(value)
    except ValueError as error:
        raise DataError(f"{where}: {value!r} is not an ISO time such as 2025-01-31T00:00:00+00:00") from error
    if moment.utcoffset() is None:
        raise DataError(f"{where}: {value!s} has no zone; write it with one, e.g. {value!s}+00:00")
    return moment.astimezone(UTC)


def sha256(path: Path) -> str:
    """SHA-256 of a file, hexadecimal."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from error


def task_of(files: Mapping[str, T]) -> T:
    """Of a data set's files by name: the task, or an earlier release's taxonomy; KeyError where there is neither."""
    return files[tasks.file_name(files)]


def missing_files(present: Container[str]) -> list[str]:
    """Those of REQUIRED_FILES that are not there; a taxonomy of an earlier release stands for the task."""
    wanted = (BEHAVIOUR, DEMOGRAPHICS, tasks.file_name(present))
    return [name for name in wanted if name not in present]


def count_users(demographics: Path) -> int:
    """The number of different user ids in a table."""
    try:
        column: pa.ChunkedArray = pq.read_table(demographics, columns=["user_id"]).column("user_id")
    except (OSError, KeyError, pa.ArrowInvalid) as error:
        raise DataError(f"{demographics}: the user ids cannot be read: {error}") from error
    return int(pc.count_distinct(column).as_py())


def _files(folder: Path) -> dict[str, Path]:
    missing = missing_files([path.name for path in folder.glob("*")])
    if missing:
        raise DataError(f"{folder}: lacks {', '.join(missing)}; a data set needs {', '.join(REQUIRED_FILES)}")
    return {
        path.name: path
        for path in sorted(folder.iterdir())
        if path.is_file() and path.name != MANIFEST and not path.name.startswith(".")
    }


def _manifest(dataset: Dataset) -> dict[str, Any]:
    return {
        "name": dataset.name,
        "users": dataset.users,
        "as_of": dataset.as_of,
        "source": dataset.source,
        "licence": dataset.licence,
        "files": dict(dataset.hashes),
    }


def _verify(path: Path, expected: str) -> None:
    if sha256(path) != expected:
        raise DataError(f"{path}: was changed after the data set was finished; build the data set again")


def _digest(hashes: Mapping[str, str]) -> str:
    return hashlib.sha256(json.dumps(hashes, sort_keys=True).encode()).hexdigest()
