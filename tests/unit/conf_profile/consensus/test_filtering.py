"""The difficulty filter: shapes over the rank of confidence, and the step around it."""

import json

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.filtering.step import run
from conf_profile import tables
from conf_profile.config import FilteringConfig
from conf_profile.consensus.filtering import SHAPES, assign_rarest_group, select, summarise, weights
from conf_profile.errors import ConfigError, DataError

RANKS = np.array([0.0, 0.15, 0.3, 0.5, 0.7, 0.85, 1.0])


def test_lambda_rises_to_the_middle_and_falls():
    density = weights(RANKS, "lambda")
    assert density.argmax() == 3
    assert (np.diff(density[:4]) > 0).all() and (np.diff(density[3:]) < 0).all()


def test_m_has_two_humps_and_a_dip_between():
    density = weights(RANKS, "m")
    assert density[[2, 4]].tolist() == [1.0, 1.0]
    assert density[3] < density[2] and density[0] < density[1] < density[2]
    assert density[0] < density[3] > density[6]


def test_original_is_flat():
    assert weights(RANKS, "original").tolist() == [1.0] * 7


@pytest.mark.parametrize(
    ("shape", "thinnest", "fullest"), [("lambda", {0, 1, 8, 9}, {4, 5}), ("m", {0, 9}, {2, 3, 6, 7})]
)
@pytest.mark.parametrize("power", [1, 6])
def test_what_is_kept_has_the_shape_for_any_distribution_of_confidence(shape, thinnest, fullest, power):
    confidence = np.linspace(0, 1, 20_000) ** power
    kept = select(confidence, shape, 0.4, seed=1).reshape(10, -1).mean(axis=1)
    others = set(range(10)) - thinnest - fullest
    assert max(kept[list(thinnest)]) < min([kept[i] for i in others] or [1])
    assert max([kept[i] for i in others] or [0]) < min(kept[list(fullest)])


def test_equals_are_not_favoured_by_their_position():
    kept = select(np.full(10_000, 0.5), "lambda", 0.5, seed=0)
    assert kept[:5000].mean() == pytest.approx(0.5, abs=0.03)


@given(
    st.lists(st.floats(0, 1), max_size=60),
    st.sampled_from([shape for shape in SHAPES if shape != "original"]),
    st.floats(0.01, 1.0),
    st.integers(0, 2**31 - 1),
)
def test_the_share_is_kept_exactly_and_the_seed_decides(values, shape, keep, seed):
    confidence = np.array(values, dtype=np.float64)
    kept = select(confidence, shape, keep, seed)
    assert kept.sum() == round(keep * len(values))
    assert np.array_equal(kept, select(confidence, shape, keep, seed))


@given(st.lists(st.floats(0, 1), max_size=20), st.floats(0.01, 1.0), st.integers(0, 100))
def test_original_keeps_all(values, keep, seed):
    assert select(np.array(values, dtype=np.float64), "original", keep, seed).all()


def test_another_seed_keeps_others():
    confidence = np.linspace(0, 1, 1000)
    assert not np.array_equal(select(confidence, "m", 0.5, 0), select(confidence, "m", 0.5, 1))


def test_summary():
    summary = summarise(np.array([0.05, 0.95, 1.0]), np.array([True, False, True]))
    assert (summary.users, summary.kept) == (3, 2)
    assert summary.before == (1, 0, 0, 0, 0, 0, 0, 0, 0, 2)
    assert summary.after == (1, 0, 0, 0, 0, 0, 0, 0, 0, 1)


def test_wrong_arguments_are_named():
    confidence = np.array([0.5])
    with pytest.raises(ConfigError, match=r"filtering\.shape 'w' does not exist; choose one of original, lambda, m"):
        select(confidence, "w", 0.5, 0)
    with pytest.raises(ConfigError, match=r"filtering\.keep is 0"):
        select(confidence, "m", 0, 0)
    for bad in ([1.5], [np.nan], [-0.1]):
        with pytest.raises(DataError, match=r"confidence in \[0, 1\]"):
            select(np.array(bad), "m", 0.5, 0)


