"""One tag for each user and attribute of a table of samples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from conf_profile.analysis import frames
from conf_profile.analysis.attributes import GivenTaxonomy, find_taxonomy
from conf_profile.analysis.frames import Frame
from conf_profile.analysis.inputs import Argument, read_rows
from conf_profile.consensus import voting
from conf_profile.consensus.ballots import MAX_LEVEL, NO_ANSWER, Ballots, Numbers
from conf_profile.dialogue.taxonomy import Taxonomy
from conf_profile.errors import DataError
from conf_profile.evaluation.metrics import BoolArray, IntArray
from conf_profile.evaluation.rows import Positions, integers, positions

if TYPE_CHECKING:
    from conf_profile.config import Vote

CALL = "vote"


def vote(
    samples: Frame,
    method: Vote = "weighted",
    *,
    taxonomy: GivenTaxonomy | None = None,
    sample_count: int | None = None,
    user_id: str = "user_id",
    sample: str | None = None,
    attribute: str = "attribute",
    tag: str = "tag",
    level: str | None = None,
) -> Frame:
    """Votes over the sampled answers of each user on each attribute.

    `samples` has one row for each answer: user_id (text or integer), attribute, tag, and optionally sample (its number
    or name) and level (how sure the answer is, 1 to 5). The keywords say what a column is called otherwise. The table
    `candidates` of a run is accepted as it is. A tag that is null, blank or "unknown" is no answer, and neither is a
    row whose well_formed is false. Without levels all answers count alike, as if each were at level 5.

    `method` is weighted (the larger sum of levels), majority, majority_blind, log_odds or em. The last two learn,
    without labels, how reliable the answers are. Ties go to the tag that is first in the taxonomy; without a taxonomy
    to the first in the order of their text.

    `sample_count` is the number of answers that were requested of each user and attribute. It is part of the score:
    silence lowers it. By default it is the largest number of rows that a user has for an attribute.

    Returns one row for each user and attribute of the samples, users in the order of the samples: user_id, attribute,
    tag (null where no sample answered), score (0 to 1: how sure the vote is), votes (samples that named the tag) and
    share (votes over the samples that answered). Raises DataError for a table that cannot be right, ConfigError for an
    unknown method.

    >>> import pyarrow
    >>> samples = pyarrow.table({
    ...     "user_id": ["ann", "ann", "ann", "bob", "bob", "bob"],
    ...     "attribute": ["age"] * 6,
    ...     "tag": ["18-24", "25-34", "25-34", "18-24", None, "18-24"],
    ...     "level": [5, 2, 2, 4, None, 5],
    ... })
    >>> [(row["user_id"], row["tag"], row["votes"]) for row in vote(samples).to_pylist()]
    [('ann', '18-24', 1), ('bob', '18-24', 2)]
    >>> [row["tag"] for row in vote(samples, "majority").to_pylist()]
    ['25-34', '18-24']
    >>> [round(row["score"], 2) for row in vote(samples).to_pylist()]  # 5 of 15 and 9 of 15 possible
    [0.33, 0.6]
    """
    frame = frames.open_frame(samples, CALL, "samples")
    argument = Argument(
        CALL,
        "samples",
        columns={"user_id": user_id, "attribute": attribute, "tag": tag},
        optional={"sample": sample, "level": level, "well_formed": None},
        unique=("user_id", "sample", "attribute"),
    )
    rows = read_rows(frame, argument)
    known = find_taxonomy(taxonomy, [rows], CALL)
    ids = frames.select_columns(frame, [user_id], argument.source).column(0).combine_chunks()
    answers = _read_answers(rows, known, sample_count)
    result: Frame = frames.convert_like(_elect(answers, known, ids, method), frame)
    return result


@dataclass(frozen=True)
class _Answers:
    """The samples, row by row: where each belongs, its place among the samples of its user and attribute, its level.

    `asked` [users, attributes] marks what has a row, `first_rows` [users] each user's first one.
    """

    at: Positions
    place: IntArray
    level: IntArray
    asked: BoolArray
    first_rows: IntArray
    sample_count: int


def _read_answers(rows: pa.Table, taxonomy: Taxonomy, sample_count: int | None) -> _Answers:
    users = rows["user_id"].combine_chunks().unique()
    at = positions(rows, users, taxonomy, CALL)
    if "well_formed" in rows.column_names:
        well_formed = rows["well_formed"].to_numpy(zero_copy_only=False)
        at = Positions(at.user, at.attribute, np.where(well_formed, at.tag, NO_ANSWER))
    shape = (len(users), len(taxonomy.names))
    cell = at.user * shape[1] + at.attribute
    counts = np.bincount(cell, minlength=shape[0] * shape[1])
    return _Answers(
        at,
        _count_within(cell, counts),
        _read_levels(rows, at),
        (counts > 0).reshape(shape),
        np.unique(at.user, return_index=True)[1],
        _check_count(sample_count, counts.reshape(shape), users, taxonomy),
    )


def _count_within(cell: IntArray, counts: IntArray) -> IntArray:
    """How many rows of the same cell stand before each row."""
    order = np.argsort(cell, kind="stable")
    place = np.empty_like(cell)
    place[order] = np.arange(len(cell)) - np.repeat(np.cumsum(counts) - counts, counts)
    return place


def _read_levels(rows: pa.Table, at: Positions) -> IntArray:
    """1 to 5, 0 beside no answer. Answers without levels are all at the highest: what counts then is their number."""
    answered = at.tag != NO_ANSWER
    if "level" not in rows.column_names:
        return np.where(answered, MAX_LEVEL, 0)
    level = integers(rows["level"])
    lacking = answered & (level == 0)
    if lacking.any():
        row = int(lacking.argmax())
        raise DataError(
            f"{CALL}: row {row} of 'samples' (user {rows['user_id'][row].as_py()!r}) has a tag without a level; each "
            "answer states its confidence, 1 to 5, or drop the column 'level' from all of them"
        )
    return np.where(answered, level, 0)


def _check_count(given: int | None, counts: IntArray, users: pa.StringArray, taxonomy: Taxonomy) -> int:
    """M: the requested answers of a user on an attribute."""
    highest = int(counts.max(initial=0))
    if given is None:
        return highest
    if given < highest:
        user, attribute = divmod(int(counts.argmax()), counts.shape[1])
        raise DataError(
            f"{CALL}: user {users[user].as_py()!r} has {highest} samples of {taxonomy.names[attribute]!r}, and "
            f"sample_count is {given}; it counts the answers that were requested, received or not"
        )
    return given


def _elect(answers: _Answers, taxonomy: Taxonomy, ids: pa.Array, method: str) -> pa.Table:
    """One row for each user and attribute that was asked, user by user."""
    outcomes = [_elect_one(answers, position, taxonomy, method) for position in range(len(taxonomy.names))]
    by_attribute = [np.flatnonzero(asked) for asked in answers.asked.T]
    user = _join(by_attribute, np.int64)
    attribute = np.repeat(np.arange(len(by_attribute)), [len(users) for users in by_attribute])
    first_tag = np.cumsum([0, *(len(of.tags) for of in taxonomy.attributes)])
    tag = _join([outcome.tag for outcome in outcomes], np.int64)
    tag = np.where(tag == NO_ANSWER, NO_ANSWER, tag + first_tag[attribute])
    every_tag = [tag for of in taxonomy.attributes for tag in of.tags]
    elected = pa.table(
        {
            "user_id": ids.take(pa.array(answers.first_rows[user])),
            "attribute": pa.array(taxonomy.names, pa.string()).take(pa.array(attribute)),
            "tag": pa.array(every_tag, pa.string()).take(pa.array(tag, mask=tag == NO_ANSWER)),
            "score": _join([outcome.score for outcome in outcomes], np.float64),
            "votes": _join([outcome.votes for outcome in outcomes], np.int32),
            "share": _join([outcome.share for outcome in outcomes], np.float64),
        }
    )
    return elected.take(pa.array(np.lexsort((attribute, user))))


def _elect_one(answers: _Answers, position: int, taxonomy: Taxonomy, method: str) -> voting.Vote:
    """The vote on one attribute, over the users who have a row for it."""
    rows = answers.at.attribute == position
    row_of_user = np.cumsum(answers.asked[:, position]) - 1
    cells = row_of_user[answers.at.user[rows]], answers.place[rows]
    tags = np.full((int(answers.asked[:, position].sum()), answers.sample_count), NO_ANSWER)
    levels = np.zeros_like(tags)
    tags[cells], levels[cells] = answers.at.tag[rows], answers.level[rows]
    # An attribute on which nobody answered has no tag where the tags come from the table.
    return voting.vote_on(Ballots(tags, levels, max(len(taxonomy.attributes[position].tags), 1)), method)


def _join(arrays: Sequence[Numbers], kind: type) -> Numbers:
    joined: Numbers = np.concatenate([np.empty(0, kind), *arrays]).astype(kind)
    return joined
