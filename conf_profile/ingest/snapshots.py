"""Point-in-time snapshots from events in the order of user and time: what was known of a user at that moment.

A snapshot has the moment of a user's last event (`last`), or of the last one of each day, week or month with an event,
and holds the most recent texts of every kind until then, that event included. The events come in batches of any size,
and a user's may be spread over several: of what a batch leaves open, only the most recent texts are kept, so that
memory does not grow with the busiest user.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from conf_profile.ingest.plan import Period

TABLE_TEXTS, TABLE_BYTES = 1_000_000, 64 << 20
"""What a table of snapshots holds at most, unless one snapshot has more."""

_ROWS = pa.schema([("user", pa.string()), ("moment", pa.timestamp("us")), ("kind", pa.int32()), ("text", pa.string())])
_US_OF_DAY = 86_400_000_000
_MONDAY = 3
"""Days from the Monday before 1970-01-01 to it."""


@dataclass
class SnapshotBuilder:
    """Takes sorted batches of `(user, moment, kind, text)`; kind is the number of a feature."""

    features: Sequence[str]
    period: Period
    keyphrases: int
    left_out: int = 0
    """Texts that no snapshot holds, because more recent ones of their kind and period fill it."""
    _open: pa.RecordBatch = field(default_factory=lambda: pa.RecordBatch.from_pylist([], _ROWS))

    @property
    def schema(self) -> pa.Schema:
        """Of the tables that come out: `behaviour`."""
        lists = [pa.field(name, pa.list_(pa.string()), nullable=False) for name in self.features]
        moment = pa.field("event_timestamp", pa.timestamp("us", tz="UTC"), nullable=False)
        return pa.schema([pa.field("user_id", pa.string(), nullable=False), moment, *lists])

    def add(self, batch: pa.RecordBatch) -> Iterator[pa.Table]:
        """The snapshots that this batch closes."""
        rows = _join(self._open, batch.cast(_ROWS))
        if not len(rows):
            return
        users, groups = self._starts(rows)
        ends = np.append(groups[1:], len(rows)) - 1
        # Of the rows that were left open only the last one may end a snapshot; the last of all stays open.
        closed = ends[(ends >= len(self._open) - 1) & (ends < len(rows) - 1)]
        yield from self._build(rows, users, closed, groups)
        self._open = self._recent(rows.slice(users[-1]), groups[-1] - users[-1])

    def finish(self) -> Iterator[pa.Table]:
        """The snapshot that is still open."""
        rows = self._open
        if len(rows):
            yield from self._build(rows, np.array([0]), np.array([len(rows) - 1]), self._starts(rows)[1])

    def _starts(self, rows: pa.RecordBatch) -> tuple[np.ndarray, np.ndarray]:
        """Where a user begins, and where a user or a period does; both begin with 0."""
        users = rows.column("user")
        new_user = np.append(True, pc.not_equal(users[1:], users[:-1]).to_numpy(zero_copy_only=False))
        periods = _number_periods(rows.column("moment"), self.period)
        new_period = np.append(True, periods[1:] != periods[:-1])
        return np.flatnonzero(new_user), np.flatnonzero(new_user | new_period)

    def _build(
        self, rows: pa.RecordBatch, users: np.ndarray, ends: np.ndarray, groups: np.ndarray
    ) -> Iterator[pa.Table]:
        """Snapshots that end with these rows, in tables of limited size; a period begins at each row of `groups`."""
        limit = max(1, min(TABLE_TEXTS, TABLE_BYTES * len(rows) // max(1, rows.column("text").nbytes)))
        begins = users[np.searchsorted(users, ends, side="right") - 1]
        kinds = rows.column("kind").to_numpy()
        places = [np.flatnonzero(kinds == kind) for kind in range(len(self.features))]
        high = [np.searchsorted(place, ends, side="right") for place in places]
        low = [
            np.maximum(np.searchsorted(place, begins, side="left"), until - self.keyphrases)
            for place, until in zip(places, high, strict=True)
        ]
        first = groups[np.searchsorted(groups, ends, side="right") - 1]
        for place, since in zip(places, low, strict=True):
            self.left_out += int(np.maximum(since - np.searchsorted(place, first, side="left"), 0).sum())
        totals = np.cumsum(sum(until - since for until, since in zip(high, low, strict=True)))
        start = 0
        while start < len(ends):
            done = totals[start - 1] if start else 0
            stop = max(start + 1, int(np.searchsorted(totals, done + limit, side="right")))
            lists = [
                _lists(rows.column("text"), place, since[start:stop], until[start:stop])
                for place, since, until in zip(places, low, high, strict=True)
            ]
            who = pa.array(ends[start:stop])
            moments = rows.column("moment").take(who).cast(pa.timestamp("us", tz="UTC"))
            yield pa.Table.from_arrays([rows.column("user").take(who), moments, *lists], schema=self.schema)
            start = stop

    def _recent(self, rows: pa.RecordBatch, group: int) -> pa.RecordBatch:
        """Of one user's rows those that a later snapshot may hold; the open period begins at `group`."""
        kinds = rows.column("kind").to_numpy()
        places = [np.flatnonzero(kinds == kind) for kind in range(len(self.features))]
        kept = [place[-self.keyphrases :] for place in places]
        self.left_out += sum(int((place[: -self.keyphrases] >= group).sum()) for place in places)
        # `take` copies: a slice would hold the whole batch.
        return rows.take(pa.array(np.sort(np.concatenate(kept))))


def _join(first: pa.RecordBatch, second: pa.RecordBatch) -> pa.RecordBatch:
    if not len(first):
        return second
    return pa.RecordBatch.from_arrays(
        [pa.concat_arrays(pair) for pair in zip(first.columns, second.columns, strict=True)], schema=_ROWS
    )


def _lists(texts: pa.Array, places: np.ndarray, low: np.ndarray, high: np.ndarray) -> pa.ListArray:
    """For each snapshot the texts of one kind, from its `low`-th until before its `high`-th of that kind."""
    lengths = high - low
    offsets = np.append(0, np.cumsum(lengths))
    numbers = np.arange(offsets[-1]) + np.repeat(low - offsets[:-1], lengths)
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), texts.take(pa.array(places[numbers])))


def _number_periods(moments: pa.Array, period: Period) -> np.ndarray:
    """The number of each moment's day, week from Monday, or month; 0 for `last`."""
    if period == "last":
        return np.zeros(len(moments), np.int64)
    if period == "monthly":
        months: np.ndarray = moments.to_numpy(zero_copy_only=False).astype("datetime64[M]").astype(np.int64)
        return months
    days: np.ndarray = moments.cast(pa.int64()).to_numpy() // _US_OF_DAY
    return days if period == "daily" else (days + _MONDAY) // 7
