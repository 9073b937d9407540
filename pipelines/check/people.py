"""Whom a run will profile, as its features step will see them: the latest rows at one moment, and consent."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from conf_profile import tables
from conf_profile.config import RunConfig
from conf_profile.data import splits
from conf_profile.data.dataset import Dataset, parse_time
from conf_profile.dialogue.prompts import UserFeatures
from conf_profile.dialogue.task import Task
from conf_profile.errors import DataError
from conf_profile.ingest.values import MAX_TEXT_BYTES

Integers = npt.NDArray[np.int64]
SAMPLE = 500
"""Users whose prompts are rendered, evenly over the ids of those whom the teacher is asked about."""
EXAMPLES = 3


@dataclass(frozen=True)
class Snapshots:
    """The rows of one table up to a moment, and for each user [users] the latest one and how many there are."""

    rows: pa.Table
    users: npt.NDArray[np.object_]
    latest: Integers
    counts: Integers

    def positions(self, users: Iterable[str]) -> list[int]:
        """The latest row of each user; -1 for those who have none."""
        known = dict(zip(self.users.tolist(), self.latest.tolist(), strict=True))
        return [known.get(user, -1) for user in users]


@dataclass(frozen=True)
class PeopleFacts:
    """Counts of users. `profiled`: those with consent; `asked`: those of them whom the teacher answers for.

    `keyphrases_*` are over the profiled users, `cut_share` is the share of their keyphrases that the prompt leaves out,
    and `event_users` counts users with several rows of one keyphrase at most.
    """

    behaviour: int
    demographics: int
    both: int
    profiled: int
    without_consent: int
    asked: int
    splits: dict[str, int]
    keyphrases_median: float
    keyphrases_95: float
    cut_share: float
    event_users: int
    as_of: str


@dataclass(frozen=True)
class People:
    """The facts; ids and features of users stay out of what is printed or kept."""

    facts: PeopleFacts
    profiled: npt.NDArray[np.object_] = field(repr=False)
    split: npt.NDArray[np.str_] = field(repr=False)
    sample: tuple[UserFeatures, ...] = field(repr=False)
    examples: tuple[tuple[str, ...], tuple[str, ...]] = field(repr=False)
    """Ids of users of behaviour, and of demographics, that the other table has not."""


def read_user(config: RunConfig, data: Dataset, task: Task, user_id: str) -> UserFeatures:
    """One user as a run will see them; without an id the one in the middle of those whom the teacher is asked about.

    DataError where nothing is known of the user, or the teacher may not see them.
    """
    if not user_id:
        sample = read_people(config, data, task).sample
        if not sample:
            raise DataError(f"{data.name!r} has no user with consent whom the teacher would be asked about")
        return sample[len(sample) // 2]
    moment = parse_time(config.features.as_of or data.as_of, "features.as_of")
    behaviour, demographics = _read_tables(data, task)
    acts, forms = _snapshots(behaviour, moment), _snapshots(demographics, moment)
    (at,) = forms.positions([user_id])
    if at < 0:
        raise DataError(
            f"demographics of {data.name!r} has no user {user_id!r} as of {moment.isoformat()}; give another --user"
        )
    if not forms.rows["consent"][at].as_py():
        raise DataError(f"user {user_id!r} has given no consent, so no teacher may see them; give another --user")
    return _features([user_id], acts, forms, task)[0]


def read_people(config: RunConfig, data: Dataset, task: Task) -> People:
    """Reads both tables of a data set that was checked; DataError where they break their schema."""
    moment = parse_time(config.features.as_of or data.as_of, "features.as_of")
    behaviour, demographics = _read_tables(data, task)
    acting, signed = (set(pc.unique(table["user_id"]).to_pylist()) for table in (behaviour, demographics))
    acts, forms = _snapshots(behaviour, moment), _snapshots(demographics, moment)
    consents = forms.rows["consent"].to_numpy()[forms.latest].astype(bool)
    profiled = np.sort(forms.users[consents])
    split = splits.split_of(profiled.tolist(), config.features)
    lengths = _list_lengths(acts, profiled, task)
    asked = profiled[split != splits.SECOND_STAGE]
    total = lengths.sum(axis=1)
    shown = np.minimum(lengths, config.prompt.max_keyphrases).sum()
    facts = PeopleFacts(
        behaviour=len(acting),
        demographics=len(signed),
        both=len(acting & signed),
        profiled=len(profiled),
        without_consent=len(acting | signed) - len(profiled),
        asked=len(asked),
        splits=splits.count(split),
        keyphrases_median=float(np.median(total)) if len(total) else 0.0,
        keyphrases_95=float(np.quantile(total, 0.95)) if len(total) else 0.0,
        cut_share=float(1 - shown / total.sum()) if total.sum() else 0.0,
        event_users=_count_event_users(acts, task),
        as_of=moment.isoformat(),
    )
    sample = _features(asked[_evenly(len(asked))].tolist(), acts, forms, task)
    examples = (_examples(acting - signed), _examples(signed - acting))
    return People(facts, profiled, split, sample, examples)


def _read_tables(data: Dataset, task: Task) -> tuple[pa.Table, pa.Table]:
    """Both tables of a data set; DataError where they break their schema, or a cell is huge."""
    behaviour = tables.read(data.behaviour, tables.behaviour_table(task.features))
    demographics = tables.read(data.demographics, tables.demographics_table(task.features))
    for table, path in ((behaviour, data.behaviour), (demographics, data.demographics)):
        _refuse_huge_texts(table, path)
    return behaviour, demographics


def _refuse_huge_texts(table: pa.Table, path: Path) -> None:
    """DataError for a cell of which a prompt shows a thousandth: the column is another one than was meant."""
    for name in table.column_names:
        start = 0
        for chunk in table[name].chunks:
            is_list = pa.types.is_list(chunk.type)
            texts = pc.list_flatten(chunk) if is_list else chunk
            if pa.types.is_string(texts.type) and (pc.max(pc.binary_length(texts)).as_py() or 0) > MAX_TEXT_BYTES:
                place = pc.index(pc.greater(pc.binary_length(texts), MAX_TEXT_BYTES), True).as_py()
                row = start + (pc.list_parent_indices(chunk)[place].as_py() if is_list else place)
                raise DataError(
                    f"{path}: row {row}: the column {name!r} has a text of more than {MAX_TEXT_BYTES >> 20} MiB; a "
                    "prompt shows little of it: cut it, or write another column"
                )
            start += len(chunk)


def _snapshots(table: pa.Table, moment: datetime) -> Snapshots:
    visible = pc.less_equal(table["event_timestamp"], pa.scalar(moment, table["event_timestamp"].type))
    # A filter copies the texts, and mostly all rows are visible.
    rows = table if pc.all(visible).as_py() else table.filter(visible)
    encoded = rows["user_id"].combine_chunks().dictionary_encode()
    codes = encoded.indices.to_numpy(zero_copy_only=False)
    times = rows["event_timestamp"].cast(pa.int64()).to_numpy()
    order = np.lexsort((times, codes))
    ends = np.flatnonzero(np.append(codes[order][1:] != codes[order][:-1], True)[: len(order)])
    users = np.array(encoded.dictionary.to_pylist(), dtype=object)
    return Snapshots(rows, users, order[ends], np.bincount(codes, minlength=len(users)))


def _list_lengths(acts: Snapshots, users: npt.NDArray[np.object_], task: Task) -> Integers:
    """[users, lists]: how many texts each list of each user has; zeros for those without behaviour."""
    at = np.array(acts.positions(users.tolist()), dtype=np.int64)
    lengths = np.zeros((len(users), len(task.features.lists)), dtype=np.int64)
    for column, name in enumerate(task.features.lists):
        found = pc.list_value_length(acts.rows[name]).to_numpy()
        lengths[at >= 0, column] = found[at[at >= 0]]
    return lengths


def _count_event_users(acts: Snapshots, task: Task) -> int:
    """Users with several rows, none of which has more than one text: rows that look like single events."""
    total = np.zeros(len(acts.rows), dtype=np.int64)
    for name in task.features.lists:
        total += pc.list_value_length(acts.rows[name]).to_numpy()
    codes = acts.rows["user_id"].combine_chunks().dictionary_encode().indices.to_numpy(zero_copy_only=False)
    most = np.zeros(len(acts.users), dtype=np.int64)
    np.maximum.at(most, codes, total)
    return int(((acts.counts > 1) & (most <= 1)).sum())


def _features(users: list[str], acts: Snapshots, forms: Snapshots, task: Task) -> tuple[UserFeatures, ...]:
    known = zip(
        users,
        _rows(acts, users, task.features.lists),
        _rows(forms, users, task.features.scalars),
        strict=True,
    )
    return tuple(UserFeatures(user, **lists, **scalars) for user, lists, scalars in known)


def _rows(snapshots: Snapshots, users: list[str], names: tuple[str, ...]) -> list[dict[str, Any]]:
    at = snapshots.positions(users)
    there = [position for position in at if position >= 0]
    # The id beside them, because a table without columns has no rows.
    rows = snapshots.rows.select(["user_id", *names]).take(there).to_pylist() if there else []
    known = {row.pop("user_id"): row for row in rows}
    return [known.get(user, {}) for user in users]


def _evenly(count: int) -> Integers:
    return np.unique(np.linspace(0, max(0, count - 1), min(count, SAMPLE)).astype(np.int64))


def _examples(users: set[str]) -> tuple[str, ...]:
    return tuple(sorted(users)[:EXAMPLES])
