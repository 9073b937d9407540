"""The kept table of teachers' answers: text to outcome. What is well meant is read, and nothing is guessed."""

import json
import random
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conf_profile.dialogue import task as tasks
from conf_profile.dialogue.answer_reader import read_answer
from conf_profile.dialogue.output_format import MAX_RATIONALE_CHARACTERS, parse, parse_or_none, render
from conf_profile.dialogue.prompts import instruction, quote
from conf_profile.dialogue.reasons import AnswerForm

TASK = tasks.parse({"attributes": {"age": ["18-24", "55+"], "gender": ["female", "male"]}})
RATIONALE = "<rationale>rose pruning; knitting</rationale>"
AGE, GENDER = "<age>55+<level>4</level></age>", "<gender>unknown<level>1</level></gender>"
ASKED = RATIONALE + AGE + GENDER
MEANT = {"age": ("55+", 4), "gender": (None, 1)}
KEYPHRASES = "rose pruning; knitting"
OBJECT = {
    "rationale": KEYPHRASES,
    "age": {"tag": "55+", "level": 4},
    "gender": {"tag": "unknown", "level": 1},
}
JSON = json.dumps(OBJECT)

# Each says the same: MEANT, with the rationale KEYPHRASES.
READ = {
    "the form of the prompt": ASKED,
    "line breaks between elements": ASKED.replace("><", ">\n<"),
    "indented": ASKED.replace("><", ">\n    <").replace("55+", "\n    55+\n    "),
    "a Markdown fence": f"```\n{ASKED}\n```",
    "a fence with a language": f"```xml\n{ASKED}\n```",
    "a fence that is not closed": f"```xml\n{ASKED}",
    "a preamble": f"Sure! Here is the profile of this user:\n\n{ASKED}",
    "a preamble that names an element": f"First the <age>, then the rest.\n{ASKED}",
    "an afterword": f"{ASKED}\n\nLet me know if you need anything else.",
    "preamble, fence and afterword": f"Here you are:\n```xml\n{ASKED}\n```\nI hope this helps!",
    "another case of a tag": ASKED.replace("age>", "Age>"),
    "capitals": ASKED.replace("age>", "AGE>").replace("level>", "LEVEL>").replace("rationale>", "Rationale>"),
    "spaces inside of markup": ASKED.replace("<age>", "< age >").replace("</age>", "</ age>"),
    "another order": RATIONALE + GENDER + AGE,
    "the rationale last": AGE + GENDER + RATIONALE,
    "an answer element around it": f"<answer>{ASKED}</answer>",
    "another element around it": f"<profile>\n{ASKED}\n</profile>",
    "reasoning before it": f"<think>Roses: <age>18-24<level>2</level></age>? No.</think>\n{ASKED}",
    "the end of reasoning before it": f"perhaps 18-24</think>{ASKED}",
    "reasoning by another name": f"<thinking><age>18-24<level>2</level></age></thinking>{ASKED}",
    "the prompt's form repeated first": f"{instruction(TASK).splitlines()[-1]}\n{ASKED}",
    "said twice alike": f"{ASKED}\nSo the final answer is:\n{ASKED}",
    "Unknown": ASKED.replace("unknown", "Unknown"),
    "UNKNOWN": ASKED.replace("unknown", "UNKNOWN"),
    "a level of five": ASKED.replace(">4<", ">4/5<"),
    "a level out of five": ASKED.replace(">4<", "> 4 out of 5 <"),
    "a level with a point": ASKED.replace(">4<", ">4.0<"),
    "a level that says so": ASKED.replace(">4<", ">Level 4<"),
    "a level as a number word": ASKED.replace(">4<", ">four<").replace(">1<", ">One<"),
    "a level as the prompt describes it": ASKED.replace(">4<", ">several clear signs<").replace(">1<", ">a guess<"),
    "a level and its description": ASKED.replace(">4<", ">4 (several clear signs)<"),
    "a level of other digits": ASKED.replace(">4<", ">４<").replace(">1<", ">١<"),
    "quoted tags": ASKED.replace("55+", '"55+"').replace("unknown", "'unknown'"),
    "emphasised tags": ASKED.replace("55+", "**55+**").replace("unknown", "`unknown`"),
    "levels in parameters": f'{RATIONALE}<age level="4">55+</age><gender level="1">unknown</gender>',
    "all in parameters": f'{RATIONALE}<age tag="55+" level="4"/><gender tag="unknown" level="1"/>',
    "levels after the elements": f"{RATIONALE}<age>55+</age><level>4</level>\n<gender>unknown</gender><level>1</level>",
    "levels before the tags": f"{RATIONALE}<age><level>4</level>55+</age><gender><level>1</level>unknown</gender>",
    "levels in brackets": f"{RATIONALE}<age>55+ (4)</age><gender>unknown (level 1)</gender>",
    "confidence elements": ASKED.replace("level>", "confidence>"),
    "levels in elements of their own": (
        f"{RATIONALE}<age>55+</age><age_level>4</age_level><gender>unknown</gender><gender_level>1</gender_level>"
    ),
    "tags in elements of their own": ASKED.replace("55+", "<tag>55+</tag>"),
    "an element's end is missing": ASKED.replace("</age>", ""),
    "the last bracket is missing": ASKED[:-1],
    "the last element's end is cut": ASKED.removesuffix("der>"),
    "a bulleted rationale": ASKED.replace(KEYPHRASES, "\n- rose pruning\n- knitting\n") + ".",
    "JSON": JSON,
    "JSON in a fence": f"Here it is:\n```json\n{json.dumps(OBJECT, indent=2)}\n```",
    "JSON with keys of another case": JSON.replace('"age"', '"Age"').replace('"tag"', '"Tag"'),
    "JSON in another object": json.dumps({"profile": OBJECT}),
    "JSON with texts as levels": json.dumps({**OBJECT, "age": {"value": "55+", "confidence": "4/5"}}),
    "JSON with null for unknown": json.dumps({**OBJECT, "gender": {"tag": None, "level": 1}}),
    "JSON with pairs": json.dumps({**OBJECT, "age": ["55+", 4]}),
    "JSON with the tag as a key": json.dumps({**OBJECT, "age": {"55+": 4}}),
    "JSON with the level beside it": json.dumps({**OBJECT, "age": "55+", "age_level": 4}),
    "JSON with levels apart": json.dumps(
        {"rationale": KEYPHRASES, "age": "55+", "gender": "unknown", "levels": {"age": 4, "gender": 1}}
    ),
    "JSON with a comma too many": JSON.replace("}", ",}"),
    "JSON with a line break in a text": JSON.replace("knitting", "knitting\n"),
    "JSON in one object for each attribute": "\n".join(json.dumps({name: OBJECT[name]}) for name in OBJECT),
    "an end-of-text mark": f"{ASKED}<|im_end|>",
    "a declaration": f'<?xml version="1.0"?>\n{ASKED}',
    "a comment": ASKED.replace("<age>", "<!-- roses --><age>"),
    "an empty element of another name": ASKED.replace("<gender>", "<br/><gender>"),
    "JSON with a list of keyphrases": json.dumps({**OBJECT, "rationale": KEYPHRASES.split("; ")}),
    "JSON with a list of attributes": json.dumps(
        {
            "rationale": KEYPHRASES,
            "answers": [{"attribute": name, **OBJECT[name]} for name in ("age", "gender")],
        }
    ),
    "JSON with a tag alone in a list": JSON.replace('"55+"', '["55+"]'),
    "a thought after the answer": f"{ASKED}<think>hmm, is that so?</think>",
    "an answer inside of JSON": json.dumps({"answer": ASKED}),
}
MALFORMED = {
    "nothing": ("", AnswerForm.EMPTY),
    "white space": (" \n", AnswerForm.EMPTY),
    "a refusal": ("I cannot infer personal attributes.", AnswerForm.NO_ANSWER),
    "plain lines": ("age: 55+ (4)\ngender: unknown (1)", AnswerForm.NO_ANSWER),
    "a thought without an end": ("<think>" + ASKED, AnswerForm.CUT_OFF),
    "cut in the rationale": (ASKED[:20], AnswerForm.CUT_OFF),
    "cut in a tag": (RATIONALE + "<age>55", AnswerForm.CUT_OFF),
    "cut between tag and level": (RATIONALE + AGE + "<gender>unknown<lev", AnswerForm.CUT_OFF),
    "cut JSON": (JSON[:-20], AnswerForm.CUT_OFF),
    "an attribute is missing": (RATIONALE + AGE, AnswerForm.MISSING_ATTRIBUTE),
    "an attribute is empty": (ASKED.replace("55+", ""), AnswerForm.MISSING_ATTRIBUTE),
    "JSON without an attribute": (json.dumps({"age": OBJECT["age"]}), AnswerForm.MISSING_ATTRIBUTE),
    "a tag outside the task": (ASKED.replace("55+", "56+"), AnswerForm.OTHER_TAG),
    "two tags in one": (ASKED.replace("55+", "55+ or 18-24"), AnswerForm.OTHER_TAG),
    "a tag with a remark": (ASKED.replace("</age>", " but maybe 18-24</age>"), AnswerForm.OTHER_TAG),
    "no level": (ASKED.replace("<level>4</level>", ""), AnswerForm.NO_LEVEL),
    "an empty level": (ASKED.replace(">4<", "><"), AnswerForm.NO_LEVEL),
    "JSON without a level": (JSON.replace(', "level": 4', ""), AnswerForm.NO_LEVEL),
    "JSON with a null level": (JSON.replace('"level": 4', '"level": null'), AnswerForm.NO_LEVEL),
    "level 0": (ASKED.replace(">4<", ">0<"), AnswerForm.OTHER_LEVEL),
    "level 6": (ASKED.replace(">4<", ">6<"), AnswerForm.OTHER_LEVEL),
    "another scale": (ASKED.replace(">4<", ">4/10<"), AnswerForm.OTHER_LEVEL),
    "a share": (ASKED.replace(">4<", ">80%<"), AnswerForm.OTHER_LEVEL),
    "a score": (JSON.replace('"level": 4', '"level": 0.8'), AnswerForm.OTHER_LEVEL),
    "a negative level": (ASKED.replace(">4<", ">-4<"), AnswerForm.OTHER_LEVEL),
    "two tags in a list": (JSON.replace('"55+"', '["55+", "18-24"]'), AnswerForm.OTHER_TAG),
    "two tags under one key": (JSON.replace('"tag": "55+"', '"tag": "55+", "tag": "18-24"'), AnswerForm.OTHER_TAG),
    "a range of levels": (ASKED.replace(">4<", ">4-5<"), AnswerForm.OTHER_LEVEL),
    "a word for two levels": (ASKED.replace(">4<", ">high<"), AnswerForm.OTHER_LEVEL),
    "a level and another's description": (ASKED.replace(">4<", ">4 (certain)<"), AnswerForm.OTHER_LEVEL),
    "true as a level": (JSON.replace('"level": 4', '"level": true'), AnswerForm.OTHER_LEVEL),
    "two answers": (ASKED + ASKED.replace("55+", "18-24"), AnswerForm.TWO_ANSWERS),
    "two levels": (ASKED + ASKED.replace(">4<", ">5<"), AnswerForm.TWO_ANSWERS),
    "two levels in one element": (ASKED.replace("</age>", "<level>3</level></age>"), AnswerForm.TWO_ANSWERS),
    "an answer in the rationale": (
        ASKED.replace("knitting", "<age>18-24<level>5</level></age>"),
        AnswerForm.TWO_ANSWERS,
    ),
    "elements and JSON that differ": (ASKED + JSON.replace("55+", "18-24"), AnswerForm.TWO_ANSWERS),
    "a key twice": (JSON.replace("{", '{"age": ["18-24", 5], ', 1), AnswerForm.TWO_ANSWERS),
    "levels before the elements": (
        "<level>3</level><age>55+</age><level>4</level><gender>male</gender>",
        AnswerForm.NO_LEVEL,
    ),
}


