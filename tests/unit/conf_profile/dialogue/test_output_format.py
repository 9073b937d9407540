"""One grammar: what the renderer writes, the parser and the structured-output regex accept, and nothing else."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conf_profile.dialogue import task as tasks
from conf_profile.dialogue.output_format import (
    Answer,
    ProfileAnswer,
    clean_rationale,
    parse,
    parse_or_none,
    render,
    structured_output_regex,
)
from conf_profile.errors import OutputFormatError

TAGS = tasks.parse({"attributes": {"age": ["young", "old"], "gender": ["female", "male"]}})
TEXT = (
    "<rationale>rose pruning; knitting</rationale>"
    "<age>old<level>4</level></age><gender>unknown<level>1</level></gender>"
)
ANSWER = ProfileAnswer("rose pruning; knitting", {"age": Answer("old", 4), "gender": Answer(None, 1)})


def test_literal():
    assert render(ANSWER, TAGS) == TEXT
    assert parse(TEXT, TAGS) == ANSWER


def test_white_space_between_elements_is_allowed():
    assert parse(TEXT.replace("><", ">\n<") + "\n", TAGS) == ANSWER


@pytest.mark.parametrize(
    "text",
    [
        "",
        TEXT[:-5],
        TEXT[: len(TEXT) // 2],
        TEXT + "and more",
        "Sure! " + TEXT,
        TEXT + TEXT,
        TEXT.replace("old", "ancient"),
        TEXT.replace("<level>4", "<level>6"),
        TEXT.replace("<level>4", "<level>0"),
        TEXT.replace("<level>4</level>", ""),
        TEXT.replace("</age><gender>", "<gender>"),
        TEXT.replace("<age>old<level>4</level></age>", "<gender>male<level>4</level></gender>"),
        TEXT.replace("rose pruning", "<age>young<level>5</level></age>"),
        "<gender>male<level>1</level></gender><age>old<level>4</level></age>",
    ],
)
def test_anything_else_is_malformed(text):
    assert parse_or_none(text, TAGS) is None
    with pytest.raises(OutputFormatError):
        parse(text, TAGS)


@pytest.mark.parametrize("answer", [Answer("ancient", 3), Answer("old", 0), Answer("old", 6)])
def test_the_renderer_refuses_what_the_parser_would(answer):
    with pytest.raises(OutputFormatError):
        render(ProfileAnswer("", {"age": answer, "gender": Answer(None, 1)}), TAGS)


answers = st.builds(
    lambda rationale, age, gender: ProfileAnswer(clean_rationale(rationale), {"age": age, "gender": gender}),
    st.text(max_size=900),
    st.builds(Answer, st.sampled_from(["young", "old", None]), st.integers(1, 5)),
    st.builds(Answer, st.sampled_from(["female", "male", None]), st.integers(1, 5)),
)


@given(answers)
def test_parse_inverts_render_and_the_regex_agrees(answer):
    text = render(answer, TAGS)
    assert parse(text, TAGS).answers == answer.answers
    assert parse(text, TAGS).rationale == answer.rationale
    assert re.fullmatch(structured_output_regex(TAGS), text)


@given(st.text(alphabet="<>/ageolduknwlv145 ", max_size=80))
def test_no_text_makes_the_parser_fail_otherwise(text):
    assert parse_or_none(text, TAGS) is None or "<rationale>" in text