def reference(path, rows):
    columns = ("user_id", "attribute", "tag", "confidence")
    rows = [dict(zip(columns, row, strict=True)) for row in rows]
    tables.write(path, tables.from_rows(rows, tables.REFERENCE), tables.REFERENCE)
    return path


ROWS = [("b", "age", "x", 0.4), ("a", "age", "x", 0.9), ("a", "gender", "y", 0.3), ("c", "age", "z", 1.0)]


def step(tmp_path, rows, **config):
    run(
        reference(tmp_path / "reference.parquet", rows),
        tmp_path / "filtered.parquet",
        tmp_path / "report.json",
        FilteringConfig(**config),
        seed=0,
    )
    return pq.read_table(tmp_path / "filtered.parquet").to_pylist(), json.loads((tmp_path / "report.json").read_text())


def test_the_step_averages_over_the_attributes(tmp_path):
    rows, report = step(tmp_path, ROWS, shape="original")
    assert rows == [
        {"user_id": "a", "confidence": 0.6, "kept": True},
        {"user_id": "b", "confidence": 0.2, "kept": True},
        {"user_id": "c", "confidence": 0.5, "kept": True},
    ]
    assert report == {
        "shape": "original", "keep": 0.8, "strata": "none", "users": 3, "kept": 3,
        "before": [0, 0, 1, 0, 0, 1, 1, 0, 0, 0], "after": [0, 0, 1, 0, 0, 1, 1, 0, 0, 0],
    }  # fmt: skip


def test_the_step_does_not_depend_on_the_order_of_the_rows(tmp_path):
    rows = [(f"u{i}", name, "x", (i * 37 % 100) / 100) for i in range(50) for name in ("age", "gender")]
    first, _ = step(tmp_path, rows, shape="m", keep=0.5)
    assert first == step(tmp_path, rows[::-1], shape="m", keep=0.5)[0]
    assert sum(row["kept"] for row in first) == 25


def test_the_step_refuses_to_leave_nobody(tmp_path):
    with pytest.raises(DataError, match="the reference is empty"):
        step(tmp_path, [])
    with pytest.raises(DataError, match="leaves nobody; raise it"):
        step(tmp_path, ROWS[:1], shape="m", keep=0.1)


def test_strata_keep_their_share_though_one_of_them_is_unsure_throughout():
    # A tenth of the users are of a rare group, and all of them are less sure than anybody else.
    strata = np.repeat([0, 1], [900, 100])
    confidence = np.concatenate([np.linspace(0.4, 0.9, 900), np.linspace(0.0, 0.1, 100)])
    over_all, within = (select(confidence, "m", 0.5, 0, given)[strata == 1].mean() for given in (None, strata))
    assert over_all < 0.4
    assert within == 0.5
    assert (
        select(confidence, "m", 0.5, 0, np.zeros(1000, dtype=int)).tolist() == select(confidence, "m", 0.5, 0).tolist()
    )


def test_a_user_belongs_to_the_rarest_of_its_groups():
    # Group 0 has three users, 1 has one, 2 has two, 5 has two.
    groups = np.array([[0, 2], [0, 1], [0, 2], [5, -1], [-1, 5], [-1, -1]])
    assert assign_rarest_group(groups).tolist() == [2, 1, 2, 5, 5, -1]


def test_the_step_ranks_within_the_rarest_tag(tmp_path):
    rows = [{"user_id": f"u{i:03}", "attribute": "age", "tag": "old", "confidence": 0.5 + i / 500} for i in range(100)]
    rows += [{"user_id": f"v{i}", "attribute": "age", "tag": "young", "confidence": 0.1 + i / 500} for i in range(10)]
    tables.write(tmp_path / "reference", tables.from_rows(rows, tables.REFERENCE), tables.REFERENCE)
    kept = {}
    for strata in ("none", "rarest_tag"):
        config = FilteringConfig(shape="m", keep=0.5, strata=strata)
        run(tmp_path / "reference", tmp_path / "filtered", tmp_path / "report.json", config, seed=0)
        rows = pq.read_table(tmp_path / "filtered").to_pylist()
        kept[strata] = sum(row["kept"] for row in rows if row["user_id"].startswith("v"))
        assert json.loads((tmp_path / "report.json").read_text())["strata"] == strata
    assert kept["none"] < kept["rarest_tag"] == 5