# What the endpoint says of an answer counts where its text says nothing.
WITH_REASON = {
    "length": ("<rationale>", AnswerForm.CUT_OFF),
    "content_filter": ("", AnswerForm.REFUSED),
    "refusal": ("I cannot.", AnswerForm.REFUSED),
    "context_length_exceeded": ("", AnswerForm.LONG_PROMPT),
    "empty": ("", AnswerForm.EMPTY),
    "": ("", AnswerForm.EMPTY),
}


def meaning(found):
    return {name: (answer.tag, answer.level) for name, answer in found.answer.answers.items()}


@pytest.mark.parametrize("text", READ.values(), ids=READ)
def test_what_is_well_meant_is_read(text):
    found = read_answer(text, TASK)
    assert (found.form.well_formed, found.form.remedy) == (True, "")
    assert (meaning(found), found.answer.rationale) == (MEANT, KEYPHRASES)
    assert found.form == (AnswerForm.EXACT if parse_or_none(text, TASK) else AnswerForm.OTHER_FORM)


@pytest.mark.parametrize(("text", "form"), MALFORMED.values(), ids=MALFORMED)
def test_what_is_not_said_is_malformed_and_the_reason_is_told(text, form):
    found = read_answer(text, TASK)
    assert (found.form, found.answer, found.form.well_formed) == (form, None, False)
    assert found.form.remedy


