"""The gate without labels: refused unless it is allowed by name, and what an allowed candidate must show."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from components.gate.step import judge, run
from conf_profile.config import GateConfig, RunConfig, resolve
from conf_profile.errors import ConfigError, DataError
from conf_profile.evaluation.unjudged.gate import (
    ReplacedChampion,
    UnjudgedCandidate,
    VoteAgreement,
    check_levels,
    decide,
)

LEVELS = {"age": (10, 10, 10, 10, 10), "gender": (0, 0, 0, 0, 50)}
AGREEMENT = VoteAgreement("teacher_em", 0.8, 0.75, 0.85, 0.4)
CANDIDATE = UnjudgedCandidate("sft_grpo", 100, LEVELS, 0.3, 3.2, AGREEMENT)
ALLOW = GateConfig(unjudged="allow", unjudged_levels={"age": 4})


def checks(decision) -> dict[str, bool]:
    return {reason.name: reason.passed for reason in decision.reasons}


def message(decision, name: str) -> str:
    return next(reason.message for reason in decision.reasons if reason.name == name)


def test_the_default_refuses_and_says_how_to_allow_it() -> None:
    decision = decide(CANDIDATE, None, GateConfig())
    assert (decision.decision, decision.judged, decision.thresholds) == ("reject", False, None)
    assert checks(decision) == {"unjudged": False, "agreement": True, "levels": True}
    reason = message(decision, "unjudged")
    assert reason.startswith("unjudged: there are no true labels")
    for part in ("labels.parquet", "--set gate.unjudged=allow", "--set gate.unjudged_levels.ATTRIBUTE=LEVEL"):
        assert part in reason


def test_what_the_reason_says_is_a_configuration() -> None:
    given = resolve(overrides=["gate.unjudged=allow", "gate.unjudged_levels.age=4"]).gate
    assert (given.unjudged, given.unjudged_levels) == ("allow", {"age": 4})


def test_allowed_by_name_it_passes_with_the_given_levels_and_never_accepts_the_others() -> None:
    decision = decide(CANDIDATE, None, ALLOW)
    assert decision.decision == "promote" and not decision.judged
    assert decision.thresholds == {"age": 4, "gender": None}
    assert message(decision, "accepted_at_levels") == (
        "at the given levels (age 4) 20% of the test users' cells are accepted; never accepted, since "
        "gate.unjudged_levels names no level: gender"
    )
    assert decision.to_dict()["thresholds"] == {"age": 4, "gender": None}


@pytest.mark.parametrize("judged", [True, False])
def test_a_champion_is_replaced_only_where_that_is_allowed_and_it_is_told(judged: bool) -> None:
    champion = ReplacedChampion("v1", judged)
    refused, allowed = decide(CANDIDATE, champion, GateConfig()), decide(CANDIDATE, champion, ALLOW)
    assert (refused.decision, allowed.decision) == ("reject", "promote")
    assert not checks(refused)["replaces_champion"] and checks(allowed)["replaces_champion"]
    state = "judged" if judged else "unjudged"
    assert message(allowed, "replaces_champion") == (
        f"it has not been shown to be better than the champion v1, which is {state}"
    )


@pytest.mark.parametrize(
    ("changes", "failing"),
    [
        ({"levels": {"age": (50, 0, 0, 0, 0), "gender": (0, 0, 0, 0, 50)}}, "accepted_at_levels"),
        ({"agreement": replace(AGREEMENT, share=0.45, low=0.39)}, "agreement"),
        ({"top_share": 0.6}, "levels"),
        ({"mean_level": 4.2}, "levels"),
    ],
)
def test_an_allowed_candidate_that_says_nothing_learned_nothing_or_inflates_is_rejected(changes, failing) -> None:
    decision = decide(replace(CANDIDATE, **changes), None, ALLOW)
    assert decision.decision == "reject"
    assert [name for name, passed in checks(decision).items() if not passed] == [failing]


def test_inflated_levels_may_be_reported_only_as_with_labels() -> None:
    lenient = ALLOW.model_copy(update={"require_hierarchy": False})
    assert decide(replace(CANDIDATE, top_share=0.9), None, lenient).decision == "promote"


def test_a_teacher_that_was_not_asked_about_these_users_is_no_hindrance() -> None:
    decision = decide(replace(CANDIDATE, agreement=None), None, ALLOW)
    assert decision.decision == "promote" and "not compared" in message(decision, "agreement")


def test_levels_of_unknown_attributes_are_an_error_that_names_the_taxonomys() -> None:
    strange = GateConfig(unjudged_levels={"agee": 4, "age": 2})
    with pytest.raises(ConfigError, match=r"names 'agee', which the taxonomy does not have; it has age, gender$"):
        decide(CANDIDATE, None, strange)
    check_levels(ALLOW, ["age", "gender"])


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["gate.unjudged=allow"], "needs gate.unjudged_levels"),
        (["gate.unjudged=maybe"], "gate.unjudged"),
        (["gate.unjudged_levels.age=6"], "gate.unjudged_levels.age"),
        (["gate.unjudged_levels.age=0"], "gate.unjudged_levels.age"),
    ],
)
def test_a_configuration_that_cannot_be_meant_is_refused_at_once(overrides, words) -> None:
    with pytest.raises(ConfigError, match=words):
        resolve(overrides=overrides)
    assert RunConfig().gate.unjudged == "refuse"


def evaluation(**changes) -> dict:
    """What the gate reads of an evaluation without labels."""

    def agreement(first: str, second: str, share: float) -> dict:
        return {"first": first, "second": second, "share": share, "low": share - 0.1, "high": 1.0, "by_chance": 0.4}

    per_attribute = {name: {"level_counts": list(counts)} for name, counts in LEVELS.items()}
    content = {
        "judged": False,
        "candidate": "sft_grpo",
        "compared_with": "",
        "champion_judged": True,
        "answers": {
            "sft_grpo": {"cells": 100, "top_share": 0.3, "mean_level": 3.2, "per_attribute": per_attribute},
        },
        "agreement": [
            agreement("sft", "teacher_majority", 0.99),
            agreement("sft_grpo", "teacher_majority", 0.7),
            agreement("sft_grpo", "teacher_em", 0.8),
            agreement("sft_grpo", "sft", 0.95),
        ],
    }
    return content | changes


def test_the_step_judges_the_candidate_by_the_vote_that_it_agrees_with_most(tmp_path) -> None:
    source, target = tmp_path / "evaluation.json", tmp_path / "gate.json"
    source.write_text(json.dumps(evaluation()))
    result = run(source, target, ALLOW)
    assert json.loads(target.read_text()) == result
    assert (result["decision"], result["judged"]) == ("promote", False)
    assert "names the tag of teacher_em in 80.0% of what both answer" in " ".join(result["reasons"])
    assert "replaces_champion" not in [check["name"] for check in result["checks"]]


def test_the_step_knows_whether_the_champion_was_judged() -> None:
    decision = judge(evaluation(compared_with="v3", champion_judged=False), ALLOW)
    assert message(decision, "replaces_champion").endswith("the champion v3, which is unjudged")


def test_the_step_says_what_the_evaluation_lacks() -> None:
    with pytest.raises(DataError, match="'sft_grpo' is missing; run the evaluation step again"):
        judge(evaluation(answers={}), ALLOW)
