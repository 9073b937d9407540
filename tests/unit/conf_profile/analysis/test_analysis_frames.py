"""Frames of any kind: the same kind comes out, the same values stand in it, and what cannot be right is named."""

import datetime
import uuid

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

import conf_profile as cp
from conf_profile.errors import DataError

ROWS = pa.table(
    {
        "user_id": ["ann", "ann", "bob", "bob", "eve"],
        "sample": [0, 1, 0, 1, 0],
        "attribute": ["age"] * 5,
        "tag": ["old", "old", "young", None, None],
        "level": [5, 3, 4, None, None],
    }
)
LABELS = pa.table({"user_id": ["ann", "bob"], "attribute": ["age"] * 2, "tag": ["old", "old"]})


def pandas_with_categories(table):
    return table.to_pandas().astype({"user_id": "category", "attribute": "category", "tag": "category"})


def pandas_of_arrow(table):
    return table.to_pandas(types_mapper=pd.ArrowDtype)


def polars_with_categories(table):
    return pl.from_arrow(table).with_columns(pl.col("attribute", "tag").cast(pl.Categorical))


def large_types(table):
    names = ("user_id", "attribute", "tag")
    return table.cast(pa.schema([(f.name, pa.large_string() if f.name in names else f.type) for f in table.schema]))


def dictionaries(table):
    return pa.table({name: table[name].dictionary_encode() for name in table.column_names})


def record_batch(table):
    return table.combine_chunks().to_batches()[0]


def reader(table):
    return pa.RecordBatchReader.from_batches(table.schema, table.to_batches())


class Relation:
    """What another library gives: the interface and no more."""

    def __init__(self, table):
        self.table = table

    def __arrow_c_stream__(self, requested_schema=None):
        return self.table.__arrow_c_stream__(requested_schema)


KINDS = {
    "pandas": (pa.Table.to_pandas, pd.DataFrame),
    "pandas categories": (pandas_with_categories, pd.DataFrame),
    "pandas of arrow": (pandas_of_arrow, pd.DataFrame),
    "polars": (pl.from_arrow, pl.DataFrame),
    "polars categories": (polars_with_categories, pl.DataFrame),
    "arrow": (lambda table: table, pa.Table),
    "arrow large": (large_types, pa.Table),
    "arrow dictionaries": (dictionaries, pa.Table),
    "record batch": (record_batch, pa.Table),
    "reader": (reader, pa.Table),
    "relation": (Relation, pa.Table),
}


def rows(frame):
    """Values as plain Python, null as None."""
    if isinstance(frame, pd.DataFrame):
        return [
            {name: None if pd.isna(value) else value for name, value in row.items()} for row in frame.to_dict("records")
        ]
    return frame.to_dicts() if isinstance(frame, pl.DataFrame) else frame.to_pylist()


@pytest.mark.parametrize("kind", KINDS)
def test_the_kind_that_goes_in_comes_out_with_the_same_values(kind):
    make, result = KINDS[kind]
    votes = cp.vote(make(ROWS))
    assert type(votes) is result
    assert rows(votes) == cp.vote(ROWS).to_pylist()

    calibration = cp.fit_calibration(make(cp.vote(ROWS)))
    assert calibration == cp.fit_calibration(cp.vote(ROWS))
    levels = cp.apply_calibration(make(cp.vote(ROWS)), calibration)
    expected = cp.apply_calibration(cp.vote(ROWS), calibration)
    assert type(levels) is result
    assert rows(levels) == expected.to_pylist()

    table = cp.evaluate(make(expected), make(LABELS))
    assert type(table) is result
    assert rows(table) == cp.evaluate(expected, LABELS).to_pylist()
    chosen = cp.choose_thresholds(make(expected), make(LABELS), precision=0.9)
    assert chosen == cp.choose_thresholds(expected, LABELS, precision=0.9)