@pytest.mark.parametrize(("reason", "outcome"), WITH_REASON.items())
def test_an_endpoints_reason_is_told_where_nothing_is_read(reason, outcome):
    text, form = outcome
    assert read_answer(text, TASK, reason).form == form
    assert read_answer(ASKED, TASK, reason).form == AnswerForm.EXACT


def test_every_reason_is_in_the_table():
    told = {form for _, form in (*MALFORMED.values(), *WITH_REASON.values())} | {AnswerForm.AMBIGUOUS_TAG}
    assert told == {form for form in AnswerForm if not form.well_formed}


def test_a_long_rationale_is_cut_after_a_keyphrase():
    keyphrases = [f"keyphrase number {n}" for n in range(100)]
    found = read_answer(ASKED.replace(KEYPHRASES, "; ".join(keyphrases)), TASK)
    kept = found.answer.rationale.split("; ")
    assert (found.form, meaning(found), kept) == (AnswerForm.CUT_RATIONALE, MEANT, keyphrases[: len(kept)])
    assert MAX_RATIONALE_CHARACTERS - 30 < len(found.answer.rationale) <= MAX_RATIONALE_CHARACTERS


def test_a_long_rationale_of_one_piece_is_cut_at_the_limit():
    found = read_answer(ASKED.replace(KEYPHRASES, "x" * 5000), TASK)
    assert (found.form, found.answer.rationale) == (AnswerForm.CUT_RATIONALE, "x" * MAX_RATIONALE_CHARACTERS)


