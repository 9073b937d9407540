"""Schemas are checked on every read and write, and a write happens whole or not at all."""

import resource
from contextlib import contextmanager
from datetime import UTC, datetime

import pyarrow as pa
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
        (behaviour(event_timestamp=datetime(2026, 1, 1)), "timestamps without a zone"),
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


def test_dictionary_encoded_strings_are_accepted():
    table = behaviour()
    encoded = table.set_column(0, "user_id", table.column("user_id").dictionary_encode())
    assert tables.check(encoded, tables.BEHAVIOUR, "x").schema == tables.BEHAVIOUR.schema
