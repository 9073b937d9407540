"""The bootstrap draws users, is paired, and its vectorised sums are those of a plain loop."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conf_profile.errors import DataError
from conf_profile.evaluation import bootstrap, slices
from conf_profile.evaluation.bootstrap import UserBootstrap, f1_difference, interval, rate_intervals
from conf_profile.evaluation.metrics import rates


def simulated(users: int, accuracy: float, seed: int) -> np.ndarray:
    """Counts [users, 3] of six always answered cells a user."""
    correct = np.random.default_rng(seed).binomial(6, accuracy, users)
    return np.stack([correct, np.full(users, 6), np.full(users, 6)], axis=1).astype(float)


def test_sums_are_those_of_drawing_users_one_by_one() -> None:
    statistics = np.arange(12.0).reshape(4, 3)
    generator = np.random.default_rng(7)
    by_hand = [statistics[row].sum(axis=0) for row in generator.integers(4, size=(20, 4))]
    assert UserBootstrap(4, 20, seed=7).sums(statistics).tolist() == np.array(by_hand).tolist()


def test_sums_keep_the_inner_axes() -> None:
    assert UserBootstrap(4, 20, seed=7).sums(np.ones((4, 2, 3))).shape == (20, 2, 3)


def test_chunks_draw_the_same_users_as_one_go(monkeypatch: pytest.MonkeyPatch) -> None:
    statistics = np.random.default_rng(0).random((10, 3))
    whole = UserBootstrap(10, 25, seed=3).sums(statistics)
    monkeypatch.setattr(bootstrap, "_CELLS_AT_ONCE", 40)
    assert np.allclose(UserBootstrap(10, 25, seed=3).sums(statistics), whole)


@settings(deadline=None, max_examples=25)
@given(st.integers(1, 30), st.integers(0, 1000))
def test_every_resample_draws_exactly_as_many_users(users: int, seed: int) -> None:
    assert (UserBootstrap(users, 10, seed).sums(np.ones((users, 1))) == users).all()


def test_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    covered = 0
    for seed in range(200):
        counts = simulated(80, 0.6, seed)
        found = rate_intervals(UserBootstrap(80, 300, seed).sums(counts))[bootstrap.F1]
        covered += found.low <= 0.6 <= found.high
    # 95% of 200 is 190; fewer than 178 would be four standard errors away.
    assert covered >= 178


def test_users_are_drawn_not_cells() -> None:
    """Each user is all right or all wrong: six copies of a cell carry no more information than one."""
    right = np.arange(100) < 60
    copies = np.stack([6.0 * right, np.full(100, 6.0), np.full(100, 6.0)], axis=1)
    draws = UserBootstrap(100, 500, seed=0)
    assert rate_intervals(draws.sums(copies)) == rate_intervals(draws.sums(copies / 6))


def test_paired_difference_of_an_arm_with_itself_is_exactly_zero() -> None:
    counts = simulated(50, 0.5, 0)
    resampled = UserBootstrap(50, 100, 0).sums(counts)
    found = f1_difference(("a", "b"), (counts.sum(axis=0),) * 2, (resampled,) * 2)
    assert (found.difference, found.low, found.high) == (0.0, 0.0, 0.0)


def test_pairing_finds_a_small_gain_that_separate_intervals_hide() -> None:
    worse = simulated(300, 0.5, 0)
    better = worse.copy()
    better[:40, 0] = np.minimum(better[:40, 0] + 1, 6)
    draws = UserBootstrap(300, 400, 0)
    found = f1_difference(
        ("better", "worse"), (better.sum(axis=0), worse.sum(axis=0)), (draws.sums(better), draws.sums(worse))
    )
    apart = [rate_intervals(draws.sums(counts))[bootstrap.F1] for counts in (better, worse)]
    assert apart[0].low < apart[1].high
    assert 0 < found.low <= found.difference <= found.high
    assert (found.better, found.worse, found.metric) == ("better", "worse", "f1")


def test_interval_is_the_middle_95_percent() -> None:
    found = interval(np.arange(1001.0))
    assert (found.low, found.high) == (25.0, 975.0)


@pytest.mark.parametrize(("users", "resamples"), [(0, 10), (10, 0)])
def test_nothing_to_draw_is_an_error(users: int, resamples: int) -> None:
    with pytest.raises(DataError, match="at least one user and one resample"):
        UserBootstrap(users, resamples, 0)


def test_statistics_of_other_users_are_an_error() -> None:
    with pytest.raises(DataError, match="draws 4 users; the statistics have 3"):
        UserBootstrap(4, 10, 0).sums(np.ones((3, 1)))


def test_region_slices_keep_unknown_and_rare_regions_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slices, "MAX_CATEGORIES", 2)
    masks = slices.by_category("region", ["north", "north", "south", "south", "east", None, ""])
    assert {name: mask.astype(int).tolist() for name, mask in masks.items()} == {
        "region: (not given)": [0, 0, 0, 0, 0, 1, 1],
        "region: (other)": [0, 0, 0, 0, 1, 0, 0],
        "region: north": [1, 1, 0, 0, 0, 0, 0],
        "region: south": [0, 0, 1, 1, 0, 0, 0],
    }


def test_history_slices_are_terciles_that_keep_ties_together() -> None:
    masks = slices.by_history(np.array([1, 2, 3, 4, 5, 6]))
    assert {name: mask.sum() for name, mask in masks.items()} == {
        "history: 1-2 keyphrases": 2,
        "history: 3-4 keyphrases": 2,
        "history: 5-6 keyphrases": 2,
    }
    assert list(slices.by_history(np.array([7, 7, 7]))) == ["history: 7 keyphrases"]
    assert slices.by_history(np.array([], dtype=int)) == {}


def test_self_report_slices() -> None:
    masks = slices.by_self_report(np.array([True, False, True]))
    assert {name: mask.tolist() for name, mask in masks.items()} == {
        "self-report: present": [True, False, True],
        "self-report: absent": [False, True, False],
    }


@settings(deadline=None)
@given(st.lists(st.integers(0, 40), min_size=1, max_size=60))
def test_history_slices_cover_every_user_once(lengths: list[int]) -> None:
    masks = np.stack(list(slices.by_history(np.array(lengths)).values()))
    assert (masks.sum(axis=0) == 1).all()


def test_slice_scores_and_differences() -> None:
    better = simulated(200, 0.7, 0)[:, None, :]
    worse = simulated(200, 0.7, 0)[:, None, :]
    worse[:100, 0, 0] = np.maximum(worse[:100, 0, 0] - 2, 0)
    masks = {"first": np.arange(200) < 100, "second": np.arange(200) >= 100}
    scored = slices.evaluate(masks, better)
    assert scored["first"][0] == 100
    assert scored["first"][1].f1 == pytest.approx(rates(better[:100].sum(axis=(0, 1)))[2])
    found = slices.differences(masks, ("a", "b"), (better, worse), UserBootstrap(200, 200, 0))
    users, first = found["first"]
    assert users == 100
    assert first.difference == pytest.approx(scored["first"][1].f1 - slices.evaluate(masks, worse)["first"][1].f1)
    assert first.low > 0.2
    assert (found["second"][1].low, found["second"][1].high) == (0.0, 0.0)
