"""Snapshots are point-in-time, and the same however the events are cut into batches."""

from datetime import UTC, datetime, timedelta
from itertools import groupby

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conf_profile.ingest import snapshots
from conf_profile.ingest.snapshots import SnapshotBuilder

START = datetime(2025, 1, 1)
"""A Wednesday."""
KEYS = {
    "last": lambda moment: 0,
    "daily": lambda moment: moment.date(),
    "weekly": lambda moment: moment.isocalendar()[:2],
    "monthly": lambda moment: (moment.year, moment.month),
}


def build(rows, period="last", keyphrases=3, cuts=()):
    """The snapshots of sorted rows `(user, moment, kind, text)`, given in batches that end at `cuts`, and how many
    texts are said to be in none."""
    builder = SnapshotBuilder(("watch", "search"), period, keyphrases)
    names = ("user", "moment", "kind", "text")
    ends = [*sorted(cut for cut in cuts if cut <= len(rows)), len(rows)]
    found = []
    for start, end in zip([0, *ends], ends, strict=False):
        columns = [list(column) for column in zip(*rows[start:end], strict=True)] or [[], [], [], []]
        kinds = [pa.string(), pa.timestamp("us"), pa.int64(), pa.string()]
        arrays = [pa.array(values, kind) for values, kind in zip(columns, kinds, strict=True)]
        found += builder.add(pa.RecordBatch.from_arrays(arrays, names))
    found += builder.finish()
    return (pa.concat_tables(found).to_pylist() if found else []), builder.left_out


def expect(rows, period, keyphrases):
    """The same, one snapshot after the other; every text is another one."""
    found = []
    for user, own in groupby(rows, lambda row: row[0]):
        history = []
        for _, group in groupby(own, lambda row: KEYS[period](row[1])):
            history += group
            lists = [[text for *_, kind, text in history if kind == number][-keyphrases:] for number in (0, 1)]
            moment = history[-1][1].replace(tzinfo=UTC)
            found.append({"user_id": user, "event_timestamp": moment, "watch": lists[0], "search": lists[1]})
    held = {text for snapshot in found for name in ("watch", "search") for text in snapshot[name]}
    return found, len(rows) - len(held)


EVENTS = st.tuples(
    st.sampled_from("abc"), st.integers(0, 70 * 24).map(lambda hours: START + timedelta(hours=hours)), st.integers(0, 1)
)


@settings(deadline=None, max_examples=100)
@given(
    st.lists(EVENTS, max_size=40),
    st.sampled_from(sorted(KEYS)),
    st.integers(1, 4),
    st.sets(st.integers(0, 40), max_size=6),
)
def test_they_hold_the_most_recent_texts_until_then(events, period, keyphrases, cuts):
    rows = [(*event, f"t{number}") for number, event in enumerate(sorted(events, key=lambda event: event[:2]))]
    assert build(rows, period, keyphrases, cuts) == expect(rows, period, keyphrases)


@pytest.mark.parametrize("period", KEYS)
def test_a_table_of_them_is_limited(period, monkeypatch):
    monkeypatch.setattr(snapshots, "TABLE_TEXTS", 4)
    rows = [(user, START + timedelta(days=day), day % 2, f"{user}{day}") for user in "abc" for day in range(9)]
    assert build(rows, period, 3) == expect(rows, period, 3)


def test_of_what_is_open_only_the_most_recent_texts_are_kept():
    builder = SnapshotBuilder(("watch", "search"), "monthly", 2)
    names = ("user", "moment", "kind", "text")
    for number in range(50):
        row = [pa.array([value]) for value in ("a", START + timedelta(days=number), number % 2, f"t{number}")]
        list(builder.add(pa.RecordBatch.from_arrays(row, names)))
        assert len(builder._open) <= 4


def test_a_week_begins_on_monday():
    days = [START + timedelta(days=day) for day in (4, 5)]  # Sunday, Monday
    assert len(build([("a", day, 0, "t") for day in days], "weekly")[0]) == 2
    assert len(build([("a", day, 0, "t") for day in (START, days[0])], "weekly")[0]) == 1
