"""From tables to arrays: the users of one split, what is true of them, and what an arm said of them.

Every arm is measured over the same users. A user whom an arm did not answer at all means that inference was
cut short, and is an error; a null tag is an abstention, and is not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from conf_profile import tables
from conf_profile.dialogue.taxonomy import Taxonomy
from conf_profile.errors import DataError
from conf_profile.evaluation.metrics import NO_TAG, BoolArray, Cells, FloatArray, IntArray
from conf_profile.features import LISTS

_JOINT = "\x1f"
"""Joins attribute and tag into one key; a taxonomy's tags hold no control character."""


@dataclass(frozen=True)
class Population:
    """The users of one split in a fixed order, and the true tags of those that are labelled."""

    split: str
    features: pa.Table
    taxonomy: Taxonomy
    truth: IntArray

    @cached_property
    def user_ids(self) -> pa.Array:
        """User ids, in the order of every array's first axis."""
        return self.features["user_id"].combine_chunks()

    def __len__(self) -> int:
        return len(self.features)


@dataclass(frozen=True)
class Positions:
    """For each row of a long table: the user's and the attribute's position, and the tag's (NONE: null)."""

    user: IntArray
    attribute: IntArray
    tag: IntArray


def population(features: pa.Table, labels: pa.Table, split: str, taxonomy: Taxonomy) -> Population:
    """The users of `split`, with truth [users, attributes]; NONE where a label is missing."""
    chosen = features.filter(pc.equal(features["split"], split))
    ids = chosen["user_id"].combine_chunks()
    known = select_users(labels, ids)
    at = positions(known, ids, taxonomy, "labels")
    truth = np.full((len(ids), len(taxonomy.names)), NO_TAG, dtype=np.int64)
    truth[at.user, at.attribute] = at.tag
    return Population(split, chosen, taxonomy, truth)


def read_predictions(path: Path, people: Population, arm: str) -> Cells:
    """One arm's answers for these users; DataError when a user is missing from the table altogether."""
    rows = select_users(tables.read(path, tables.PREDICTIONS), people.user_ids)
    at = positions(rows, people.user_ids, people.taxonomy, str(path))
    require_all_users(at.user, people, f"{path} (arm {arm!r})")
    shape = people.truth.shape
    tag, level, score = np.full(shape, NO_TAG), np.zeros(shape, dtype=np.int64), np.full(shape, np.nan)
    tag[at.user, at.attribute] = at.tag
    level[at.user, at.attribute] = integers(rows["level"])
    score[at.user, at.attribute] = rows["score"].to_numpy(zero_copy_only=False)
    return answers(tag, level, score, people.truth)


def answers(tag: IntArray, level: IntArray, score: FloatArray, truth: IntArray) -> Cells:
    """Cells where level and score stand beside a tag only; an answer without a level has the lowest one."""
    answered = tag != NO_TAG
    return Cells(tag, np.where(answered, np.maximum(level, 1), 0), np.where(answered, score, np.nan), truth)


def positions(rows: pa.Table, user_ids: pa.Array, taxonomy: Taxonomy, source: str) -> Positions:
    """Where each row belongs; DataError names an attribute or a tag that the taxonomy does not have."""
    attribute = pc.index_in(rows["attribute"], pa.array(taxonomy.names, pa.string()))
    _refuse(pc.is_null(attribute), rows, "attribute", source)
    keys, in_attribute = _tag_keys(taxonomy)
    tag = pc.index_in(pc.binary_join_element_wise(rows["attribute"], rows["tag"], _JOINT), keys)
    _refuse(pc.and_(pc.is_null(tag), pc.is_valid(rows["tag"])), rows, "tag", source)
    return Positions(
        integers(pc.index_in(rows["user_id"], user_ids)),
        integers(attribute),
        in_attribute[integers(tag, NO_TAG)],
    )


def select_users(table: pa.Table, user_ids: pa.Array) -> pa.Table:
    """The rows of these users."""
    return table.filter(pc.is_in(table["user_id"], user_ids))


def require_all_users(seen: IntArray, people: Population, source: str) -> None:
    """DataError unless every user of the population was seen."""
    missing = len(people) - len(np.unique(seen))
    if missing:
        raise DataError(
            f"{source}: {missing} of the {len(people)} {people.split} users have no row at all; every arm "
            f"must answer for the same users, so run the inference again to its end"
        )


def integers(column: pa.ChunkedArray | pa.Array, null: int = 0) -> IntArray:
    """An integer column as int64, with `null` for null."""
    filled = pc.fill_null(pc.cast(column, pa.int64()), null)
    return np.asarray(filled.to_numpy(zero_copy_only=False), dtype=np.int64)


def history_lengths(people: Population) -> IntArray:
    """How many keyphrases each user has, over all three lists."""
    lists = (people.features[name] for name in LISTS)
    return np.asarray(np.stack([integers(pc.list_value_length(column)) for column in lists]).sum(axis=0))


def regions(people: Population) -> Sequence[str | None]:
    """Each user's region, None where it is not known."""
    found: list[str | None] = people.features["region"].to_pylist()
    return found


def has_self_report(people: Population) -> BoolArray:
    """Whether each user stated an age or a gender."""
    stated = pc.or_(pc.is_valid(people.features["self_age"]), pc.is_valid(people.features["self_gender"]))
    return np.asarray(stated.to_numpy(), dtype=np.bool_)


def _tag_keys(taxonomy: Taxonomy) -> tuple[pa.Array, IntArray]:
    """All joint keys, and each one's position in its attribute; the last entry answers for NONE."""
    keys = [f"{attribute.name}{_JOINT}{tag}" for attribute in taxonomy.attributes for tag in attribute.tags]
    within = [position for attribute in taxonomy.attributes for position in range(len(attribute.tags))]
    return pa.array(keys, pa.string()), np.asarray([*within, NO_TAG], dtype=np.int64)


def _refuse(offends: pa.ChunkedArray, rows: pa.Table, column: str, source: str) -> None:
    row = pc.index(offends, True).as_py()
    if row < 0:
        return
    found = rows.slice(row, 1).select(["user_id", "attribute", "tag"]).to_pylist()[0]
    raise DataError(
        f"{source}: user {found['user_id']!r} has the {column} {found[column]!r} (attribute "
        f"{found['attribute']!r}), which the taxonomy does not have; use the taxonomy that made the table"
    )
