"""What the vllm teacher decides without an engine: the grammar that fits, parts of requests, seeds."""

import re

import pytest

from conf_profile.config import TeacherConfig
from conf_profile.dialogue.output_format import MAX_RATIONALE_CHARACTERS, Answer, ProfileAnswer, render
from conf_profile.dialogue.task import builtin, parse
from conf_profile.dialogue.thinking import strip_thinking
from conf_profile.errors import TeacherError
from conf_profile.teachers.factory import make_teacher
from conf_profile.teachers.protocol import Request
from conf_profile.teachers.vllm import VLLMTeacher, _grammar

TAXONOMY = parse({"attributes": {"gender": ["female", "male"]}})


def teacher(**values):
    return VLLMTeacher(TeacherConfig(kind="vllm", model="m", **values), TAXONOMY, seed=0)


def samples(running, *numbers):
    return [part.samples for part in running._parts(Request("u", (), numbers))]


@pytest.mark.parametrize(("max_tokens", "longest"), [(64, 33), (128, 97), (2000, MAX_RATIONALE_CHARACTERS)])
def test_the_rationale_leaves_room_for_the_tags(max_tokens, longest):
    regex = _grammar(TAXONOMY, max_tokens)
    fits = [
        n
        for n in range(MAX_RATIONALE_CHARACTERS + 1)
        if re.fullmatch(regex, render(ProfileAnswer("x" * n, {"gender": Answer("female", 3)}), TAXONOMY))
    ]
    assert fits == list(range(longest + 1))


@pytest.mark.parametrize("name", ["profile", "movielens"])
def test_the_default_length_suits_the_taxonomies_that_come_along(name):
    assert _grammar(builtin(name), TeacherConfig().max_tokens)


def test_too_few_tokens_say_how_many_it_takes():
    with pytest.raises(TeacherError, match=r"max_tokens 16 is too small for the tags; it takes 95"):
        teacher(max_tokens=16)


def test_samples_that_follow_each_other_are_one_request():
    assert samples(teacher(), 4, 0, 1, 2, 7) == [(0, 1, 2), (4,), (7,)]


def test_greedy_samples_are_single_requests():
    assert samples(teacher(temperature=0.0), 0, 1, 3, 5) == [(0,), (1,), (3,), (5,)]


def test_the_fingerprint_names_what_changes_the_answers():
    changes = [{}, {"temperature": 0.5}, {"max_tokens": 99}, {"structured_output": False}]
    changes.append({"engine_arguments": {"dtype": "float32"}})
    assert len({teacher(**change).fingerprint for change in changes}) == 5
    assert teacher().fingerprint == teacher(concurrency=3).fingerprint


def test_the_lexicon_teacher_needs_a_lexicon():
    with pytest.raises(TeacherError, match="needs a lexicon"):
        make_teacher(TeacherConfig(), TAXONOMY, None, seed=0)


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("<age>1</age>", "<age>1</age>"),
        ("<think>a\nb</think>\n<age>1</age>", "<age>1</age>"),
        ("b</think><age>1</age>", "<age>1</age>"),
        ("<think>a</think>b<think>c</think>d", "d"),
        ("<think>cut", "<think>cut"),
        ("<think>all</think>", ""),
    ],
)
def test_thinking_is_no_part_of_the_answer(text, answer):
    assert strip_thinking(text) == answer
