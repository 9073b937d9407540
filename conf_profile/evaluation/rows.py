"""From the rows of long tables (user, attribute, tag) to arrays [users, attributes].

Callers decide which users take part, and what it means that one of them has no row. Like `metrics`, the part that reads
true labels is for evaluation only.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from conf_profile.dialogue.taxonomy import Taxonomy
from conf_profile.errors import DataError
from conf_profile.evaluation.metrics import NO_TAG, BoolArray, Cells, FloatArray, IntArray

_NOT_IN_TAXONOMY = -2


@dataclass(frozen=True)
class Positions:
    """For each row of a long table: the user's and the attribute's position, and the tag's (NO_TAG: null)."""

    user: IntArray
    attribute: IntArray
    tag: IntArray


def read_truth(labels: pa.Table, user_ids: pa.Array, taxonomy: Taxonomy, source: str) -> IntArray:
    """True tags of these users, [users, attributes]; NO_TAG where a label is missing. Ignores other users' labels."""
    at = positions(select_users(labels, user_ids), user_ids, taxonomy, source)
    truth = np.full((len(user_ids), len(taxonomy.names)), NO_TAG, dtype=np.int64)
    truth[at.user, at.attribute] = at.tag
    return truth


def read_cells(rows: pa.Table, at: Positions, truth: IntArray) -> Cells:
    """The answers of a table of predictions whose rows stand `at` these positions; a cell without a row is unanswered.

    `rows` has the columns level and score, each null where there is none.
    """
    shape = truth.shape
    tag, level, score = np.full(shape, NO_TAG), np.zeros(shape, dtype=np.int64), np.full(shape, np.nan)
    tag[at.user, at.attribute] = at.tag
    level[at.user, at.attribute] = integers(rows["level"])
    score[at.user, at.attribute] = rows["score"].to_numpy(zero_copy_only=False)
    return answers(tag, level, score, truth)


def answers(tag: IntArray, level: IntArray, score: FloatArray, truth: IntArray) -> Cells:
    """Cells where level and score stand beside a tag only; an answer without a level has the lowest one."""
    answered = tag != NO_TAG
    return Cells(tag, np.where(answered, np.maximum(level, 1), 0), np.where(answered, score, np.nan), truth)


def positions(rows: pa.Table, user_ids: pa.Array, taxonomy: Taxonomy, source: str) -> Positions:
    """Where each row belongs; DataError names an attribute or a tag that the taxonomy does not have."""
    attribute = integers(pc.index_in(rows["attribute"], pa.array(taxonomy.names, pa.string())), _NOT_IN_TAXONOMY)
    _refuse(attribute == _NOT_IN_TAXONOMY, rows, "attribute", source)
    tag = _tag_positions(rows["tag"], attribute, taxonomy)
    _refuse(tag == _NOT_IN_TAXONOMY, rows, "tag", source)
    return Positions(integers(pc.index_in(rows["user_id"], user_ids)), attribute, tag)


def select_users(table: pa.Table, user_ids: pa.Array) -> pa.Table:
    """The rows of these users."""
    return table.filter(pc.is_in(table["user_id"], user_ids))


def integers(column: pa.ChunkedArray | pa.Array, null: int = 0) -> IntArray:
    """An integer column as int64, with `null` for null."""
    filled = pc.fill_null(pc.cast(column, pa.int64()), null)
    return np.asarray(filled.to_numpy(zero_copy_only=False), dtype=np.int64)


def _tag_positions(tags: pa.ChunkedArray, attribute: IntArray, taxonomy: Taxonomy) -> IntArray:
    """Each row's tag as its position among its attribute's tags."""
    encoded: Any = tags.combine_chunks().dictionary_encode()
    names = encoded.dictionary.to_pylist()
    # The last column is for null: the code -1 reaches it.
    lookup = np.asarray(
        [[of.index.get(name, _NOT_IN_TAXONOMY) for name in names] + [NO_TAG] for of in taxonomy.attributes],
        dtype=np.int64,
    ).reshape(len(taxonomy.attributes), len(names) + 1)
    return np.asarray(lookup[attribute, integers(encoded.indices, -1)])


def _refuse(offends: BoolArray, rows: pa.Table, column: str, source: str) -> None:
    if not offends.any():
        return
    found = rows.slice(int(offends.argmax()), 1).select(["user_id", "attribute", "tag"]).to_pylist()[0]
    raise DataError(
        f"{source}: user {found['user_id']!r} has the {column} {found[column]!r} (attribute "
        f"{found['attribute']!r}), which the taxonomy does not have; use the taxonomy that made the table"
    )
