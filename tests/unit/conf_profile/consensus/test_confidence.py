"""Calibration by partition: balanced, monotone, the same from a histogram, and safe on disk."""

from itertools import combinations_with_replacement

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from conf_profile.consensus import confidence
from conf_profile.consensus.confidence import Calibration, Partition, apply, balance, fit, fit_histograms, load, save
from conf_profile.errors import DataError


def levels_of(scores, values=None):
    """Fits on `scores`, applies to `values`."""
    fitted = fit({"age": np.array(scores)}, "vote")
    return apply(fitted, "age", np.array(scores if values is None else values)).tolist()


def test_distinct_scores_are_cut_into_fifths():
    scores = np.arange(100) / 100
    assert np.bincount(levels_of(scores)).tolist() == [0, 20, 20, 20, 20, 20]


def test_ties_stay_together_and_the_rest_is_as_even_as_it_can_be():
    scores = [0.9] * 10 + [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8]
    assert levels_of(scores) == [5] * 10 + [1, 1, 2, 2, 3, 3, 4, 4]


@pytest.mark.parametrize(
    ("scores", "levels"),
    [
        ([0.6], [3]),
        ([0.3, 0.9], [2, 4]),
        ([0.1, 0.2, 0.3], [1, 3, 5]),
        ([0.1, 0.2, 0.3, 0.4], [1, 2, 4, 5]),
        ([0.1, 0.2, 0.3, 0.4, 0.5], [1, 2, 3, 4, 5]),
        ([0.0, 1.0], [2, 4]),
    ],
)
def test_fewer_than_five_scores_skip_levels(scores, levels):
    assert levels_of(scores) == levels


def test_a_skipped_level_is_given_to_nobody_later():
    assert levels_of([0.3, 0.9], values=[0.0, 0.59, 0.61, 1.0]) == [2, 2, 4, 4]


def test_no_scores_at_all_give_even_boundaries():
    assert fit({"age": np.array([])}, "vote").partitions["age"].boundaries == (0.2, 0.4, 0.6, 0.8)


def test_boundaries_lie_between_scores_so_that_rounding_changes_nothing():
    assert levels_of([0.1, 0.2, 0.3, 0.4, 0.5], values=[0.1 + 1e-12, 0.2 - 1e-12, 0.3]) == [1, 2, 3]


def test_neighbouring_floats_are_still_told_apart():
    scores = [0.5, float(np.nextafter(0.5, 1))]
    assert levels_of(scores) == [2, 4]


def test_apply_keeps_the_shape_and_returns_int8():
    fitted = fit({"age": np.arange(5) / 5}, "vote")
    levels = apply(fitted, "age", np.array([[0.0, 0.2], [0.8, 0.4]]))
    assert (levels.dtype, levels.tolist()) == (np.int8, [[1, 2], [5, 3]])
    assert apply(fitted, "age", np.array([])).tolist() == []


@pytest.mark.parametrize(("levels", "expected"), [([1, 2, 3, 4, 5], 0.0), ([5, 5], 0.8), ([], 0.0), ([1, 5], 0.3)])
def test_balance(levels, expected):
    assert balance(np.array(levels, dtype=np.int8)) == pytest.approx(expected)


def test_thousands_of_distinct_scores_with_one_large_tie():
    scores = np.concatenate([np.random.default_rng(0).random(60_000), np.full(40_000, 0.5)])
    shares = np.bincount(levels_of(scores), minlength=6)[1:] / len(scores)
    # The tie and nothing else is one level; the others share the remaining 60%.
    assert shares == pytest.approx([0.15, 0.15, 0.4, 0.15, 0.15], abs=0.005)


