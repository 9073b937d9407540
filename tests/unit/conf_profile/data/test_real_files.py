"""Tables as other programs write them: each writer and kind of column loads as what it means, or is refused with the
remedy; and Feast, which reads a file by its path, gets it in the exact form."""

from datetime import UTC, date, datetime

import duckdb
import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from conf_profile import tables
from conf_profile.data import exact, own
from conf_profile.errors import DataError

MOMENT = datetime(2025, 1, 2, 3, 4, 5, 678901)
ZONED = MOMENT.replace(tzinfo=UTC)
USERS = pa.array(["7", "8"])
TIMES = pa.array([ZONED, ZONED], pa.timestamp("us", "UTC"))
TEXTS = pa.array([["چای", "می‌خواهم"], ["👨‍👩‍👧"]])
BEHAVIOUR = {"user_id": USERS, "event_timestamp": TIMES, "watch": TEXTS, "search": pa.array([[], []], TEXTS.type),
             "submit": TEXTS}  # fmt: skip
DEMOGRAPHICS = {"user_id": USERS, "event_timestamp": TIMES, "self_age": pa.array(["30", None]),
                "self_gender": pa.array(["", None]), "signature": pa.array(["a", "b"]), "region": pa.array(["x", "y"]),
                "consent": pa.array([True, False])}  # fmt: skip


def by_pandas(table, path):
    table.to_pandas().to_parquet(path)


def by_pandas_with_an_index(table, path):
    table.to_pandas().set_index("user_id").to_parquet(path)


def by_pandas_after_a_filter(table, path):
    """Leaves the column __index_level_0__ in the file."""
    frame = table.to_pandas()
    frame.index = [5, 9]
    frame.to_parquet(path)


def by_pyarrow(table, path):
    pq.write_table(table, path)


def by_pyarrow_in_large_types(table, path):
    pq.write_table(table.cast(pa.schema([pa.field(f.name, large(f.type)) for f in table.schema])), path)


def large(kind):
    if pa.types.is_list(kind):
        return pa.large_list(large(kind.value_type))
    return pa.large_string() if pa.types.is_string(kind) else kind


def by_pyarrow_in_views(table, path):
    viewed = [pa.string_view() if pa.types.is_string(f.type) else f.type for f in table.schema]
    pq.write_table(table.cast(pa.schema(list(zip(table.column_names, viewed, strict=True)))), path)


def by_polars(table, path):
    pl.from_arrow(table).write_parquet(path)


def by_duckdb(table, path):
    with duckdb.connect() as connection:
        connection.register("given", table)
        connection.execute(f"COPY given TO '{path}' (FORMAT parquet)")


def by_spark(table, path):
    """INT96, and lists of elements, as Spark writes them by default."""
    pq.write_table(table, path, use_deprecated_int96_timestamps=True, flavor="spark")


WRITERS = (by_pandas, by_pandas_with_an_index, by_pandas_after_a_filter, by_pyarrow, by_pyarrow_in_large_types,
           by_pyarrow_in_views, by_polars, by_duckdb, by_spark)  # fmt: skip

