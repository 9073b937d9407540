"""docs/scale.md is current, and its simulation and cost model obey their laws."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

from benchmarks import usage
from benchmarks.scale import inputs, model, page, sharding
from benchmarks.scale.inputs import Figure
from benchmarks.scale.model import Limits, Load
from components.synthesis.step import shard_of
from conf_profile.config import resolve
from conf_profile.errors import ConfigError, DataError
from serving.backfill.backfill import SHARD_USERS
from support.paths import ROOT

PAGE = ROOT / "docs" / "scale.md"
CONFIG = resolve("tiny")
MEASURED = inputs.read()
ODDS = 1e-9
"""How unlikely a count may be before the hash counts as uneven."""


def with_figures(**changed: float) -> inputs.Inputs:
    """The measured inputs with other values; dots of a name are written as double underscores."""
    figures = dict(MEASURED.figures)
    for name, value in changed.items():
        name = name.replace("__", ".")
        figures[name] = replace(figures[name], value=value)
    return replace(MEASURED, figures=figures)


def test_the_page_is_current():
    text = PAGE.read_text(encoding="utf-8")
    assert page.fill(text, MEASURED, CONFIG, Limits()) == text, "run: python -m benchmarks.scale --write docs/scale.md"


def test_a_measured_process_reports_its_own_peak_and_not_its_parents():
    held = b"1" * (200 << 20)
    assert usage.measure("pass").mib < 100
    assert usage.measure("x = b'1' * (150 << 20)").mib > 150
    del held


def test_a_measured_process_that_fails_ends_the_measurement():
    with pytest.raises(SystemExit, match="status 3"):
        usage.measure("raise SystemExit(3)")


def test_every_figure_says_where_it_comes_from():
    for name, figure in MEASURED.figures.items():
        assert figure.value > 0, name
        assert figure.source.startswith(("python -m benchmarks.scale.measure ", "docs/performance.md: ")), name


@given(st.lists(st.text(max_size=12), unique=True, max_size=50), st.integers(1, 40))
def test_shards_partition_the_users(ids, shards):
    members = [[user for user in ids if shard_of(user, shards) == shard] for shard in range(shards)]
    assert sorted(user for shard in members for user in shard) == sorted(ids)


@pytest.mark.parametrize("balance", MEASURED.balances, ids=lambda one: f"{one.users}")
def test_counts_lie_within_the_binomial_bounds(balance):
    share = sharding.asked_share(CONFIG.features)
    assert within(balance.asked, balance.users, share, 1)
    for count in (balance.smallest, balance.largest):
        assert within(count, balance.asked, 1 / balance.shards, balance.shards)


def within(count: int, trials: int, share: float, counts: int) -> bool:
    """Whether one of `counts` such counts may well be this one."""
    low, high = binom.ppf([ODDS / counts, 1 - ODDS / counts], trials, share)
    return low <= count <= high


def test_the_kept_simulation_is_what_the_pipeline_does_today():
    kept = {one.users: one for one in MEASURED.balances}
    assert sorted(kept) == list(sharding.DECADES)
    for users in (10**4, 10**5):
        assert sharding.balance(users) == kept[users]


def test_more_users_make_shards_more_even():
    uneven = [one.largest / one.mean - 1 for one in MEASURED.balances if one.shards == sharding.SHARD_LIMIT]
    assert uneven == sorted(uneven, reverse=True)


@given(st.integers(1, 10**9))
def test_a_backfill_s_ranges_hold_everybody(users):
    shards, last = sharding.ranges(users)
    assert (shards - 1) * SHARD_USERS + last == users
    assert 0 < last <= SHARD_USERS


def test_ranges_are_those_that_a_backfill_cuts(tmp_path):
    """The real plan over a real table, with small shards in place of 20,000."""
    import pyarrow as pa

    from conf_profile import tables
    from serving.backfill import backfill

    ids = [f"u{number:05d}" for number in np.random.default_rng(0).permutation(1_003)]
    source = backfill.Source(tmp_path / "b.parquet", tmp_path / "d.parquet", "")
    empty = {"watch": [], "search": [], "submit": []}
    when = pa.scalar("2026-01-01T00:00:00Z").cast(pa.timestamp("us", "UTC")).as_py()
    rows = [{"user_id": user, "event_timestamp": when, **empty} for user in ids]
    tables.write(source.behaviour, tables.from_rows(rows, tables.BEHAVIOUR), tables.BEHAVIOUR)
    tables.write(source.demographics, tables.DEMOGRAPHICS.schema.empty_table(), tables.DEMOGRAPHICS)
    shards = backfill._shards(source, 100)
    assert [shard.users for shard in shards] == [100] * 10 + [3]
    inside = [sum(shard.first <= user <= shard.last for shard in shards) for user in ids]
    assert set(inside) == {1}


@given(st.integers(10**4, 10**8), st.integers(2, 10))
def test_nothing_gets_cheaper_with_more_users(users, times):
    few = model.needs(Load.from_users(users, CONFIG), MEASURED, CONFIG)
    many = model.needs(Load.from_users(users * times, CONFIG), MEASURED, CONFIG)
    for name in few:
        # Whole shards round the largest one up.
        assert many[name].seconds >= few[name].seconds * 0.99, name
        assert many[name].gib >= few[name].gib * 0.99, name


def test_a_limit_is_reached_where_the_stage_exceeds_it_and_not_before():
    limits = Limits()
    for one in model.first_breaks(MEASURED, CONFIG, limits):
        at, before = (
            model.needs(Load.from_users(users, CONFIG), MEASURED, CONFIG)[one.stage]
            for users in (one.users, round(one.users * 0.98))
        )
        if one.resource == "memory":
            most = limits.redis_gib if one.stage == "online store" else limits.pod_gib
            assert before.gib <= most * 1.01 and at.gib > most
        else:
            assert before.hours(limits.engines) <= limits.hours * 1.01 and at.hours(limits.engines) > limits.hours


def test_replicas_finish_in_time_and_one_fewer_does_not():
    load = Load.from_users(10**7, CONFIG)
    replicas = model.backfill_replicas(load, MEASURED, 24.0)
    hours = model.needs(load, MEASURED, CONFIG)["backfill"].hours(1)
    assert (replicas - 1) * 24.0 < hours <= replicas * 24.0


def test_an_engine_needs_a_shard_to_work_on():
    load = Load.from_users(10_000, CONFIG)
    need = model.needs(load, MEASURED, CONFIG)["synthesis"]
    assert load.shards == 2 and need.hours(4) == need.hours(2) == need.hours(1) / 2


def test_twice_the_speed_takes_half_the_engines():
    load, rate = Load.from_users(10**8, CONFIG), MEASURED["teacher.tokens_per_second"]
    slow = model.teacher_engines(load, MEASURED, CONFIG, 24.0)
    fast = model.teacher_engines(load, with_figures(teacher__tokens_per_second=2 * rate), CONFIG, 24.0)
    assert fast == pytest.approx(slow / 2, abs=1)


def test_the_formula_for_requests_gives_what_was_counted():
    small, large = ([size, *[1] * page.SMALL_FILES] for size in (2 << 20, 200 << 20))
    assert model.promotion_requests(MEASURED, small) == MEASURED["promotion.requests_small"]
    assert model.promotion_requests(MEASURED, large) == MEASURED["promotion.requests_large"]


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0, "0"),
        (0.00123, "0.00123"),
        (0.5, "0.5"),
        (9.996, "10"),
        (12.34, "12.3"),
        (1234.5, "1,230"),
        (1e9, "1,000,000,000"),
    ],
)
def test_numbers_have_three_digits(value, shown):
    assert page.number(value) == shown


def test_a_page_without_a_marker_is_refused():
    text = PAGE.read_text(encoding="utf-8").replace("<!-- scale:shards -->", "")
    with pytest.raises(DataError, match="markers"):
        page.fill(text, MEASURED, CONFIG, Limits())


def test_a_figure_that_nobody_described_is_refused(tmp_path):
    copy = tmp_path / "inputs.yaml"
    copy.write_text(inputs.FILE.read_text(encoding="utf-8"))
    with pytest.raises(ConfigError, match="describe the figure 'speed'"):
        inputs.update({"speed": 1.0}, [], "a machine", copy)
    assert copy.read_text() == inputs.FILE.read_text(encoding="utf-8")


def test_new_values_are_written_and_read_back(tmp_path):
    copy = tmp_path / "inputs.yaml"
    copy.write_text(inputs.FILE.read_text(encoding="utf-8"))
    inputs.update({"grpo.seconds": 123.456}, [], "a machine", copy)
    again = inputs.read(copy)
    assert again["grpo.seconds"] == 123.0 and again.machine == "a machine"
    assert again.balances == MEASURED.balances


def test_an_unknown_figure_is_named():
    with pytest.raises(ConfigError, match="no figure 'speed'"):
        MEASURED["speed"]
    assert isinstance(MEASURED.figures["grpo.seconds"], Figure)