def test_an_answer_without_a_rationale_has_an_empty_one():
    found = read_answer(AGE + GENDER, TASK)
    assert (meaning(found), found.answer.rationale) == (MEANT, "")


def test_a_rationale_cannot_bring_markup_along():
    found = read_answer(ASKED.replace(KEYPHRASES, "age > 30, <b>roses</b>\x1b"), TASK)
    assert found.answer.rationale == "age   30,  b roses /b"
    assert parse(render(found.answer, TASK), TASK).answers == found.answer.answers


TAGS = ["Art & Design", "Sales, 2nd", "sales", "Sales (3)", "R&D", "Größe", "東京", "new york", "Level 4", "'quoted'"]
SAID = {
    "Art & Design": "Art & Design",
    "art &amp; design": "Art & Design",
    "ART&DESIGN": "Art & Design",
    "Sales, 2nd": "Sales, 2nd",
    "sales, 2nd": "Sales, 2nd",
    "sales": "sales",
    "SALES.": "sales",
    "sales (3)": "Sales (3)",
    "R&amp;D": "R&D",
    "r & d": "R&D",
    "GRÖSSE": "Größe",
    "「東京」": "東京",
    "New  York": "new york",
    "level 4": "Level 4",
    "'quoted'": "'quoted'",
    "quoted": None,
    "Sales 3": None,
    "York": None,
    "sale": None,
}


@pytest.mark.parametrize(("said", "tag"), SAID.items())
def test_a_tag_is_compared_exactly_then_without_case(said, tag):
    task = tasks.parse({"attributes": {"field": TAGS}})
    for text in (f"<field>{said}<level>2</level></field>", json.dumps({"field": {"tag": said, "level": 2}})):
        found = read_answer(text, task)
        assert found.form == (AnswerForm.OTHER_FORM if tag else AnswerForm.OTHER_TAG)
        assert tag is None or meaning(found) == {"field": (tag, 2)}


