"""Metrics over cells: literals in, literals out, and the laws that hold for any cells."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from conf_profile.errors import DataError
from conf_profile.evaluation import calibration_error, metrics
from conf_profile.evaluation.bootstrap import UserBootstrap
from conf_profile.evaluation.hierarchy import hierarchy, level_balance
from conf_profile.evaluation.metrics import Cells

ATTRIBUTES = ("age", "gender")


def make(prediction, level, truth, score=None) -> Cells:
    prediction = np.asarray(prediction)
    score = np.full(prediction.shape, np.nan) if score is None else np.asarray(score, dtype=float)
    return Cells(prediction, np.asarray(level), score, np.asarray(truth))


# Four users. Age: right, wrong, abstained, unlabelled. Gender: right, right, wrong, abstained.
FOUR = make(
    prediction=[[0, 1], [2, 0], [-1, 1], [1, -1]],
    level=[[5, 4], [2, 1], [0, 3], [4, 0]],
    truth=[[0, 1], [1, 0], [2, 0], [-1, 1]],
)


@st.composite
def any_cells(draw) -> Cells:
    shape = (draw(st.integers(1, 12)), draw(st.integers(1, 3)))
    prediction = draw(arrays.arrays(np.int64, shape, elements=st.integers(-1, 2)))
    truth = draw(arrays.arrays(np.int64, shape, elements=st.integers(-1, 2)))
    level = draw(arrays.arrays(np.int64, shape, elements=st.integers(1, 5)))
    score = draw(arrays.arrays(np.float64, shape, elements=st.floats(0, 1)))
    return Cells(prediction, np.where(prediction == -1, 0, level), score, truth)


def test_micro_counts_answered_for_precision_and_labelled_for_recall() -> None:
    found = metrics.micro(FOUR)
    # 3 right of 5 answered of 7 labelled.
    assert found.precision == pytest.approx(3 / 5)
    assert found.recall == pytest.approx(3 / 7)
    assert found.f1 == pytest.approx(2 * (3 / 5) * (3 / 7) / (3 / 5 + 3 / 7))
    assert found.coverage == pytest.approx(5 / 7)
    assert found.support == 7


def test_per_attribute_figures() -> None:
    age, gender = metrics.per_attribute(FOUR)
    assert (age.precision, age.recall, age.support) == (pytest.approx(1 / 2), pytest.approx(1 / 3), 3)
    assert (gender.precision, gender.recall, gender.support) == (
        pytest.approx(2 / 3),
        pytest.approx(2 / 4),
        4,
    )


def test_nothing_answered_and_nothing_labelled_are_zero_not_nan() -> None:
    silent = make([[-1]], [[0]], [[1]])
    assert metrics.micro(silent) == metrics.Scores(0.0, 0.0, 0.0, 0.0, 1)
    unlabelled = make([[1]], [[3]], [[-1]])
    assert metrics.micro(unlabelled) == metrics.Scores(0.0, 0.0, 0.0, 0.0, 0)


def test_sweep_answers_only_cells_at_or_above_tau() -> None:
    by_tau = {point.tau: point.scores for point in metrics.sweep(FOUR)}
    assert [by_tau[tau].coverage for tau in (1, 2, 3, 4, 5)] == pytest.approx([5 / 7, 4 / 7, 3 / 7, 2 / 7, 1 / 7])
    assert [by_tau[tau].precision for tau in (1, 2, 3, 4, 5)] == pytest.approx([3 / 5, 2 / 4, 2 / 3, 1.0, 1.0])


def test_level_counts_need_no_label() -> None:
    assert metrics.level_counts(FOUR) == (1, 1, 1, 2, 1)


def test_confusion_has_a_column_for_no_answer() -> None:
    prediction, truth = np.array([0, 1, -1, 1, 0]), np.array([0, 0, 1, 1, -1])
    assert metrics.confusion(prediction, truth, 2).tolist() == [[1, 1, 0], [0, 1, 1]]


def test_majority_tag_is_the_best_constant_answer() -> None:
    truth = np.array([[2, -1], [2, -1], [0, -1], [-1, -1]])
    majority = metrics.majority_tag(truth, [3, 2])
    assert majority.prediction.tolist() == [[2, -1], [2, -1], [2, -1], [2, -1]]
    assert metrics.micro(majority).precision == pytest.approx(2 / 3)
    assert majority.score[0, 0] == pytest.approx(2 / 3)


@settings(deadline=None)
@given(any_cells())
def test_no_constant_answer_beats_the_majority_tag(cells: Cells) -> None:
    majority = metrics.micro(metrics.majority_tag(cells.truth, [3] * cells.truth.shape[1]))
    for tag in range(3):
        constant = make(np.full(cells.truth.shape, tag), np.full(cells.truth.shape, 3), cells.truth)
        assert metrics.micro(constant).f1 <= majority.f1 + 1e-12


@settings(deadline=None)
@given(any_cells())
def test_rates_agree_with_counting_by_hand(cells: Cells) -> None:
    triples = list(zip(cells.prediction.ravel(), cells.truth.ravel(), strict=True))
    labelled = [(p, t) for p, t in triples if t != -1]
    answered = [(p, t) for p, t in labelled if p != -1]
    correct = sum(p == t for p, t in answered)
    found = metrics.micro(cells)
    assert found.precision == pytest.approx(correct / len(answered) if answered else 0)
    assert found.recall == pytest.approx(correct / len(labelled) if labelled else 0)
    assert found.support == len(labelled)


@settings(deadline=None)
@given(any_cells())
def test_recall_and_coverage_never_rise_with_tau(cells: Cells) -> None:
    curve = [point.scores for point in metrics.sweep(cells)]
    for lower, higher in pairwise(curve):
        assert higher.recall <= lower.recall
        assert higher.coverage <= lower.coverage
    assert curve[0] == metrics.micro(cells)


@settings(deadline=None)
@given(any_cells())
def test_confusion_rows_sum_to_the_labels(cells: Cells) -> None:
    matrix = metrics.confusion(cells.prediction[:, 0], cells.truth[:, 0], 3)
    assert matrix.sum(axis=1).tolist() == [int((cells.truth[:, 0] == tag).sum()) for tag in range(3)]
    assert np.trace(matrix) == cells.correct[:, 0].sum()


@pytest.mark.parametrize(
    ("level", "score", "message"),
    [([[6]], [[0.5]], "levels must be 0-5"), ([[3]], [[1.5]], r"scores must lie in \[0, 1\]")],
)
def test_cells_refuse_impossible_values(level, score, message) -> None:
    with pytest.raises(DataError, match=message):
        make([[0]], level, [[0]], score)


def test_cells_refuse_arrays_of_different_shapes() -> None:
    with pytest.raises(DataError, match="one shape"):
        make([[0, 1]], [[3]], [[0, 1]])


def levelled(precision_by_level: dict[int, tuple[int, int]]) -> Cells:
    """One attribute; for each level so many right answers of so many."""
    prediction, level, truth = [], [], []
    for stated, (right, total) in precision_by_level.items():
        prediction += [[0]] * total
        level += [[stated]] * total
        truth += [[0]] * right + [[1]] * (total - right)
    return make(prediction, level, truth)


def test_default_threshold_is_the_lowest_level_that_reaches_the_target() -> None:
    cells = levelled({1: (10, 50), 2: (25, 50), 3: (35, 50), 4: (40, 50), 5: (45, 50)})
    # Precision at tau: 0.62, 0.725, 0.80, 0.85, 0.90.
    assert metrics.default_thresholds(cells, ["age"], 0.6) == {"age": 1}
    assert metrics.default_thresholds(cells, ["age"], 0.7) == {"age": 2}
    assert metrics.default_thresholds(cells, ["age"], 0.81) == {"age": 4}


def test_default_threshold_falls_back_to_the_best_precision() -> None:
    cells = levelled({1: (10, 50), 2: (25, 50), 3: (45, 50), 4: (30, 50), 5: (30, 50)})
    # Precision at tau: 0.56, 0.65, 0.70, 0.60, 0.60; nothing reaches 0.95.
    assert metrics.default_thresholds(cells, ["age"], 0.95) == {"age": 3}


def test_default_threshold_is_not_led_by_a_few_lucky_cells() -> None:
    cells = levelled({1: (30, 60), 5: (3, 3)})
    assert metrics.default_thresholds(cells, ["age"], 0.9) == {"age": 1}
    assert metrics.default_thresholds(cells, ["age"], 0.9, minimum_answered=3) == {"age": 2}


def test_default_threshold_without_any_label_accepts_only_the_surest() -> None:
    assert metrics.default_thresholds(make([[0]], [[2]], [[-1]]), ["age"], 0.5) == {"age": 5}


def test_reliability_error_and_brier_by_hand() -> None:
    cells = make([[0], [0], [0], [0]], [[3]] * 4, [[0], [1], [0], [0]], [[0.25], [0.25], [1.0], [1.0]])
    bins = calibration_error.reliability(cells)
    assert [(b.score, b.accuracy, b.count) for b in bins] == [(0.25, 0.5, 2), (1.0, 1.0, 2)]
    assert calibration_error.expected_calibration_error(bins) == pytest.approx(0.125)
    assert calibration_error.brier(cells) == pytest.approx((0.75**2 + 0.25**2) / 4)


def test_calibration_error_without_scores_is_none() -> None:
    bins = calibration_error.reliability(FOUR)
    assert bins == ()
    assert calibration_error.expected_calibration_error(bins) is None
    assert calibration_error.brier(FOUR) is None


@settings(deadline=None)
@given(any_cells())
def test_calibration_error_lies_between_zero_and_one(cells: Cells) -> None:
    error = calibration_error.expected_calibration_error(calibration_error.reliability(cells))
    assert error is None or 0 <= error <= 1


def checked(cells: Cells):
    return hierarchy(cells, UserBootstrap(len(cells.truth), 200, seed=0))


def test_hierarchy_passes_when_precision_rises_and_levels_are_balanced() -> None:
    found = checked(levelled({1: (40, 100), 2: (50, 100), 3: (60, 100), 4: (70, 100), 5: (80, 100)}))
    assert found.slope == pytest.approx(0.1)
    assert found.slope_low < 0.1 < found.slope_high
    assert (found.top_share, found.mean_level) == (pytest.approx(0.2), pytest.approx(3.0))
    assert (found.passed, found.flat, found.inflated) == (True, False, False)


def test_hierarchy_flags_flat_precision() -> None:
    found = checked(levelled(dict.fromkeys(range(1, 6), (60, 100))))
    assert found.slope == pytest.approx(0.0, abs=1e-9)
    assert (found.passed, found.flat, found.inflated) == (False, True, False)
    assert found.reasons[0].startswith("flat: ")


def test_hierarchy_flags_falling_precision_and_constant_levels() -> None:
    assert checked(levelled({1: (90, 100), 5: (30, 100)})).flat
    constant = checked(levelled({3: (60, 100)}))
    assert constant.flat
    assert constant.slope == 0.0


def test_hierarchy_flags_inflated_levels() -> None:
    found = checked(levelled({1: (10, 50), 3: (30, 50), 5: (280, 300)}))
    assert found.top_share == pytest.approx(0.75)
    assert (found.passed, found.flat, found.inflated) == (False, False, True)
    assert found.reasons[1].startswith("inflated: 75%")


def test_hierarchy_is_not_fooled_by_an_easy_and_a_hard_attribute() -> None:
    """Within each attribute precision is flat; only pooling them would look like a rise."""
    easy = levelled({4: (90, 100), 5: (90, 100)})
    hard = levelled({1: (20, 100), 2: (20, 100)})
    both = [np.hstack([getattr(easy, n), getattr(hard, n)]) for n in ("prediction", "level", "score", "truth")]
    found = checked(Cells(*both))
    assert found.slope == pytest.approx(0.0, abs=1e-9)
    assert found.flat


@settings(deadline=None)
@given(any_cells())
def test_slope_of_one_attribute_is_the_least_squares_slope(cells: Cells) -> None:
    one = Cells(cells.prediction[:, :1], cells.level[:, :1], cells.score[:, :1], cells.truth[:, :1])
    level, correct = one.level[one.answered], one.correct[one.answered]
    found = hierarchy(one, UserBootstrap(len(one.truth), 10, seed=0)).slope
    expected = np.polyfit(level, correct, 1)[0] if len(set(level.tolist())) > 1 else 0.0
    assert found == pytest.approx(expected, abs=1e-9)


def test_level_balance() -> None:
    assert level_balance([1, 0, 0, 0, 1]) == (0.5, 3.0)
    assert level_balance([0, 0, 0, 0, 0]) == (0.0, 0.0)
