"""An evaluation without labels: what it says, what it does not, and what its figures are on answers that are known."""

from __future__ import annotations

import json

import pytest

from components.evaluation import kfp_metrics
from conf_profile.errors import DataError
from support.evaluation_world import World

VOTES = ("teacher_majority", "teacher_weighted", "teacher_log_odds", "teacher_em")


@pytest.fixture
def world(tmp_path) -> World:
    return World(tmp_path)


def pair(result, first: str, second: str):
    return next(item for item in result["agreement"] if (item["first"], item["second"]) == (first, second))


def test_it_is_marked_and_holds_no_figure_that_needs_a_label(world: World) -> None:
    predictions = {"base": world.silent("base"), "sft": world.predict("sft", 0.7), "sft_grpo": world.predict("x", 0.8)}
    result = world.score_without_labels(predictions, world.candidates(0.55), compared_with="v1", champion_judged=False)
    assert json.loads((world.folder / "evaluation.json").read_text()) == result
    assert list(result) == [
        "judged", "users", "labelled_test_users", "labelled_test_users_by_attribute", "candidate", "compared_with",
        "champion_judged", "answers", "agreement", "samples", "smoke",
    ]  # fmt: skip
    assert (result["judged"], result["labelled_test_users"], result["candidate"]) == (False, 0, "sft_grpo")
    assert (result["compared_with"], result["champion_judged"]) == ("v1", False)
    assert list(result["answers"]) == ["base", "teacher_single", *VOTES, "sft", "sft_grpo"]


def test_the_same_answers_with_other_truths_give_the_same_evaluation(world: World) -> None:
    predictions, candidates = {"sft": world.predict("sft", 0.7)}, world.candidates(0.6)
    before = world.score_without_labels(predictions, candidates)
    world.write_labels(dict.fromkeys(world.truth, 0))
    assert world.score_without_labels(predictions, candidates) == before


def test_answers_are_counted_by_tag_and_level(world: World) -> None:
    result = world.score_without_labels({"sft": world.predict("sft", 0.7), "base": world.silent("base")})
    said = result["answers"]["sft"]
    assert (said["cells"], said["answered"]) == (240, 240)
    assert sum(said["level_counts"]) == 240
    assert {name: sum(found["tag_counts"]) for name, found in said["per_attribute"].items()} == {
        "age": 120,
        "gender": 120,
    }
    assert 0 < said["balance"] < 0.8
    assert result["answers"]["base"]["answered"] == 0 and result["answers"]["base"]["balance"] == 0.0


def test_who_repeats_the_vote_agrees_with_it_and_does_not_drift(world: World) -> None:
    result = world.score_without_labels({"sft": world.predict("sft", 1.0)}, world.candidates(1.0))
    found = pair(result, "sft", "teacher_majority")
    assert (found["share"], found["low"], found["high"]) == (1.0, 1.0, 1.0)
    assert found["cells"] > 200 and found["by_chance"] < 0.6
    assert found["drift_bits"] == pytest.approx(0.0, abs=1e-9)
    assert [point["tau"] for point in found["per_attribute"]["age"]["sweep"]] == [1, 2, 3, 4, 5]
    assert {point["share"] for point in found["per_attribute"]["age"]["sweep"]} == {1.0}
    answered = [point["answered"] for point in found["per_attribute"]["age"]["sweep"]]
    assert answered[0] == 1.0 and answered == sorted(answered, reverse=True)


def test_who_names_one_tag_for_everybody_agrees_no_more_than_by_chance_and_drifts(world: World) -> None:
    first = {name: world.taxonomy[name].tags[0] for name in world.taxonomy.names}
    rows = [
        {"user_id": user, "attribute": name, "tag": tag, "level": 3, "score": 0.6}
        for user in world.users
        for name, tag in first.items()
    ]
    result = world.score_without_labels({"sft": world.write_predictions("sft", rows)}, world.candidates(0.8))
    found = pair(result, "sft", "teacher_majority")
    assert found["share"] == pytest.approx(found["by_chance"])
    assert found["low"] <= found["by_chance"] <= found["high"]
    assert found["drift_bits"] > 0.2


def test_the_candidate_is_compared_with_the_stage_before_it_and_with_the_champion(world: World) -> None:
    predictions = {name: world.predict(name, 0.7) for name in ("sft", "sft_grpo", "champion")}
    pairs = [(item["first"], item["second"]) for item in world.score_without_labels(predictions)["agreement"]]
    assert pairs == [("sft_grpo", "sft"), ("sft_grpo", "champion")]


def test_samples_of_a_sure_teacher_agree_and_those_of_a_guessing_one_do_not(world: World) -> None:
    predictions = {"sft": world.predict("sft", 0.7)}
    sure = world.score_without_labels(predictions, world.candidates(1.0))["samples"]
    guessing = world.score_without_labels(predictions, world.candidates(0.4))["samples"]
    assert (sure["users"], sure["samples"]) == (240, 7)
    assert sure["agreement"] == {"age": 1.0, "gender": 1.0}
    assert max(guessing["agreement"].values()) < 0.7
    once = world.score_without_labels(predictions, world.candidates(1.0, samples=1))["samples"]
    assert once["agreement"] == {"age": None, "gender": None}


def test_what_kfps_page_shows_is_agreement_and_no_confusion(world: World) -> None:
    result = world.score_without_labels({"sft": world.predict("sft", 0.7)}, world.candidates(0.6))
    shown = kfp_metrics.scalars(result)
    assert shown["labelled test users"] == 0.0
    assert 0 < shown["sft = teacher_em"] < 1
    assert kfp_metrics.confusion(result) is None
    judged = world.score({"sft": world.predict("sft", 0.7)})
    assert kfp_metrics.scalars(judged)["labelled test users"] == 120.0
    assert kfp_metrics.confusion(judged) is not None


def test_every_arm_must_answer_for_all_users_here_too(world: World) -> None:
    with pytest.raises(DataError, match="5 of the 120 test users have no row"):
        world.score_without_labels({"sft": world.predict("sft", 0.7, leave_out=10)})