def test_a_tag_in_brackets_is_not_taken_for_a_level():
    task = tasks.parse({"attributes": {"field": TAGS}})
    assert read_answer("<field>Sales (3)</field>", task).form == AnswerForm.NO_LEVEL
    assert meaning(read_answer("<field>Sales, 2nd (3)</field>", task)) == {"field": ("Sales, 2nd", 3)}


def test_of_two_tags_that_differ_in_case_only_the_exact_one_is_read():
    task = tasks.parse({"attributes": {"team": ["Reds", "reds", "Unknown"]}})
    forms = {
        said: read_answer(f"<team>{said}<level>3</level></team>", task)
        for said in ("Reds", "reds", "REDS", "Unknown", "unknown", "UNKNOWN")
    }
    assert [meaning(forms[said])["team"][0] for said in ("Reds", "reds", "Unknown", "unknown")] == [
        "Reds", "reds", "Unknown", None,
    ]  # fmt: skip
    assert {forms[said].form for said in ("REDS", "UNKNOWN")} == {AnswerForm.AMBIGUOUS_TAG}


@pytest.mark.parametrize("name", ["answer", "tag", "confidence", "name", "reasoning", "levels", "größe", "年齢"])
def test_an_attribute_may_be_called_like_a_part_of_the_form(name):
    task = tasks.parse({"attributes": {name: ["a", "b"], "city": ["x", "y"]}})
    texts = [
        f"<{name}>a<level>2</level></{name}><city>y<level>5</level></city>",
        f"```\n<{name.upper()}>A<level>2</level></{name.upper()}>\n<City>Y<level>5/5</level></City>\n```",
        json.dumps({name: {"tag": "a", "level": 2}, "city": {"tag": "y", "level": 5}}),
    ]
    for text in texts:
        assert meaning(read_answer(text, task)) == {name: ("a", 2), "city": ("y", 5)}


def test_names_with_spaces_or_hyphens_are_read():
    task = tasks.parse({"attributes": {"age_group": ["a", "b"]}})
    for name in ("Age Group", "age-group", "AGE_GROUP"):
        assert meaning(read_answer(json.dumps({name: {"tag": "a", "level": 2}}), task)) == {"age_group": ("a", 2)}


def test_a_quoting_teacher_does_not_let_users_answer():
    """What users write, quoted as the prompt quotes it, never states anything, and never changes what is stated."""
    chance = random.Random(0)
    wanted = [
        ASKED, JSON, "<age>18-24<level>5</level></age>", '{"age": ["18-24", 5]}', "age: 18-24 (5)", "</rationale>",
        "&lt;age&gt;18-24&lt;level&gt;5&lt;/level&gt;&lt;/age&gt;", "```", "</think>", '"', "}", "＜age＞", "<level>5",
    ]  # fmt: skip
    for _ in range(500):
        text = quote(" ".join(chance.choices(wanted, k=3)), 500)
        assert read_answer(text, TASK).answer is None
        for answer in (f"You wrote: {text}\n{ASKED}", ASKED.replace("knitting", text), f"{ASKED}\n{text}"):
            found = read_answer(answer, TASK)
            assert found.answer is None or meaning(found) == MEANT


PARTS = [
    *'<>/{}[]":, 145\n',
    "<age>",
    "</age>",
    "<gender>",
    "</gender>",
    "<level>",
    "</level>",
    "55+",
    "male",
    AGE,
    GENDER,
]
answers = st.lists(st.sampled_from(PARTS), max_size=20).map("".join)


@given(answers)
def test_whatever_is_read_has_the_form_that_students_learn(text):
    found = read_answer(text, TASK)
    assert found.form.well_formed == (found.answer is not None)
    if found.answer:
        assert parse(render(found.answer, TASK), TASK) == found.answer


@pytest.mark.parametrize(
    "text",
    ["<" * 200_000, "{" * 200_000, '{"a":' * 100_000, "<age>" * 50_000, "<a " * 60_000, "<age>55+ (" + "(" * 200_000,
     "[" * 200_000, "<level>" * 50_000, "<think>" * 50_000, "<thinking>" * 20_000],
    ids=lambda text: re.sub(r"(.{10}).*", r"\1", text),
)  # fmt: skip
def test_a_hostile_answer_is_malformed_and_not_slow(text):
    assert read_answer(text, TASK).answer is None
