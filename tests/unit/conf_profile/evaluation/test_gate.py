"""The gate's policy, check by check: each one passing and each one failing."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from components.gate.step import judge, run
from conf_profile.config import GateConfig
from conf_profile.errors import DataError
from conf_profile.evaluation.bootstrap import Difference
from conf_profile.evaluation.gate import Candidate, Opponent, SliceDifference, decide
from conf_profile.evaluation.labelled_users import LabelledUsers

POLICY = GateConfig(min_precision=0.4, max_slice_loss=0.05, min_slice_users=50, tolerance=0.0)
CANDIDATE = Candidate("sft_grpo", 0.55, 0.62, 0.4, True, ("precision rises", "levels are balanced"))


def opponent(name: str, difference: float, low: float, high: float, slices=()) -> Opponent:
    found = Difference("sft_grpo", name, "f1", difference, low, high)
    return Opponent(name, CANDIDATE.f1 - difference, found, tuple(slices))


def lost(name: str, users: int, difference: float, low: float, high: float) -> SliceDifference:
    return SliceDifference(name, users, Difference("sft_grpo", "champion", "f1", difference, low, high))


BASE = opponent("base", 0.5, 0.45, 0.55)
CONSTANT = opponent("majority_tag", 0.2, 0.15, 0.25)
SFT = opponent("sft", 0.01, -0.01, 0.03)
CHAMPION = opponent("champion", 0.03, 0.01, 0.05)


def checks(decision) -> dict[str, bool]:
    return {reason.name: reason.passed for reason in decision.reasons}


def test_first_model_is_promoted_and_every_check_is_reported() -> None:
    decision = decide(CANDIDATE, None, SFT, BASE, CONSTANT, POLICY)
    assert decision.decision == "promote"
    assert checks(decision) == {
        "better_than_base": True,
        "not_below_constant": True,
        "not_below_sft": True,
        "precision_at_thresholds": True,
        "hierarchy": True,
    }


def test_better_model_replaces_the_champion() -> None:
    decision = decide(CANDIDATE, CHAMPION, SFT, BASE, CONSTANT, POLICY)
    assert decision.decision == "promote"
    assert list(checks(decision)) == [
        "better_than_base",
        "not_below_constant",
        "better_than_champion",
        "precision_at_thresholds",
        "hierarchy",
        "slices",
    ]


def failing(decision) -> str:
    """The message of the one check that failed; the decision must be a rejection."""
    failed = [reason for reason in decision.reasons if not reason.passed]
    assert decision.decision == "reject"
    assert len(failed) == 1
    return f"{failed[0].name}: {failed[0].message}"


def test_not_clearly_better_than_base_is_rejected() -> None:
    message = failing(decide(CANDIDATE, None, SFT, opponent("base", 0.02, -0.01, 0.05), CONSTANT, POLICY))
    assert message == (
        "better_than_base: F1 of sft_grpo is 0.550, of base 0.530: the paired difference is +2.0 points, "
        "95% interval -1.0 to +5.0 (wanted: the interval above zero)"
    )


@pytest.mark.parametrize(
    ("difference", "low", "high", "tolerance", "passes"),
    [
        (0.03, 0.01, 0.05, 0.0, True),
        (0.03, -0.01, 0.07, 0.0, False),
        (0.03, -0.01, 0.07, 0.02, True),
        (-0.001, -0.01, 0.01, 0.02, False),
        (0.0, 0.0, 0.0, 0.0, False),
    ],
)
def test_against_a_champion_the_gain_must_be_shown(difference, low, high, tolerance, passes) -> None:
    champion = opponent("champion", difference, low, high)
    decision = decide(CANDIDATE, champion, None, BASE, CONSTANT, POLICY.model_copy(update={"tolerance": tolerance}))
    assert checks(decision)["better_than_champion"] is passes
    assert (decision.decision == "promote") is passes


@pytest.mark.parametrize(
    ("difference", "low", "high", "tolerance", "passes"),
    [
        (0.01, -0.01, 0.03, 0.0, True),
        (-0.01, -0.03, 0.01, 0.0, True),
        (-0.03, -0.05, -0.01, 0.0, False),
        (-0.03, -0.05, -0.01, 0.02, True),
    ],
)
def test_without_a_champion_sft_must_not_be_clearly_better(difference, low, high, tolerance, passes) -> None:
    sft = opponent("sft", difference, low, high)
    decision = decide(CANDIDATE, None, sft, BASE, CONSTANT, POLICY.model_copy(update={"tolerance": tolerance}))
    assert checks(decision)["not_below_sft"] is passes
    assert (decision.decision == "promote") is passes


def test_sft_itself_has_no_sft_check() -> None:
    assert "not_below_sft" not in checks(decide(CANDIDATE, None, None, BASE, CONSTANT, POLICY))


def test_precision_below_the_floor_is_rejected() -> None:
    message = failing(decide(replace(CANDIDATE, threshold_precision=0.39), None, SFT, BASE, CONSTANT, POLICY))
    assert message == (
        "precision_at_thresholds: precision at the default thresholds is 0.390 on 40% of the labelled cells; "
        "the floor is 0.400"
    )


@pytest.mark.parametrize(
    ("difference", "tolerance", "required", "promoted"),
    [
        ((-0.06, -0.09, -0.03), 0.0, True, False),
        ((-0.06, -0.09, -0.03), 0.0, False, True),
        ((-0.06, -0.09, -0.03), 0.05, True, True),
        ((-0.02, -0.05, 0.01), 0.0, True, True),
    ],
)
def test_clearly_below_the_constant_answer_is_rejected(difference, tolerance, required, promoted) -> None:
    policy = POLICY.model_copy(update={"tolerance": tolerance, "require_constant": required})
    decision = decide(CANDIDATE, None, SFT, BASE, opponent("majority_tag", *difference), policy)
    assert (decision.decision == "promote") == promoted == checks(decision)["not_below_constant"]
    (reason,) = (reason for reason in decision.reasons if reason.name == "not_below_constant")
    assert "the most frequent tag, always" in reason.message
    assert reason.message.endswith("not required by the policy)") != required


def test_it_is_told_on_how_many_labelled_users_the_others_stand() -> None:
    few = replace(CANDIDATE, users=LabelledUsers(75, 3, {"age": 3, "gender": 1}))
    decision = decide(few, None, SFT, BASE, CONSTANT, POLICY)
    assert decision.reasons[0].message == (
        "measured on 3 of the 75 test users (age 3, gender 1), those who have true labels"
    )
    assert decision.decision == "promote" and decision.to_dict()["judged"]


def test_an_unjudged_champion_is_not_the_measure_and_it_is_said() -> None:
    decision = decide(CANDIDATE, None, SFT, BASE, CONSTANT, POLICY, unjudged_champion="v3")
    assert checks(decision)["unjudged_champion"] and checks(decision)["not_below_sft"]
    told = {reason.name: reason.message for reason in decision.reasons}
    assert "the champion v3 is unjudged" in told["unjudged_champion"]
    assert "compared with the baselines alone" in told["unjudged_champion"]
    assert "no judged champion yet" in told["not_below_sft"]


def test_accepting_nothing_is_rejected_whatever_the_floor() -> None:
    silent = replace(CANDIDATE, threshold_precision=0.0, threshold_coverage=0.0)
    policy = POLICY.model_copy(update={"min_precision": 0.0})
    assert "no labelled answer" in failing(decide(silent, None, SFT, BASE, CONSTANT, policy))


def test_broken_hierarchy_is_rejected_unless_the_policy_only_reports_it() -> None:
    hacked = replace(CANDIDATE, hierarchy_passed=False, hierarchy_reasons=("flat: precision rises by 0.1",))
    message = failing(decide(hacked, None, SFT, BASE, CONSTANT, POLICY))
    assert message == "hierarchy: confidence hierarchy of sft_grpo: flat: precision rises by 0.1"
    lenient = POLICY.model_copy(update={"require_hierarchy": False})
    assert decide(hacked, None, SFT, BASE, CONSTANT, lenient).decision == "promote"


def test_slice_that_loses_beyond_margin_and_chance_is_rejected() -> None:
    champion = replace(CHAMPION, slices=(lost("region: north", 80, -0.1, -0.15, -0.05),))
    message = failing(decide(CANDIDATE, champion, None, BASE, CONSTANT, POLICY))
    assert message == (
        "slices: against the champion more than 5.0 points of F1 beyond chance is lost by: region: north "
        "(80 users) -10.0 points, 95% interval -15.0 to -5.0"
    )


@pytest.mark.parametrize(
    "harmless",
    [
        lost("too few users", 49, -0.3, -0.4, -0.2),
        lost("within the margin", 80, -0.04, -0.05, -0.03),
        lost("may be chance", 80, -0.07, -0.16, 0.02),
    ],
    ids=lambda item: item.name,
)
def test_harmless_slices_pass(harmless: SliceDifference) -> None:
    champion = replace(CHAMPION, slices=(harmless,))
    assert decide(CANDIDATE, champion, None, BASE, CONSTANT, POLICY).decision == "promote"


def test_all_failures_are_reported_at_once_failed_ones_first() -> None:
    bad = replace(CANDIDATE, threshold_precision=0.1, hierarchy_passed=False)
    content = decide(bad, None, SFT, BASE, CONSTANT, POLICY).to_dict()
    assert content["decision"] == "reject"
    assert [check["passed"] for check in content["checks"]] == [True, True, True, False, False]
    assert [reason.split(":")[0] for reason in content["reasons"]] == ["FAILED", "FAILED", "passed", "passed", "passed"]


limits = st.floats(-0.5, 0.5)


@settings(deadline=None)
@given(st.tuples(limits, limits, limits), st.floats(0, 1), st.booleans(), st.booleans())
def test_promotion_is_exactly_all_checks_passing(spread, precision, hierarchy_passed, with_champion) -> None:
    low, difference, high = sorted(spread)
    rival = opponent("rival", difference, low, high)
    candidate = replace(CANDIDATE, threshold_precision=precision, hierarchy_passed=hierarchy_passed)
    decision = decide(candidate, rival if with_champion else None, rival, BASE, CONSTANT, POLICY)
    assert (decision.decision == "promote") == all(reason.passed for reason in decision.reasons)


@settings(deadline=None)
@given(st.tuples(limits, limits, limits), st.floats(0, 0.2))
def test_a_larger_tolerance_never_rejects_what_a_smaller_one_promoted(spread, tolerance) -> None:
    low, difference, high = sorted(spread)
    champion = opponent("champion", difference, low, high)
    wider = POLICY.model_copy(update={"tolerance": tolerance})
    if decide(CANDIDATE, champion, None, BASE, CONSTANT, POLICY).decision == "promote":
        assert decide(CANDIDATE, champion, None, BASE, CONSTANT, wider).decision == "promote"


def evaluation(**changes) -> dict:
    """What the gate reads of evaluation.json."""
    paired = [
        {"better": "sft_grpo", "worse": worse, "metric": "f1", "difference": d, "low": low, "high": high}
        for worse, d, low, high in (
            ("base", 0.5, 0.45, 0.55),
            ("majority_tag", 0.2, 0.15, 0.25),
            ("sft", 0.01, -0.01, 0.03),
            ("champion", 0.03, 0.01, 0.05),
        )
    ]
    arms = {"base": {"f1": 0.05}, "majority_tag": {"f1": 0.35}, "sft": {"f1": 0.54}, "sft_grpo": {"f1": 0.55}}
    content = {
        "candidate": "sft_grpo",
        "arms": arms,
        "paired": paired,
        "at_thresholds": {"precision": 0.62, "coverage": 0.4},
        "hierarchy": {"sft_grpo": {"passed": True, "reasons": ["precision rises"]}},
        "slice_differences": [],
    }
    return content | changes


def test_step_without_champion_compares_with_sft(tmp_path) -> None:
    source, target = tmp_path / "evaluation.json", tmp_path / "gate.json"
    source.write_text(json.dumps(evaluation()))
    result = run(source, target, POLICY)
    assert json.loads(target.read_text()) == result
    assert result["decision"] == "promote"
    assert "not_below_sft" in [check["name"] for check in result["checks"]]


def test_step_with_champion_judges_slices() -> None:
    worse = {
        "slice": "region: north", "users": 60, "better": "sft_grpo", "worse": "champion",
        "metric": "f1", "difference": -0.2, "low": -0.3, "high": -0.1,
    }  # fmt: skip
    arms = evaluation()["arms"] | {"champion": {"f1": 0.52}}
    decision = judge(evaluation(arms=arms, slice_differences=[worse]), POLICY)
    assert decision.decision == "reject"
    assert checks(decision)["better_than_champion"] and not checks(decision)["slices"]


def test_step_with_an_unjudged_champion_compares_with_sft() -> None:
    arms = evaluation()["arms"] | {"champion": {"f1": 0.9}}
    given = evaluation(
        arms=arms, compared_with="v3", champion_judged=False, users={"test": 40}, labelled_test_users=30,
        labelled_test_users_by_attribute={"age": 30},
    )  # fmt: skip
    assert list(checks(judge(given, POLICY))) == [
        "labelled_users", "better_than_base", "not_below_constant", "unjudged_champion", "not_below_sft",
        "precision_at_thresholds", "hierarchy",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"arms": {"sft": {"f1": 0.5}, "sft_grpo": {"f1": 0.5}}}, "the base model was not evaluated"),
        ({"arms": {"base": {"f1": 0.1}, "sft_grpo": {"f1": 0.5}}}, "the constant answer was not evaluated"),
        ({"paired": []}, "the paired difference sft_grpo - base"),
        ({"hierarchy": {}}, "'sft_grpo' is missing"),
    ],
)
def test_step_says_what_the_evaluation_lacks(changes, message) -> None:
    with pytest.raises(DataError, match=message):
        judge(evaluation(**changes), POLICY)


def test_step_refuses_a_file_that_is_not_json(tmp_path) -> None:
    source = tmp_path / "evaluation.json"
    with pytest.raises(DataError, match="cannot be read"):
        run(source, tmp_path / "gate.json", POLICY)
    source.write_text("{")
    with pytest.raises(DataError, match="not valid JSON"):
        run(source, tmp_path / "gate.json", POLICY)
    assert not (tmp_path / "gate.json").exists()
