"""The names of the arms, which evaluation.json and every published version have: they do not change."""

from conf_profile.consensus.voting import VOTES
from conf_profile.evaluation import arms


def test_the_names_that_published_evaluations_have():
    assert tuple(arms.ARM_TITLES) == (
        "majority_tag", "base", "teacher_single", "teacher_majority", "teacher_weighted", "teacher_log_odds",
        "teacher_em", "sft", "sft_grpo", "champion", "ceiling",
    )  # fmt: skip


def test_every_vote_that_is_reported_has_a_title():
    untitled = {vote for vote in VOTES if arms.teacher_arm(vote) not in arms.ARM_TITLES}
    # It stands in the experiments alone.
    assert untitled == {"majority_blind"}


def test_an_arm_that_is_not_ours_keeps_its_name():
    assert arms.arm_title("sft") == "Student after SFT"
    assert arms.arm_title("theirs") == "theirs"


def test_the_last_stage_that_trained_may_be_promoted():
    assert arms.last_trained_arm({"base", "sft", "sft_grpo", "champion"}) == "sft_grpo"
    assert arms.last_trained_arm({"base": 0, "sft": 0}) == "sft"
    assert arms.last_trained_arm(["base", "champion"]) is None
