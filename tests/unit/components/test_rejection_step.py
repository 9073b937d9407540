"""Which samples rejection sampling keeps, when GRPO counts as collapsed: what needs no training to see."""

import pytest

from components.rejection.step import best_samples
from conf_profile.config import PromptConfig, ReferenceConfig, RejectionConfig
from conf_profile.dialogue import task as tasks
from conf_profile.dialogue.output_format import Answer, ProfileAnswer, render
from conf_profile.dialogue.prompts import UserFeatures
from conf_profile.students.folder import Student
from conf_profile.students.reference import Samples
from conf_profile.students.training import has_collapsed

TAGS = tasks.parse({"attributes": {"age": ["young", "old"], "gender": ["female", "male"]}})
STUDENT = Student(None, None, TAGS, PromptConfig(student_style="brief"), 48)


def said(age, gender, level=3):
    return ProfileAnswer(f"{age} {gender}", {"age": Answer(age, level), "gender": Answer(gender, level)})


def kept(answers, count):
    texts = [render(answer, TAGS) if answer else "malformed" for answer in answers]
    samples = Samples([UserFeatures("u")], [texts], [answers], TAGS)
    found = best_samples(samples, ReferenceConfig(), RejectionConfig(kept_per_user=count), STUDENT)
    return [example.completion for example in found]


def test_the_samples_that_agree_with_the_vote_are_kept_as_they_are():
    answers = [said("old", "female"), None, said("young", "female"), said("old", "male"), said("old", "female", 4)]
    assert kept(answers, 2) == [render(answers[0], TAGS), render(answers[4], TAGS)]


def test_malformed_samples_are_never_kept_and_a_user_may_have_fewer():
    answers = [None, said("old", "male"), None]
    assert kept(answers, 3) == [render(answers[1], TAGS)]
    assert kept([None, None], 3) == []


@pytest.mark.parametrize(
    ("values", "collapsed"),
    [
        ([5.0] * 9, False),  # too few to compare
        ([5.0] * 10, False),
        ([5.0] * 5 + [4.1] * 5, False),
        ([5.0] * 5 + [3.9] * 5, True),
        ([5.0] * 5 + [1.0] * 3 + [4.5] * 5, False),  # a dip that is over
    ],
)
def test_collapse_compares_the_last_entries_with_the_first(values, collapsed):
    assert has_collapsed(values, max_loss=0.2) is collapsed
