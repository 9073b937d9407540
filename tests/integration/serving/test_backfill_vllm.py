"""The backfill's engine on real vLLM, with a tiny untrained student: a minute, most of it the engine's start."""

import os

import pytest

from conf_profile import tables
from conf_profile.config import PromptConfig, StudentConfig
from conf_profile.dialogue import task as tasks
from conf_profile.dialogue.prompts import UserFeatures
from conf_profile.students import examples, folder, model
from serving.backfill import engines as backfill_engines
from serving.model import bundle

pytestmark = [pytest.mark.slow, pytest.mark.engine]

TAGS = tasks.builtin("profile")
BRIEF = PromptConfig(student_style="brief", max_keyphrases=400)
# So many tokens that an answer is finished even if it is spelled character by character.
SMALL = StudentConfig(
    hidden_size=64, heads=2, key_value_heads=1, layers=1, vocabulary_size=800,
    max_prompt_tokens=128, max_completion_tokens=1000,
)  # fmt: skip
PEOPLE = [UserFeatures(f"u{number}", watch=[f"rose pruning {number}", "pension calculator"]) for number in range(5)]
LONG = UserFeatures("long", watch=["an entirely different keyphrase"] * 400)


@pytest.fixture(scope="module")
def student(tmp_path_factory):
    prompts = [examples.student_messages(person, TAGS, BRIEF)[-1]["content"] for person in PEOPLE]
    network, pieces = model.build_base(SMALL, prompts, TAGS, seed=0)
    path = tmp_path_factory.mktemp("model") / "student"
    folder.save(network, pieces, TAGS, BRIEF, SMALL, PEOPLE, 4, path)
    return path


@pytest.fixture(scope="module")
def engine(student):
    """The engine's variables must not reach other tests."""
    before = dict(os.environ)
    yield backfill_engines.make_engine("vllm", student, bundle.load(student), "float32", 4)
    os.environ.clear()
    os.environ.update(before)


def test_every_answer_is_in_the_grammar_and_has_a_calibrated_level(engine, monkeypatch):
    monkeypatch.setattr(backfill_engines, "USERS_AT_ONCE", 2)
    found = tables.check(engine.answer([*PEOPLE, LONG]), tables.PREDICTIONS, "answers").to_pylist()
    assert len(found) == 6 * len(TAGS.names)
    answered = [row for row in found if row["tag"] is not None]
    assert answered
    for row in answered:
        assert row["tag"] in TAGS[row["attribute"]].index and 0.2 <= row["score"] <= 1.0
    assert {row["tag"] for row in found if row["user_id"] == "long"} == {None}, "no room for an answer"
    again = engine.answer(PEOPLE).to_pylist()
    assert len(again) == 5 * len(TAGS.names)
    assert [said(row) for row in again] == [said(row) for row in found[: len(again)]], "greedy"
    # Which users share a batch moves a log-probability by rounding.
    assert [row["score"] for row in again] == pytest.approx([row["score"] for row in found[: len(again)]], abs=1e-5)


def said(row):
    return {key: value for key, value in row.items() if key != "score"}


def test_nobody_is_nothing(engine):
    assert engine.answer([]).num_rows == 0