@pytest.mark.parametrize("kind", [pa.int8(), pa.int64(), pa.uint64(), pa.string()])
def test_ids_keep_their_type(kind):
    numbered = ROWS.set_column(0, "user_id", pa.array([7, 7, 10, 10, 9]).cast(kind))
    assert cp.vote(numbered)["user_id"].to_pylist() == pa.array([7, 10, 9]).cast(kind).to_pylist()
    assert cp.vote(numbered)["user_id"].type == kind


def test_pandas_keeps_its_index_and_its_other_columns():
    votes = cp.vote(ROWS.to_pandas()).assign(city="Turin").set_index(pd.Index(["x", "y", "z"]))
    levels = cp.apply_calibration(votes, cp.fit_calibration(votes))
    assert levels.index.tolist() == ["x", "y", "z"]
    assert levels.drop(columns="level").equals(votes)
    assert levels["level"].dtype == "Int8"
    assert levels["level"].isna().tolist() == [False, False, True]
    assert "level" not in votes


def test_an_index_with_repetitions_changes_nothing():
    frame = ROWS.to_pandas()
    assert cp.vote(frame.set_index(pd.Index([0] * len(frame)))).equals(cp.vote(frame))


def test_levels_that_pandas_made_floats_are_levels():
    frame = ROWS.to_pandas()
    assert frame["level"].dtype == np.float64
    assert rows(cp.vote(frame)) == cp.vote(ROWS).to_pylist()


def test_columns_that_are_not_read_may_hold_anything():
    frame = ROWS.to_pandas().assign(anything=[1, "a", None, object(), {}])
    assert rows(cp.vote(frame)) == cp.vote(ROWS).to_pylist()


def test_nan_of_arrow_is_null():
    levels = pa.array([5, 3, 4, float("nan"), float("nan")])
    assert cp.vote(ROWS.set_column(4, "level", levels)).equals(cp.vote(ROWS))


def test_text_of_any_script_is_a_tag():
    tags = ["نوجوان‌ها", "👨‍👩‍👧", "a, b & <c>", "x\x1fy", "old"]
    samples = pa.table({"user_id": range(5), "attribute": ["性别"] * 5, "tag": tags, "level": [5] * 5})
    assert cp.vote(samples)["tag"].to_pylist() == tags
    assert cp.vote(samples)["attribute"].to_pylist() == ["性别"] * 5


def with_column(name, values):
    return ROWS.set_column(ROWS.column_names.index(name), name, [values])


