"""Agreement of two arms, and what chance would give, on literals."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conf_profile.evaluation.bootstrap import UserBootstrap
from conf_profile.evaluation.labelled_users import LabelledUsers, find_labelled_users, is_judged
from conf_profile.evaluation.metrics import NO_TAG, Cells
from conf_profile.evaluation.unjudged import agreement

NONE = NO_TAG


def cells(*tags, level: int = 3) -> Cells:
    """[users][attributes] of tags; nobody's truth is known."""
    prediction = np.asarray(tags, dtype=np.int64)
    answered = prediction != NO_TAG
    return Cells(
        prediction, np.where(answered, level, 0), np.where(answered, 0.5, np.nan), np.full(prediction.shape, NO_TAG)
    )


def compare(first: Cells, second: Cells, *sizes: int) -> agreement.Comparison:
    return agreement.compare(first, second, sizes, UserBootstrap(len(first.prediction), 100, 0))


def test_cells_that_one_of_them_did_not_answer_do_not_count() -> None:
    found = compare(cells((0, 1), (0, NONE), (1, 0), (NONE, 0)), cells((0, 0), (0, 1), (0, 0), (1, 0)), 2, 2)
    assert (found.overall.cells, found.overall.share) == (6, pytest.approx(4 / 6))
    age, gender = found.per_attribute
    assert (age.cells, age.share) == (3, pytest.approx(2 / 3))
    assert (gender.cells, gender.share) == (3, pytest.approx(2 / 3))


def test_chance_is_what_two_independent_answers_with_these_frequencies_give() -> None:
    (found,) = compare(cells((0,), (0,), (0,), (1,)), cells((0,), (0,), (1,), (1,)), 3).per_attribute
    assert found.by_chance == pytest.approx(0.75 * 0.5 + 0.25 * 0.5)


def test_nothing_in_common_to_answer_is_no_agreement() -> None:
    found = compare(cells((0,), (NONE,)), cells((NONE,), (1,)), 2).overall
    assert (found.cells, found.share, found.low, found.high, found.by_chance) == (0, 0.0, 0.0, 0.0, 0.0)


def test_the_sweep_leaves_out_what_is_below_its_level() -> None:
    first = cells((0,), (1,), (1,), (NONE,))
    first = Cells(first.prediction, np.asarray([[5], [3], [1], [0]]), first.score, first.truth)
    (curve,) = agreement.sweep(first, cells((0,), (0,), (1,), (1,)))
    assert [(point.answered, point.share) for point in curve] == [
        (0.75, pytest.approx(2 / 3)), (0.5, 0.5), (0.5, 0.5), (0.25, 1.0), (0.25, 1.0),
    ]  # fmt: skip


tags = st.lists(st.tuples(st.integers(-1, 2), st.integers(-1, 2)), min_size=1, max_size=30)


@settings(deadline=None)
@given(tags)
def test_agreement_is_symmetric_and_constant_answers_agree_as_chance_says(pairs) -> None:
    first, second = (cells(*[(one[place],) for one in pairs]) for place in (0, 1))
    there, back = compare(first, second, 3).overall, compare(second, first, 3).overall
    assert (there.cells, there.share, there.by_chance) == (back.cells, back.share, pytest.approx(back.by_chance))
    constant = compare(cells(*[(0,)] * len(pairs)), second, 3).overall
    assert constant.share == pytest.approx(constant.by_chance)


def test_labelled_users_are_told_by_attribute_where_these_differ() -> None:
    assert str(LabelledUsers(75, 3, {"age": 3, "gender": 1})) == "3 of the 75 test users (age 3, gender 1)"
    assert str(LabelledUsers(75, 3, {"age": 3, "gender": 3})) == "3 of the 75 test users"
    assert str(LabelledUsers(1200, 1200, {"age": 1200})) == "all 1,200 test users"


def test_an_evaluation_of_an_earlier_release_was_judged_and_did_not_count_its_users() -> None:
    assert is_judged({"arms": {}}) and find_labelled_users({"arms": {}}) is None
    assert not is_judged({"judged": False})
