"""summary.json from the steps' outputs, and the table that the terminal shows."""

from __future__ import annotations

import json

import pytest
from rich.console import Console

from conf_profile.config import resolve
from conf_profile.dialogue.reasons import AnswerForm
from conf_profile.errors import DataError
from conf_profile.evaluation.arms import arm_title
from conf_profile.evaluation.summary import REQUIRED_ARMS, build, render


def arm(f1: float) -> dict:
    attribute = {"precision": f1, "recall": f1, "f1": f1, "f1_ci": [f1, f1], "support": 9}
    scores = {"precision": f1 + 0.1, "recall": f1 - 0.1, "f1": f1, "f1_ci": [f1 - 0.02, f1 + 0.02]}
    return scores | {"per_attribute": {"age": attribute}, "sweep": [], "confusion": {}}


ARMS = {
    "majority_tag": arm(0.25),
    "base": arm(0.1),
    "teacher_single": arm(0.3),
    "sft": arm(0.5),
    "sft_grpo": arm(0.55),
}
LABELLED = {
    "users": {"train": 2000, "test": 590}, "labelled_test_users": 500, "labelled_test_users_by_attribute": {"age": 500},
}  # fmt: skip
GATE = {"decision": "promote", "reasons": ["passed: F1 is higher [bold]than[/bold] base"], "checks": []}
PROMOTED = {"promoted": True, "version": "v7", "uri": "s3://b/models/m/versions/v7"}
REJECTED = {"promoted": False, "version": None, "uri": None}
FEATURES = {"users": 2950, "dropped_without_consent": 50}
SECONDS = {"features": 3.14159, "sft": 60.0, "grpo": 90.0}


def summary(outcome=PROMOTED, arms=None, gate=GATE, labelling=None) -> dict:
    config = resolve("tiny", overrides=["seed=3"])
    evaluation = {"arms": arms or ARMS, **LABELLED}
    return build(config, evaluation, gate, outcome, FEATURES, SECONDS, 1234.56, labelling_report=labelling)


def shown(content: dict) -> str:
    console = Console(width=160, record=True, file=None, quiet=False, force_terminal=False)
    with console.capture() as captured:
        console.print(render(content))
    return captured.get()


def test_summary_has_exactly_the_promised_keys() -> None:
    content = summary()
    assert list(content) == [
        "dataset", "preset", "seed", "users", "dropped_without_consent", "judged", "test_users", "labelled_test_users",
        "labelled_test_users_by_attribute", "answers", "metrics", "gate", "model", "seconds", "peak_rss_mib",
        "warnings",
    ]  # fmt: skip
    assert content["judged"] is True
    assert (content["test_users"], content["labelled_test_users"]) == (590, 500)
    assert content["labelled_test_users_by_attribute"] == {"age": 500}
    assert (content["dataset"], content["preset"], content["seed"]) == ("world", "tiny", 3)
    assert (content["users"], content["dropped_without_consent"]) == (2950, 50)
    assert content["gate"] == {"decision": "promote", "reasons": GATE["reasons"]}
    assert content["model"] == {"version": "v7", "uri": "s3://b/models/m/versions/v7"}
    assert content["seconds"] == {"features": 3.14, "sft": 60.0, "grpo": 90.0}
    assert content["peak_rss_mib"] == 1234.6
    assert json.loads(json.dumps(content)) == content


def test_the_answers_of_the_teacher_are_counted_by_form():
    forms = {AnswerForm.EXACT: 700, AnswerForm.OTHER_FORM: 50}
    reasons = {AnswerForm.OTHER_TAG: 200, AnswerForm.NO_LEVEL: 50}
    content = summary(labelling={"users": 100, "answers": {"forms": forms, "reasons": reasons}})
    counts = {"total": 1000, "well_formed": 750, "malformed": 250}
    assert content["answers"] == {**counts, "forms": forms, "reasons": reasons}
    text = "Teacher: 1,000 answers, 75.0% well-formed (200 a tag outside the task, 50 a level is missing)"
    assert text in shown(content)


def test_a_labelling_report_of_an_earlier_release_has_no_forms():
    content = summary(labelling={"users": 100, "malformed_share": 0.1})
    assert content["answers"] is None and "Teacher:" not in shown(content)


def test_every_required_arm_is_a_key_and_an_absent_one_is_null() -> None:
    metrics = summary()["metrics"]
    assert tuple(metrics)[: len(REQUIRED_ARMS)] == REQUIRED_ARMS
    assert metrics["ceiling"] is None
    assert metrics["majority_tag"]["f1"] == 0.25
    assert metrics["sft"] == {
        "precision": 0.6,
        "recall": 0.4,
        "f1": 0.5,
        "f1_ci": [0.48, 0.52],
        "per_attribute": {"age": {"precision": 0.5, "recall": 0.5, "f1": 0.5, "f1_ci": [0.5, 0.5]}},
    }


def test_rejected_run_has_no_model() -> None:
    rejected = summary(REJECTED, gate={"decision": "reject", "reasons": ["FAILED: flat"]})
    assert rejected["model"] is None
    text = shown(rejected)
    assert "Gate: rejected" in text
    assert "FAILED: flat" in text
    assert "nothing was uploaded" in text


