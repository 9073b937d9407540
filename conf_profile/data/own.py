"""Your own Parquet: every check that a folder of yours must pass before a run begins.

Nothing is written into the folder. Texts may be empty, long or hold control characters: the prompt quotes and
limits them. What is refused is what would silently make the result wrong.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from conf_profile import tables
from conf_profile.data import dataset, lexicons
from conf_profile.data.dataset import Dataset
from conf_profile.dialogue.task import load as load_task
from conf_profile.errors import DataError
from conf_profile.features import FeatureSchema

logger = logging.getLogger(__name__)

_HOW_TO_WRITE_A_TASK = (
    'write one such as \'attributes: {age: ["18-24", "25+"], gender: [female, male]}\', or name a file '
    "(conf_profile/dialogue/taxonomies/profile.yaml has six attributes)"
)


@dataclass(frozen=True)
class Coverage:
    """Who is in which table. Everybody here is allowed; the counts tell whether that was meant."""

    users: int
    without_behaviour: int
    without_demographics: int
    labelled: int


def check_folder(folder: Path, task_file: Path | None = None) -> Dataset:
    """Checks the tables of a folder and returns it as a data set; DataError says what to put right and where.

    The task is the given file, else the folder's task.yaml (or taxonomy.yaml, of an earlier release); there is no
    default, since a task that does not fit asks people the wrong questions. `as_of` comes from the folder's
    dataset.json where there is one, else it is the time of the last row.
    """
    paths = _paths(folder, task_file)
    task = dataset.task_of(paths)
    declared = load_task(task).features
    behaviour, demographics = check_features(paths[dataset.BEHAVIOUR], paths[dataset.DEMOGRAPHICS], declared)
    labels = check_labels(paths[dataset.LABELS], task) if dataset.LABELS in paths else None
    if dataset.LEXICON in paths:
        check_lexicon(paths[dataset.LEXICON], task)
    given = dataset.read_manifest(folder) if (folder / dataset.MANIFEST).is_file() else {}
    coverage = count_coverage(behaviour, demographics, labels)
    logger.info("%s: %s", folder, coverage)
    return Dataset(
        folder=folder,
        name=given.get("name", folder.resolve().name),
        users=coverage.users,
        as_of=_find_as_of(given, folder, behaviour, demographics),
        source=given.get("source", str(folder)),
        licence=given.get("licence", "your own data"),
        paths=paths,
        hashes={name: dataset.sha256(path) for name, path in paths.items()},
    )


def check_features(behaviour_path: Path, demographics_path: Path, declared: FeatureSchema) -> tuple[pa.Table, pa.Table]:
    """Checks the two tables that Feast reads, with the declared features, and returns their users and moments: texts
    are not held in memory."""
    behaviour = tables.read_keys(behaviour_path, tables.behaviour_table(declared))
    demographics = tables.read_keys(demographics_path, tables.demographics_table(declared))
    for data, path in ((behaviour, behaviour_path), (demographics, demographics_path)):
        _check_user_ids(data, path)
    if not len(demographics):
        raise DataError(f"{demographics_path}: is empty; it holds the consent without which nobody is profiled")
    if not len(behaviour):
        raise DataError(f"{behaviour_path}: is empty; there is nothing to infer a profile from")
    _refuse_other_spelling(behaviour, behaviour_path, demographics, demographics_path)
    _refuse_other_spelling(demographics, demographics_path, behaviour, behaviour_path)
    return behaviour, demographics


def check_labels(path: Path, task_file: Path) -> pa.Table:
    """Reads the true labels and checks that the taxonomy knows every attribute and tag of them."""
    labels, known_tags = tables.read(path, tables.LABELS), load_task(task_file)
    pairs = labels.select(["attribute", "tag"]).group_by(["attribute", "tag"]).aggregate([]).to_pylist()
    for pair in sorted(pairs, key=lambda pair: (pair["attribute"], pair["tag"])):
        lexicons.check_tag(pair["attribute"], pair["tag"], known_tags, str(path))
    return labels


def check_lexicon(path: Path, task_file: Path) -> None:
    """Checks the form of a lexicon, and that the task knows every attribute, tag and field of it."""
    lexicons.check(path, load_task(task_file))


def count_coverage(behaviour: pa.Table, demographics: pa.Table, labels: pa.Table | None = None) -> Coverage:
    """Counts users by the tables that know them."""
    acting, signed_up, labelled = (_users(table) for table in (behaviour, demographics, labels))
    return Coverage(
        users=len(acting | signed_up),
        without_behaviour=len(signed_up - acting),
        without_demographics=len(acting - signed_up),
        labelled=len(labelled & (acting | signed_up)),
    )


def _paths(folder: Path, task_file: Path | None) -> dict[str, Path]:
    if not folder.is_dir():
        raise DataError(f"{folder}: is no folder; expected one with {' and '.join(dataset.FEATURE_FILES)}")
    names = (*dataset.FEATURE_FILES, *dataset.TEACHING_FILES, dataset.LABELS)
    paths = {name: folder / name for name in names if (folder / name).is_file()}
    if task_file is not None:
        paths.pop(dataset.FORMER_TASK, None)
        paths[dataset.TASK] = task_file
    missing = [name for name in dataset.FEATURE_FILES if name not in paths]
    if missing:
        raise DataError(f"{folder}: lacks {' and '.join(missing)}; see docs/data.md for the columns")
    if dataset.missing_files(paths):
        raise DataError(f"{folder}: lacks {dataset.TASK}; {_HOW_TO_WRITE_A_TASK}")
    return paths


def _check_user_ids(data: pa.Table, path: Path) -> None:
    row = pc.index(pc.utf8_trim_whitespace(data.column("user_id")), "").as_py()
    if row >= 0:
        raise DataError(f"{path}: row {row} has a blank user_id; give every row the id of its user")


def _refuse_other_spelling(data: pa.Table, path: Path, other: pa.Table, other_path: Path) -> None:
    """An id that pandas has written as text from a number with a point names nobody in a table that it has not."""
    users = pc.unique(data.column("user_id"))
    pointed = users.filter(pc.match_substring_regex(users, r"^[0-9]+\.0$"))
    meant = pc.replace_substring_regex(pointed, r"\.0$", "")
    row = pc.index(pc.is_in(meant, pc.unique(other.column("user_id"))), True).as_py()
    if row >= 0:
        raise DataError(
            f"{path}: user_id {pointed[row].as_py()!r} is {meant[row].as_py()!r} in {other_path}; write ids alike in "
            "every table, in pandas by column.astype('Int64').astype('string')"
        )


def _find_as_of(given: Mapping[str, Any], folder: Path, behaviour: pa.Table, demographics: pa.Table) -> str:
    if given:
        return dataset.parse_time(given["as_of"], f"{folder / dataset.MANIFEST}: as_of").isoformat()
    last: datetime = max(pc.max(table.column("event_timestamp")).as_py() for table in (behaviour, demographics))
    return last.astimezone(UTC).isoformat()


def _users(table: pa.Table | None) -> set[str]:
    return set() if table is None else set(pc.unique(table.column("user_id")).to_pylist())
