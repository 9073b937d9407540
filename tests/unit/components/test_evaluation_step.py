"""Evaluation from Parquet to evaluation.json, on generated users whose truth is known."""

from __future__ import annotations

import json

import numpy as np
import pytest

from components.evaluation.step import candidate_arm
from conf_profile import tables
from conf_profile.errors import DataError
from support.evaluation_world import TWO_ATTRIBUTES, World


@pytest.fixture
def world(tmp_path) -> World:
    return World(tmp_path)


def test_a_full_evaluation(world: World) -> None:
    predictions = {
        "base": world.silent("base"),
        "sft": world.predict("sft", 0.7),
        "sft_grpo": world.predict("sft_grpo", 0.8),
        "champion": world.predict("champion", 0.6),
    }
    result = world.score(predictions, world.candidates(0.55), world.predict("ceiling", 0.95))

    assert json.loads((world.folder / "evaluation.json").read_text()) == result
    assert result["users"] == {"test": 120, "train": 60, "validation": 60}
    assert result["judged"] is True
    assert result["labelled_test_users"] == 120
    assert result["labelled_test_users_by_attribute"] == {"age": 120, "gender": 120}
    assert result["candidate"] == "sft_grpo"
    assert list(result["arms"]) == [
        "majority_tag", "base", "teacher_single", "teacher_majority", "teacher_weighted",
        "teacher_log_odds", "teacher_em",
        "sft", "sft_grpo", "champion", "ceiling",
    ]  # fmt: skip
    f1 = {name: arm["f1"] for name, arm in result["arms"].items()}
    assert f1["base"] == 0.0
    assert f1["teacher_single"] < f1["teacher_majority"] < f1["ceiling"]
    assert f1["champion"] < f1["sft_grpo"] < f1["ceiling"]
    assert [(pair["better"], pair["worse"]) for pair in result["paired"]] == [
        ("sft", "teacher_single"), ("sft", "base"), ("sft", "majority_tag"), ("sft_grpo", "sft"), ("sft_grpo", "base"),
        ("sft_grpo", "majority_tag"), ("sft_grpo", "teacher_single"), ("sft_grpo", "champion"),
        ("teacher_weighted", "teacher_majority"), ("teacher_log_odds", "teacher_weighted"),
        ("teacher_em", "teacher_weighted"),
    ]  # fmt: skip
    gain = next(pair for pair in result["paired"] if pair["worse"] == "champion")
    assert gain["low"] <= gain["difference"] == pytest.approx(f1["sft_grpo"] - f1["champion"])


def test_one_arm_is_described_in_full(world: World) -> None:
    result = world.score({"sft": world.predict("sft", 0.7)})
    arm = result["arms"]["sft"]
    assert result["candidate"] == "sft"
    assert arm["precision_ci"][0] <= arm["precision"] <= arm["precision_ci"][1]
    assert list(arm["per_attribute"]) == ["age", "gender"]
    assert arm["per_attribute"]["age"]["support"] == 120
    assert [point["tau"] for point in arm["sweep"]] == [1, 2, 3, 4, 5]
    assert arm["sweep"][0]["coverage"] == 1.0
    assert sum(arm["level_counts"]) == 240
    assert sum(item["count"] for item in arm["reliability"]) == 240
    assert arm["confusion"]["gender"]["tags"] == ["female", "male"]
    assert np.array(arm["confusion"]["gender"]["matrix"]).shape == (2, 3)
    assert np.array(arm["confusion"]["gender"]["matrix"]).sum() == 120
    assert result["hierarchy"]["sft"]["passed"] is True
    assert "majority_tag" not in result["hierarchy"]
    assert set(result["thresholds"]) == {"age", "gender"}
    assert result["at_thresholds"]["precision"] >= arm["precision"]
    sliced = {line["slice"]: line["users"] for line in result["slices"]}
    assert sum(users for name, users in sliced.items() if name.startswith("region")) == 120
    assert sum(users for name, users in sliced.items() if name.startswith("history")) == 120
    assert sliced["self-report: absent"] == 40


def test_perfect_teacher_scores_one_and_majority_ignores_malformed_samples(world: World) -> None:
    result = world.score({"sft": world.predict("sft", 0.7)}, world.candidates(1.0))
    assert result["arms"]["teacher_majority"]["precision"] == 1.0
    single = result["arms"]["teacher_single"]
    assert single["precision"] == 1.0
    # A malformed sample 0 is an abstention.
    assert 0.8 < single["coverage"] < 1.0


def test_teacher_that_was_never_asked_has_no_arms(world: World) -> None:
    train = [user for user, split in zip(world.users, world.split, strict=True) if split == "train"]
    result = world.score({"sft": world.predict("sft", 0.7)}, world.candidates(0.6, users=train))
    assert "teacher_single" not in result["arms"]
    assert [pair["worse"] for pair in result["paired"]] == ["majority_tag"]