BAD_SAMPLES = {
    "a column is missing": (
        ROWS.drop_columns(["tag"]),
        r"vote: 'samples' lacks the column\(s\) tag; it has user_id, sample, attribute, level\. Rename the column",
    ),
    "several are missing": (
        ROWS.select(["sample", "attribute", "level"]),
        r"lacks the column\(s\) user_id, tag; it has",
    ),
    "the attribute is missing": (ROWS.drop_columns(["attribute"]), "add a column with it"),
    "the id is the index": (
        ROWS.to_pandas().set_index("user_id"),
        r"lacks the column\(s\) user_id; .* user_id is in the index: pass samples.reset_index\(\)",
    ),
    "a column twice": (
        pd.concat([ROWS.to_pandas(), ROWS.to_pandas()[["tag"]]], axis=1),
        "'samples' has several columns 'tag'; rename all but one",
    ),
    "a level above": (
        with_column("level", [5, 3, 6, None, None]),
        r"row 2 of 'samples' has the level 6; levels are whole",
    ),
    "a level below": (
        with_column("level", [5, 0, 4, None, None]),
        r"row 1 of 'samples' has the level 0; levels are whole",
    ),
    "a level between": (with_column("level", [5, 3, 4.5, None, None]), r"row 2 of 'samples' has the level 4.5; levels"),
    "a level in words": (
        with_column("level", ["high"] * 5),
        "column 'level' of 'samples' has the type string; levels are",
    ),
    "a tag without a level": (
        with_column("level", [5, None, 4, None, None]),
        r"row 1 of 'samples' \(user 'ann'\) has a tag without a level",
    ),
    "a sample twice": (
        with_column("sample", [0, 0, 0, 1, 0]),
        r"vote: 'samples' has 2 rows for user_id=ann, sample=0, attribute=age; keep one of them",
    ),
    "a sample without a number": (with_column("sample", [0, 1, None, 1, 0]), "row 2 of 'samples' has no sample"),
    "a null id": (
        with_column("user_id", ["ann", None, None, "bob", "eve"]),
        r"vote: row 1 of 'samples' has no user_id \(2 such rows\); fill it in or drop them",
    ),
    "a NaN id": (
        ROWS.to_pandas().assign(user_id=[1, np.nan, 2, 2, 3]),
        r"column 'user_id' .* type double; ids are integers",
    ),
    "a NaN id among text": (
        ROWS.to_pandas().assign(user_id=["a", np.nan, "b", "b", "c"]),
        r"row 1 of 'samples' has no user",
    ),
    "a blank id": (
        with_column("user_id", ["ann", "ann", " ", "bob", "eve"]),
        "row 2 of 'samples' has the user_id ' '; ids",
    ),
    "ids of two types": (ROWS.to_pandas().assign(user_id=[1, "a", "b", "c", "d"]), r"user_id.*astype\('string'\)"),
    "ids that are dates": (
        with_column("user_id", [datetime.date(2024, 1, day) for day in (1, 2, 3, 4, 5)]),
        "column 'user_id' of 'samples' has the type date32",
    ),
    "ids that are objects": (
        ROWS.to_pandas().assign(user_id=[uuid.uuid4() for _ in range(5)]),
        "'user_id' .* has the type",
    ),
    "a null attribute": (
        with_column("attribute", ["age", None, "age", "age", "age"]),
        "row 1 of 'samples' has no attribute",
    ),
    "tags that are numbers": (
        with_column("tag", [1, 1, 2, None, None]),
        r"'tag' .* int64; tags are text: convert with",
    ),
    "well_formed in words": (
        ROWS.append_column("well_formed", [["yes"] * 5]),
        "has the type string; it is true or false",
    ),
    "too many tags": (
        pa.table({"user_id": range(40_000), "attribute": ["age"] * 40_000, "tag": list(map(str, range(40_000)))}),
        "attribute 'age' has 40000 different tags; a vote needs a closed set",
    ),
    "a path": (
        "samples.parquet",
        r"vote: 'samples' is of the type str; expected a DataFrame of pandas or polars, or an",
    ),
    "a list": (ROWS.to_pylist(), "'samples' is of the type list"),
    "a series": (pl.Series([1, 2]), "'samples' cannot be read as a table"),
    "a lazy frame": (pl.from_arrow(ROWS).lazy(), r"of the type LazyFrame; .* collect\(\) it first"),
    "nothing": (None, "'samples' is of the type NoneType"),
}


@pytest.mark.parametrize("case", BAD_SAMPLES)
def test_samples_that_cannot_be_right(case):
    samples, message = BAD_SAMPLES[case]
    with pytest.raises(DataError, match=message):
        cp.vote(samples)


def test_a_message_names_the_callers_columns():
    renamed = with_column("user_id", ["ann", "ann", None, "bob", "eve"]).rename_columns({"user_id": "person"})
    with pytest.raises(DataError, match=r"vote\(user_id='person'\): row 2 of 'samples' has no user_id"):
        cp.vote(renamed, user_id="person")


@pytest.mark.parametrize(("score", "message"), [(1.5, "row 0 of 'votes' has the score 1.5"), ("high", "type string")])
def test_a_score_is_a_number_from_0_to_1(score, message):
    with pytest.raises(DataError, match=message):
        cp.fit_calibration(pa.table({"attribute": ["age"], "tag": ["old"], "score": [score]}))
