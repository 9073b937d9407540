"""Schemas are checked on every read and write, and a write happens whole or not at all."""

import resource
from contextlib import contextmanager
from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from conf_profile import tables
from conf_profile.errors import DataError
from conf_profile.files import write_text

NOW = datetime(2026, 1, 1, tzinfo=UTC)
ROW = {"user_id": "u1", "event_timestamp": NOW, "watch": ["a"], "search": [], "submit": []}


def behaviour(**changes):
    return pa.Table.from_pylist([{**ROW, **changes}])


def test_round_trip_keeps_lists(tmp_path):
    tables.write(tmp_path / "b.parquet", tables.from_rows([ROW], tables.BEHAVIOUR), tables.BEHAVIOUR)
    assert tables.read(tmp_path / "b.parquet", tables.BEHAVIOUR).to_pylist() == [ROW]


def test_columns_come_in_the_schemas_order_and_extra_ones_go():
    shuffled = pa.Table.from_pylist([{"extra": 1, **dict(reversed(ROW.items()))}])
    assert tables.check(shuffled, tables.BEHAVIOUR, "x").column_names == tables.BEHAVIOUR.schema.names


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (behaviour().drop_columns(["watch"]), "lacks the column.*watch"),
        (behaviour(watch="a"), "column 'watch'.*has the type string"),
        (behaviour(user_id=1.5), "column 'user_id'.*the number 1.5 in row 0"),
        (behaviour(user_id=None), "column 'user_id'.*is empty in 1 row.*row 0"),
        (behaviour(watch=["a", None]), "empty .null. element"),
        (pa.concat_tables([behaviour(), behaviour()]), "2 rows for user_id=u1"),
    ],
)
def test_what_is_wrong_and_where(table, message):
    with pytest.raises(DataError, match=message):
        tables.check(table, tables.BEHAVIOUR, "in.parquet")


@pytest.mark.parametrize("level", [0, 6, -1])
def test_levels_outside_1_to_5(level):
    row = {"user_id": "u", "attribute": "age", "tag": "x", "level": level, "score": 0.5}
    with pytest.raises(DataError, match=f"row 0.*level {level}"):
        tables.check(tables.from_rows([row], tables.PREDICTIONS), tables.PREDICTIONS, "p")


def test_not_parquet_and_not_there(tmp_path):
    (tmp_path / "x.parquet").write_text("no")
    with pytest.raises(DataError, match="cannot be read as Parquet"):
        tables.read(tmp_path / "x.parquet", tables.BEHAVIOUR)
    with pytest.raises(DataError, match="no such file"):
        tables.read(tmp_path / "y.parquet", tables.BEHAVIOUR)


def test_a_failed_write_leaves_the_old_file_and_no_rest(tmp_path):
    path = tmp_path / "b.parquet"
    tables.write(path, tables.from_rows([ROW], tables.BEHAVIOUR), tables.BEHAVIOUR)
    before = path.read_bytes()
    with pytest.raises(RuntimeError), tables.writer(path, tables.BEHAVIOUR) as out:
        out.write_table(tables.from_rows([ROW], tables.BEHAVIOUR))
        raise RuntimeError("killed half-way")
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@contextmanager
def no_room():
    """Files may not grow beyond 16 bytes: what a full disk does, without filling one. (Nor may pytest's own output.)"""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (16, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_a_full_disk_is_said_and_changes_nothing(tmp_path):
    path = tmp_path / "b.json"
    path.write_text("old")
    with no_room(), pytest.raises(DataError, match=r"b\.json: cannot be written: .*; nothing was changed"):
        write_text(path, "x" * 4096)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_everything_that_is_wrong_with_the_columns_is_said_at_once():
    with pytest.raises(DataError) as refusal:
        tables.check(behaviour(user_id=None, watch="a", search=[None]), tables.BEHAVIOUR, "x")
    assert [line.split("'")[1] for line in str(refusal.value).splitlines()] == ["user_id", "watch", "search"]
    with pytest.raises(DataError, match=r"lacks the column\(s\) user_id, watch"):
        tables.check(behaviour().drop_columns(["user_id", "watch"]), tables.BEHAVIOUR, "x")


def test_columns_that_may_be_null_may_be_missing():
    row = {"user_id": "u1", "event_timestamp": NOW, "region": "x", "consent": True}
    (read,) = tables.check(pa.Table.from_pylist([row]), tables.DEMOGRAPHICS, "x").to_pylist()
    assert read == row | dict.fromkeys(("self_age", "self_gender", "signature"))


def test_a_moment_without_a_zone_is_taken_as_utc_and_said_once(caplog):
    for _ in range(2):
        checked = tables.check(behaviour(event_timestamp=datetime(2026, 1, 1)), tables.BEHAVIOUR, "without zone")
        assert checked.column("event_timestamp").to_pylist() == [NOW]
    assert [record.getMessage().partition(": ")[2] for record in caplog.records] == [
        "column 'event_timestamp' of 'behaviour' has timestamp[us] without a zone: taken as UTC"
    ]


def test_a_column_of_lists_may_hold_more_than_two_gibibytes():
    """Pages of zeros that nobody touches take no memory."""
    count, size = 800, 1 << 20
    texts = pa.StringArray.from_buffers(
        count, pa.py_buffer(np.arange(count + 1, dtype=np.int32) * size), pa.py_buffer(np.zeros(count * size, np.uint8))
    )
    chunk = pa.ListArray.from_arrays(np.array([0, count], np.int32), texts)
    users, none = pa.array(list("abc")), pa.array([[]] * 3, pa.list_(pa.string()))
    table = pa.table(
        {"user_id": users, "event_timestamp": pa.array([NOW] * 3), "watch": pa.chunked_array([chunk] * 3),
         "search": none, "submit": none}
    )  # fmt: skip
    assert len(tables.check(table, tables.BEHAVIOUR, "x")) == 3
    broken = pa.chunked_array([chunk, chunk, pa.array([[None]], pa.list_(pa.string()))])
    with pytest.raises(DataError, match=r"null. element in row 2"):
        tables.check(table.set_column(2, "watch", broken), tables.BEHAVIOUR, "x")


def test_a_table_in_pieces_is_checked_as_a_whole(tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "BATCH_ROWS", 2)
    path = tmp_path / "b.parquet"
    rows = [{**ROW, "user_id": user} for user in "abcde"]
    pq.write_table(pa.Table.from_pylist(rows), path)
    assert tables.read_keys(path, tables.BEHAVIOUR).column("user_id").to_pylist() == list("abcde")
    pq.write_table(pa.Table.from_pylist([*rows, ROW | {"user_id": "a"}]), path)
    with pytest.raises(DataError, match="2 rows for user_id=a"):
        tables.read_keys(path, tables.BEHAVIOUR)
    pq.write_table(pa.Table.from_pylist([*rows, ROW | {"watch": [None]}]), path)
    with pytest.raises(DataError, match=r"element in row 5"):
        tables.read_keys(path, tables.BEHAVIOUR)
    pq.write_table(behaviour().slice(0, 0), path)
    assert len(tables.read_keys(path, tables.BEHAVIOUR)) == 0


def test_dictionary_encoded_strings_are_accepted():
    table = behaviour()
    encoded = table.set_column(0, "user_id", table.column("user_id").dictionary_encode())
    assert tables.check(encoded, tables.BEHAVIOUR, "x").schema == tables.BEHAVIOUR.schema