def test_unlabelled_cells_are_ignored(world: World) -> None:
    kept = {key: tag for key, tag in world.truth.items() if key[1] == "age" and int(key[0][1:]) < 60}
    world.write_labels(kept)
    result = world.score({"sft": world.predict("sft", 1.0)})
    assert result["labelled_test_users"] == 30
    assert result["labelled_test_users_by_attribute"] == {"age": 30, "gender": 0}
    assert result["arms"]["sft"]["support"] == 30
    # A slice has as many users as it could be measured on.
    assert {line["users"] for line in result["slices"]} == {10, 20} | {line["users"] for line in history(result)}
    assert sum(line["users"] for line in history(result)) == 30
    assert result["arms"]["sft"]["f1"] == 1.0
    assert result["arms"]["sft"]["per_attribute"]["gender"]["support"] == 0
    assert result["thresholds"]["gender"] == 5


def history(result):
    return [line for line in result["slices"] if line["slice"].startswith("history")]


def test_thresholds_come_from_validation_users_alone(world: World) -> None:
    # Half right: precision reaches the target at high levels only.
    predictions = {"sft": world.predict("sft", 0.5)}
    before = world.score(predictions)["thresholds"]
    # Other labels for the test users must not move them; other labels for the validation users must.
    tags = {name: len(TWO_ATTRIBUTES[name].tags) for name in TWO_ATTRIBUTES.names}
    split = dict(zip(world.users, world.split, strict=True))

    def relabelled(chosen: str):
        return {(user, name): (tag + (split[user] == chosen)) % tags[name] for (user, name), tag in world.truth.items()}

    world.write_labels(relabelled("test"))
    assert world.score(predictions)["thresholds"] == before
    world.write_labels(relabelled("validation"))
    assert world.score(predictions)["thresholds"] != before


def test_same_seed_same_file(world: World) -> None:
    predictions = {"sft": world.predict("sft", 0.7), "base": world.silent("base")}
    first = world.score(predictions, seed=3)
    assert world.score(predictions, seed=3) == first
    assert world.score(predictions, seed=4) != first


def test_predictions_for_some_users_only_are_refused(world: World) -> None:
    with pytest.raises(DataError, match="5 of the 120 test users have no row"):
        world.score({"sft": world.predict("sft", 0.7, leave_out=10)})


def test_teacher_that_was_asked_about_some_test_users_only_is_refused(world: World) -> None:
    with pytest.raises(DataError, match=r"candidates .* have no row at all"):
        world.score({"sft": world.predict("sft", 0.7)}, world.candidates(0.6, users=world.users[:50]))


def test_tag_outside_the_taxonomy_names_user_and_tag(world: World) -> None:
    rows = [
        {
            "user_id": user,
            "attribute": name,
            "tag": "ancient" if user == "u7" else None,
            "level": 3,
            "score": 0.5,
        }
        for user in world.users
        for name in TWO_ATTRIBUTES.names
    ]
    with pytest.raises(DataError, match=r"user 'u7' has the tag 'ancient' \(attribute 'age'\)"):
        world.score({"sft": world.write_predictions("sft", rows)})


def test_label_of_another_attribute_is_refused(world: World) -> None:
    rows = [{"user_id": "u1", "attribute": "shoe_size", "tag": "44"}]
    tables.write(world.folder / "labels.parquet", tables.from_rows(rows, tables.LABELS), tables.LABELS)
    with pytest.raises(DataError, match="attribute 'shoe_size'"):
        world.score({"sft": world.predict("sft", 0.7)})


@pytest.mark.parametrize(
    ("users", "message"),
    [
        ((), "labels of 0 users, of whom 0 are among the run's 240"),
        (("u0", "u2", "x1"), "labels of 3 users, of whom 2 are among the run's 240 and none among its 120 test users"),
    ],
)
def test_labels_of_no_test_user_are_an_error_that_counts_whom_they_are_of(world: World, users, message) -> None:
    """Not a run without labels: whoever gave some thinks that the model was judged."""
    world.write_labels({(user, "age"): 0 for user in users})
    with pytest.raises(DataError, match=message):
        world.score({"sft": world.predict("sft", 0.7)})


def test_no_test_user_is_an_error(world: World) -> None:
    world.split = ["train"] * len(world.users)
    world.write_features()
    with pytest.raises(DataError, match="no user of the split 'test'"):
        world.score({"sft": world.predict("sft", 0.7)})


def test_arm_names_of_the_evaluation_are_reserved(world: World) -> None:
    with pytest.raises(DataError, match="majority_tag"):
        world.score({"sft": world.predict("sft", 0.7), "majority_tag": world.silent("x")})


def test_candidate_is_the_last_stage_that_was_run() -> None:
    assert candidate_arm({"base": 0, "sft": 0, "sft_grpo": 0}) == "sft_grpo"
    assert candidate_arm({"base": 0, "sft": 0}) == "sft"
    with pytest.raises(DataError, match="needs predictions of 'sft_grpo' or 'sft'"):
        candidate_arm({"base": 0})
