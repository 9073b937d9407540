"""Feast reads tables by their path: what pandas and Spark write arrives as what it means, in training and serving."""

import json
from datetime import datetime

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from components.features import step
from conf_profile import tables
from conf_profile.config import FeaturesConfig
from feature_repo import store as feature_store
from serving.local.local import online_store

DAYS = [datetime(2026, 1, day) for day in (1, 2)]
TASK = """
attributes: {gender: [female, male]}
features: {seen: list, age: text, region: category, visits: number, city: text}
"""


@pytest.fixture
def files(tmp_path):
    """Whole numbers as ids: one table by Spark with INT96, one by pandas with the ids as its index, without `city`."""
    seen = [["چای"], ["چای", "می‌خواهم"]]
    behaviour = pa.table({"user_id": [7, 7], "event_timestamp": DAYS, "seen": seen})
    pq.write_table(behaviour, tmp_path / "behaviour.parquet", use_deprecated_int96_timestamps=True, flavor="spark")
    known = {
        "event_timestamp": [DAYS[0]] * 3, "age": [30.0, None, None], "region": pd.Categorical(["x", None, "y"]),
        "visits": [3, 4, 5], "consent": [True, False, True],
    }  # fmt: skip
    pd.DataFrame({"user_id": [7, 8, 9], **known}).set_index("user_id").to_parquet(tmp_path / "demographics.parquet")
    (tmp_path / "task.yaml").write_text(TASK)
    return tuple(tmp_path / name for name in ("behaviour.parquet", "demographics.parquet", "task.yaml"))


def test_training_reads_them(files, tmp_path):
    made = tmp_path / "features.parquet"
    report = step.run(*files, made, tmp_path / "report.json", tmp_path / "feast", "", FeaturesConfig())
    row, other = tables.read_features(made).to_pylist()
    assert {name: value for name, value in row.items() if name != "split"} == {
        "user_id": "7", "seen": ["چای", "می‌خواهم"], "age": "30", "region": "x", "visits": 3.0, "city": None,
    }  # fmt: skip
    assert (other["user_id"], other["seen"], other["age"], other["region"]) == ("9", [], None, "y")
    assert (report.users, report.dropped_without_consent, report.as_of) == (2, 1, "2026-01-02T00:00:00+00:00")


@pytest.fixture
def run(files, tmp_path):
    arguments = {
        "behaviour_uri": str(files[0]), "demographics_uri": str(files[1]), "task_uri": str(files[2]),
        "features_config": "{}", "as_of": "2026-01-01T12:00:00+00:00",
    }  # fmt: skip
    (tmp_path / "workspace").mkdir()
    (tmp_path / "workspace" / "arguments.json").write_text(json.dumps(arguments))
    return tmp_path


def read_online(run, *users):
    repository = online_store(run, run / "serving")
    return feature_store.read_online(feature_store.connect(repository), users)


def test_serving_reads_them(run):
    known, refused, nobody = read_online(run, "7", "8", "6")
    assert dict(known.features.values) == {"seen": ("چای",), "age": "30", "region": "x", "visits": 3.0}
    assert known.consent is True and refused.consent is False and nobody is None


def test_nan_is_no_number(run, files):
    """DuckDB and Polars write it as such; pandas does not."""
    table = pq.read_table(files[1])
    nan = pa.array([float("nan"), 4.0, 5.0])
    pq.write_table(table.set_column(table.column_names.index("visits"), "visits", nan), files[1])
    first, _, third = read_online(run, "7", "8", "9")
    assert "visits" not in first.features.values and third.features.values["visits"] == 5.0