def test_wrong_arguments_are_named():
    fitted = fit({"age": np.array([0.5])}, "vote")
    with pytest.raises(DataError, match="attribute 'gender' has no calibration; it was fitted for: age"):
        apply(fitted, "gender", np.array([0.5]))
    with pytest.raises(DataError, match="attribute 'age': a score is NaN"):
        apply(fitted, "age", np.array([np.nan]))
    with pytest.raises(DataError, match="scores must be finite"):
        fit({"age": np.array([0.1, np.nan])}, "vote")
    with pytest.raises(DataError, match="kind 'guess' does not exist; it is one of teacher-vote, greedy, vote"):
        fit({"age": np.array([0.5])}, "guess")
    with pytest.raises(DataError, match="four ascending finite numbers"):
        Partition((0.1, 0.5, 0.4, 0.9))


def test_saved_and_loaded_it_is_the_same(tmp_path):
    fitted = fit({"age": np.array([0.1, 0.7]), "gender": np.array([])}, "greedy")
    save(fitted, tmp_path / "calibration.json")
    assert load(tmp_path / "calibration.json") == fitted
    assert load(tmp_path / "calibration.json", "greedy") == fitted


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not valid JSON"),
        ("[]", "expected {kind, boundaries"),
        ('{"kind": "vote"}', "expected {kind, boundaries"),
        ('{"kind": "no", "boundaries": {}}', "kind 'no' does not exist"),
        ('{"kind": "vote", "boundaries": {"age": [0.1, 0.2, 0.3]}}', "'age' needs four numbers"),
        ('{"kind": "vote", "boundaries": {"age": [0.1, 0.2, 0.3, "4"]}}', "'age' needs four numbers"),
        ('{"kind": "vote", "boundaries": {"age": [0.1, 0.2, 0.3, true]}}', "'age' needs four numbers"),
        ('{"kind": "vote", "boundaries": {"age": [0.4, 0.2, 0.3, 0.5]}}', "'age': boundaries must be four ascending"),
        ('{"kind": "vote", "boundaries": {"age": [0.1, 0.2, 0.3, NaN]}}', "'age': boundaries must be four ascending"),
    ],
)
def test_a_damaged_file_is_refused_by_name(tmp_path, text, message):
    path = tmp_path / "calibration.json"
    path.write_text(text)
    with pytest.raises(DataError, match=rf"calibration\.json: .*{message}"):
        load(path)


def test_a_calibration_for_another_decoding_is_refused(tmp_path):
    save(Calibration("greedy", {}), tmp_path / "c.json")
    with pytest.raises(DataError, match="fitted for 'greedy', needed for 'vote'"):
        load(tmp_path / "c.json", "vote")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(DataError, match=r"nothing\.json: cannot read the calibration"):
        load(tmp_path / "nothing.json")


discrete = st.lists(st.integers(0, 50).map(lambda support: support / 50), min_size=1, max_size=80)


@given(discrete, st.lists(st.floats(0, 1), max_size=30))
def test_levels_are_monotone(scores, values):
    levels = levels_of(scores, sorted(values))
    assert levels == sorted(levels)
    assert set(levels) <= {1, 2, 3, 4, 5}


@given(st.lists(st.floats(0, 1), min_size=1, max_size=80) | discrete)
def test_a_histogram_gives_the_same_boundaries_as_the_scores(scores):
    counts = {value: scores.count(value) for value in reversed(scores)}
    assert fit_histograms({"age": counts}, "vote") == fit({"age": np.array(scores)}, "vote")


@given(st.lists(st.integers(0, 7).map(lambda value: value / 8), min_size=1, max_size=40))
def test_no_other_cuts_are_more_balanced(scores):
    def deviation(levels):
        return ((np.bincount(levels, minlength=6)[1:] / len(scores) - 0.2) ** 2).sum()

    cuts = [-1.0, *sorted(set(scores)), 2.0]
    best = min(
        deviation(1 + np.searchsorted(np.array(chosen), scores, side="right"))
        for chosen in combinations_with_replacement(cuts, 4)
    )
    assert deviation(levels_of(scores)) == pytest.approx(best, abs=1e-7)


def test_level_counts():
    assert confidence.level_counts(np.array([1, 5, 5])).tolist() == [1, 0, 0, 0, 2]
    with pytest.raises(DataError, match="levels are 1 to 5; got 0 to 3"):
        confidence.level_counts(np.array([0, 3]))