def test_table_shows_arms_in_order_and_reasons_as_they_are() -> None:
    text = shown(summary())
    titles = [arm_title(name) for name in ("majority_tag", "base", "teacher_single", "sft", "sft_grpo")]
    positions = [text.index(f"{title} ") for title in titles]
    assert positions == sorted(positions)
    assert "53.0 to 57.0" in text
    assert "Ceiling" not in text
    assert "2,950 users (50 without consent left out)" in text
    assert "on the true labels of 500 of the 590 test users" in " ".join(text.split())
    # Reasons are text, not markup of the terminal.
    assert "[bold]than[/bold]" in text
    assert "Model: v7 at s3://b/models/m/versions/v7" in text
    assert "Time: 153 s in steps (grpo 90 s, sft 60 s, features 3 s); peak memory 1,235 MiB" in text


def test_unknown_arms_are_shown_under_their_own_name() -> None:
    text = shown(summary(arms=ARMS | {"rejection_sampling": arm(0.52)}))
    assert "rejection_sampling" in text


def test_a_summary_of_an_earlier_release_is_shown_as_it_was() -> None:
    new = ("judged", "test_users", "labelled_test_users", "labelled_test_users_by_attribute")
    text = " ".join(shown({key: value for key, value in summary().items() if key not in new}).split())
    assert "in percent, on the true labels of the test users" in text and "unjudged" not in text


def agreeing(share: float) -> dict:
    return {"cells": 90, "share": share, "low": share - 0.1, "high": share + 0.1, "by_chance": 0.4, "drift_bits": 0.02}


def unjudged(vote: str = "em", pairs=("majority", "em"), outcome=REJECTED, decision: str = "reject") -> dict:
    said = {"answered": 90, "level_counts": [18] * 5, "balance": 0.0}
    evaluation = {
        "judged": False, **LABELLED, "labelled_test_users": 0, "labelled_test_users_by_attribute": {"age": 0},
        "candidate": "sft_grpo",
        "answers": {"sft_grpo": {**said, "cells": 100, "per_attribute": {"age": said}}},
        "agreement": [
            {"first": "sft_grpo", "second": f"teacher_{name}", **agreeing(0.5 + 0.1 * place),
             "per_attribute": {"age": agreeing(0.5 + 0.1 * place)}}
            for place, name in enumerate(pairs)
        ],
        "samples": {"users": 9, "samples": 10, "agreement": {"age": 0.7}},
    }  # fmt: skip
    config = resolve("tiny", overrides=[f"labelling.vote={vote}"])
    gate = {"decision": decision, "reasons": ["FAILED: unjudged: there are no true labels"]}
    return build(config, evaluation, gate, outcome, FEATURES, SECONDS, 1.0)


def test_an_unjudged_run_has_no_metric_and_the_agreement_with_the_vote_that_taught_it() -> None:
    content = unjudged()
    assert (content["judged"], content["labelled_test_users"]) == (False, 0)
    assert set(content["metrics"].values()) == {None}
    known = content["unjudged"]
    assert (known["candidate"], known["vote"]) == ("sft_grpo", "teacher_em")
    assert known["per_attribute"]["age"] == {
        "answered": 0.9, "samples_agree": 0.7, "level_counts": [18] * 5, "balance": 0.0,
        "same_tag": 0.6, "same_tag_ci": [0.5, 0.7], "by_chance": 0.4, "drift_bits": 0.02,
    }  # fmt: skip
    # This one is not among the votes that an evaluation makes.
    assert unjudged("majority_blind")["unjudged"]["vote"] == "teacher_majority"
    assert unjudged(pairs=())["unjudged"]["overall"]["same_tag"] is None


def test_the_table_of_an_unjudged_run_says_so() -> None:
    text = shown(unjudged())
    assert "unjudged: 590 test users without a true label, so nobody knows how often it is right" in " ".join(
        text.split()
    )
    for part in ("Gate: rejected: unjudged", "FAILED: unjudged", "60.0", "50.0 to 70.0", "nothing was uploaded"):
        assert part in text
    promoted = shown(unjudged(outcome=PROMOTED, decision="promote"))
    assert "Gate: promoted: unjudged" in promoted
    assert "Model: v7 at s3://b/models/m/versions/v7, unjudged" in promoted
    assert "–" in shown(unjudged(pairs=()))


def test_missing_input_is_named() -> None:
    with pytest.raises(DataError, match="'uri' is missing"):
        summary({"promoted": True, "version": "v7"})


def test_warnings_of_the_check_are_kept_and_shown() -> None:
    config = resolve("tiny")
    content = build(config, {"arms": ARMS}, GATE, PROMOTED, FEATURES, SECONDS, 1.0, ["6 labelled [bold]test users"])
    assert content["warnings"] == ["6 labelled [bold]test users"]
    assert "Warning: 6 labelled [bold]test users" in shown(content)
    assert "Warning" not in shown({key: value for key, value in content.items() if key != "warnings"})