LOADED = {
    # column, kind: values, what they are read as
    ("user_id", "texts"): (USERS, ["7", "8"]),
    ("user_id", "whole numbers"): (pa.array([7, 8]), ["7", "8"]),
    ("user_id", "whole numbers, unsigned"): (pa.array([7, 8], pa.uint32()), ["7", "8"]),
    ("user_id", "whole numbers with a point"): (pa.array([7.0, 8.0]), ["7", "8"]),
    ("user_id", "categories"): (USERS.dictionary_encode(), ["7", "8"]),
    ("event_timestamp", "with a zone"): (TIMES, [ZONED, ZONED]),
    ("event_timestamp", "in another zone"): (TIMES.cast(pa.timestamp("us", "Asia/Tehran")), [ZONED, ZONED]),
    ("event_timestamp", "without a zone"): (pa.array([MOMENT, MOMENT]), [ZONED, ZONED]),
    ("event_timestamp", "nanoseconds"): (pa.array([MOMENT, MOMENT], pa.timestamp("ns")), [ZONED, ZONED]),
    ("event_timestamp", "milliseconds"): (pa.array([0, 1], pa.timestamp("ms", "UTC")), None),
    ("event_timestamp", "days"): (pa.array([date(2025, 1, 2)] * 2), [datetime(2025, 1, 2, tzinfo=UTC)] * 2),
    ("watch", "texts of any script"): (TEXTS, TEXTS.to_pylist()),
    ("watch", "empty lists and texts"): (pa.array([[], [""]], TEXTS.type), [[], [""]]),
    ("watch", "lists of nothing"): (pa.array([[], []], pa.list_(pa.null())), [[], []]),
    ("self_age", "texts and nulls"): (pa.array(["30", None]), ["30", None]),
    ("self_age", "whole numbers"): (pa.array([30, 31], pa.int8()), ["30", "31"]),
    ("self_age", "whole numbers and a gap"): (pa.array([30.0, np.nan]), ["30", None]),
    ("self_age", "nulls alone"): (pa.nulls(2), [None, None]),
    ("self_age", "NaN alone"): (pa.array([np.nan, np.nan]), [None, None]),
    ("region", "categories"): (pa.array(["x", None]).dictionary_encode(), ["x", None]),
    ("region", "truth"): (pa.array([True, None]), ["true", None]),
    ("consent", "truth"): (pa.array([True, False]), [True, False]),
}  # fmt: skip
REFUSED = {
    ("user_id", "broken numbers"): (pa.array([7.0, 8.5]), "number 8.5 in row 1, which stands for no text; write the"),
    ("user_id", "numbers too large to be exact"): (pa.array([7.0, 2.0**53]), "in row 1.*write the column as text"),
    ("user_id", "blank"): (pa.array(["7", " "]), "row 1 has a blank user_id; give every row the id"),
    ("user_id", "null"): (pa.array(["7", None]), "is empty in 1 row.*the first is row 1; give every row a value"),
    ("user_id", "days"): (pa.array([date(2025, 1, 2), date(2025, 1, 3)]), "expected string; write texts, in pandas"),
    ("event_timestamp", "texts"): (pa.array(["2025-01-02"] * 2), "expected timestamp.*in pandas by pd.to_datetime"),
    ("event_timestamp", "numbers"): (pa.array([1735786800] * 2), "int64, expected timestamp.*write timestamps"),
    ("watch", "one text"): (pa.array(["a", "b"]), "expected list.*write lists of texts, also for a single one"),
    ("watch", "numbers"): (pa.array([[1], [2]]), "expected list.*write lists of texts"),
    ("watch", "a null list"): (pa.array([["a"], None]), r"is empty in 1 row.*row 1; give every row a list, \[\]"),
    ("watch", "a null element"): (pa.array([["a"], ["b", None]]), "null. element in row 1; leave the element out"),
    ("region", "lists"): (TEXTS, "expected string; write texts"),
    ("consent", "texts"): (pa.array(["yes", "no"]), "expected bool; write true and false of the type bool"),
    ("consent", "numbers"): (pa.array([1, 0]), "expected bool; write true and false"),
    ("consent", "null"): (pa.array([True, None]), "'consent' of 'demographics' .*"),
}  # fmt: skip


def write(folder, column, values, writer):
    """Both tables of a folder, one column replaced; the table that has it."""
    (folder / "taxonomy.yaml").write_text("attributes: {gender: [female, male]}")
    for name, columns in (("behaviour", BEHAVIOUR), ("demographics", DEMOGRAPHICS)):
        given = columns | {column: values} if column in columns else columns
        writer(pa.table(given), folder / f"{name}.parquet")
    return "behaviour" if column in BEHAVIOUR else "demographics"


def schema_of(name):
    return tables.BEHAVIOUR if name == "behaviour" else tables.DEMOGRAPHICS


@pytest.mark.parametrize("writer", WRITERS)
@pytest.mark.parametrize(("column", "kind"), LOADED)
def test_a_column_that_loads(tmp_path, writer, column, kind):
    values, expected = LOADED[column, kind]
    name = write(tmp_path, column, values, writer)
    found = own.check_folder(tmp_path)
    assert found.users == 2
    for table in ("behaviour", "demographics"):
        path = exact.exact_table(tmp_path / f"{table}.parquet", schema_of(table), tmp_path / "exact")
        assert not exact.find_differences(pq.read_schema(path), schema_of(table))
        read = tables.read(path, schema_of(table))
        if table == name and expected is not None:
            assert read.column(column).to_pylist() == expected
        assert read.column("user_id").to_pylist() == ["7", "8"]


@pytest.mark.parametrize("writer", WRITERS)
@pytest.mark.parametrize(("column", "kind"), REFUSED)
def test_a_column_that_is_refused(tmp_path, writer, column, kind):
    values, message = REFUSED[column, kind]
    name = write(tmp_path, column, values, writer)
    with pytest.raises(DataError, match=message) as refusal:
        own.check_folder(tmp_path)
    assert str(tmp_path / f"{name}.parquet") in str(refusal.value) and column in str(refusal.value)
