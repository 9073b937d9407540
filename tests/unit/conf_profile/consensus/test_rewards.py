"""Rewards on literals: agreement, the three weights, the two quasi-ground truths, levels, format."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conf_profile.consensus import rewards
from conf_profile.consensus.rewards import Reference
from conf_profile.dialogue import task as tasks
from conf_profile.dialogue.output_format import Answer, ProfileAnswer, render

TAGS = tasks.parse({"attributes": {"age": ["young", "old"], "gender": ["female", "male"]}})
TRUTH = (Reference("old", 0.8, 4), Reference("male", 0.4, 2))


def answer(age, gender, age_level=3, gender_level=3):
    return ProfileAnswer("r", {"age": Answer(age, age_level), "gender": Answer(gender, gender_level)})


@pytest.mark.parametrize(
    ("given_answer", "weight", "expected"),
    [
        (answer("old", "male"), "frozen", (0.8 + 0.4) / 2),
        (answer("old", "female"), "frozen", 0.8 / 2),
        (answer("young", None), "frozen", 0.0),
        (answer("old", "male", 5, 1), "self", (1.0 + 0.2) / 2),
        (answer("old", "female"), "none", 0.5),
        (None, "none", 0.0),
    ],
)
def test_agreement(given_answer, weight, expected):
    assert rewards.agreement(given_answer, TRUTH, TAGS, weight) == pytest.approx(expected)


def test_only_self_confidence_pays_for_stating_high_levels():
    modest, boastful = answer("old", "male", 1, 1), answer("old", "male", 5, 5)
    for weight in ("frozen", "none"):
        assert rewards.agreement(modest, TRUTH, TAGS, weight) == rewards.agreement(boastful, TRUTH, TAGS, weight)
    assert rewards.agreement(boastful, TRUTH, TAGS, "self") > rewards.agreement(modest, TRUTH, TAGS, "self")


def test_a_soft_truth_pays_for_the_second_best_tag_too():
    soft = (Reference("old", 0.8, 4, {"old": 0.7, "young": 0.3}), TRUTH[1])
    assert rewards.agreement(answer("old", "male"), soft, TAGS, "none") == pytest.approx((0.7 + 1.0) / 2)
    assert rewards.agreement(answer("young", "male"), soft, TAGS, "frozen") == pytest.approx((0.8 * 0.3 + 0.4) / 2)
    assert rewards.agreement(answer(None, None), soft, TAGS, "none") == 0.0


def test_tag_entropy_falls_when_everybody_gets_the_same_tag():
    spread = [answer("old", "male"), answer("young", "male"), None]
    assert rewards.tag_entropy(spread, TAGS) == pytest.approx(math.log(2))
    assert rewards.tag_entropy([answer("old", "male")] * 3, TAGS) == 0.0
    assert rewards.tag_entropy([None], TAGS) == 0.0


def test_the_agreement_reward_logs_the_tag_entropy_where_the_trainer_asks_for_it():
    logged = {}
    agreement, _, _ = rewards.make_rewards(TAGS, {"u": TRUTH}, "frozen", "reference")
    texts = [render(answer("old", "male"), TAGS), render(answer("young", "male"), TAGS)]
    assert agreement([], texts, ["u", "u"], log_metric=logged.__setitem__) == agreement([], texts, ["u", "u"])
    assert logged == {"tag_entropy": pytest.approx(math.log(2))}


def test_attributes_without_a_reference_are_left_out():
    assert rewards.agreement(answer("old", "male"), (TRUTH[0], None), TAGS) == pytest.approx(0.8)
    assert rewards.agreement(answer("old", "male"), (None, None), TAGS) == 0.0


def test_levels_should_match_the_reference_and_be_low_for_another_tag():
    assert rewards.level_agreement(answer("old", "male", 4, 2), TRUTH, TAGS) == 1.0
    assert rewards.level_agreement(answer("young", "male", 5, 2), TRUTH, TAGS) == pytest.approx(0.5)
    assert rewards.level_agreement(None, TRUTH, TAGS) == 0.0


def test_vote_of_a_group_is_weighted_by_stated_levels():
    group = [answer("old", "male", 5), answer("young", "male", 2), answer("young", "female", 2), None]
    (voted,) = rewards.vote_of_groups([group], [TRUTH], TAGS)
    assert [entry.tag for entry in voted] == ["old", "male"]
    assert voted[0].confidence == 0.8


def test_a_tie_in_a_group_goes_to_more_votes_then_to_the_taxonomys_first():
    even = [answer("old", "male"), answer("young", "male")]
    more = [answer("young", "male", 4), answer("old", "male", 2), answer("old", "male", 2)]
    voted = rewards.vote_of_groups([even, more], [TRUTH, TRUTH], TAGS)
    assert [entries[0].tag for entries in voted] == ["young", "old"]


def test_groups_of_different_sizes_and_without_an_answer():
    groups = [[None, answer(None, "female")], [answer("old", "male"), None, answer("young", "male", 4)]]
    (first, second) = rewards.vote_of_groups(groups, [TRUTH, (None, TRUTH[1])], TAGS)
    assert first == [None, Reference("female", 0.4, 2)]
    assert second == [Reference("young", 0.5, 3), Reference("male", 0.4, 2)]


def test_trl_signature():
    texts = [render(answer("old", "male", 4, 2), TAGS), "nonsense", render(answer("young", "female"), TAGS)]
    agreement, levels, form = rewards.make_rewards(TAGS, {"u1": TRUTH, "u2": TRUTH}, "frozen", "reference")
    columns = {"user_id": ["u1", "u1", "u2"], "extra": [1, 2, 3]}
    assert agreement(["p"] * 3, texts, **columns) == pytest.approx([0.6, 0.0, 0.0])
    assert levels(["p"] * 3, texts, **columns)[0] == 1.0
    assert form(["p"] * 3, texts, **columns) == [1.0, 0.0, 1.0]
    assert form(["p"], [[{"role": "assistant", "content": texts[0]}]], user_id=["u1"]) == [1.0]


def test_rollouts_vote_within_their_own_group():
    agreement, _, _ = rewards.make_rewards(TAGS, {"u1": TRUTH, "u2": TRUTH}, "none", "rollouts")
    same = render(answer("young", "female"), TAGS)
    other = render(answer("old", "female"), TAGS)
    result = agreement(["p"] * 4, [same, same, other, other], user_id=["u1", "u1", "u2", "u2"])
    assert result == [1.0, 1.0, 1.0, 1.0]


@given(st.sampled_from(["young", "old", None]), st.sampled_from(["female", "male", None]), st.integers(1, 5))
def test_rewards_stay_between_0_and_1(age, gender, level):
    for weight in ("frozen", "self", "none"):
        assert 0.0 <= rewards.agreement(answer(age, gender, level), TRUTH, TAGS, weight) <= 1.0
