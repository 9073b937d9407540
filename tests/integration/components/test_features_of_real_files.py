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


@pytest.fixture
def files(tmp_path):
    """Whole numbers as ids: one table by Spark with INT96, one by pandas with the ids as its index."""
    lists = [["چای"], ["چای", "می‌خواهم"]]
    behaviour = pa.table({"user_id": [7, 7], "event_timestamp": DAYS, "watch": lists, "search": lists, "submit": lists})
    pq.write_table(behaviour, tmp_path / "behaviour.parquet", use_deprecated_int96_timestamps=True, flavor="spark")
    known = {"event_timestamp": [DAYS[0]] * 2, "self_age": [30.0, None], "region": pd.Categorical(["x", None])}
    frame = pd.DataFrame({"user_id": [7, 8], **known, "consent": [True, False]})
    frame.set_index("user_id").to_parquet(tmp_path / "demographics.parquet")
    return tmp_path / "behaviour.parquet", tmp_path / "demographics.parquet"


def test_training_reads_them(files, tmp_path):
    made = tmp_path / "features.parquet"
    report = step.run(*files, made, tmp_path / "report.json", tmp_path / "feast", "", FeaturesConfig())
    (row,) = tables.read(made, tables.FEATURES).to_pylist()
    assert (row["user_id"], row["watch"], row["self_age"], row["region"], row["signature"]) == (
        "7", ["چای", "می‌خواهم"], "30", "x", None,
    )  # fmt: skip
    assert (report.users, report.dropped_without_consent, report.as_of) == (1, 1, "2026-01-02T00:00:00+00:00")


def test_serving_reads_them(files, tmp_path):
    arguments = {
        "behaviour_uri": str(files[0]), "demographics_uri": str(files[1]), "features_config": "{}",
        "as_of": "2026-01-01T12:00:00+00:00",
    }  # fmt: skip
    (tmp_path / "workspace").mkdir()
    (tmp_path / "workspace" / "arguments.json").write_text(json.dumps(arguments))
    repository = online_store(tmp_path, tmp_path / "serving")
    known, refused, nobody = feature_store.read_online(feature_store.connect(repository), ["7", "8", "9"])
    assert (known.features.watch, known.features.self_age, known.consent) == (("چای",), "30", True)
    assert refused.consent is False and nobody is None
