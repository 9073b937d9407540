"""The embedded teacher reads the prompt, nothing else, and answers in the grammar."""

import asyncio
import json

import pytest

from conf_profile.dialogue import task as tasks
from conf_profile.dialogue.output_format import parse_or_none
from conf_profile.dialogue.prompts import UserFeatures, render_messages
from conf_profile.errors import TeacherError
from conf_profile.teachers.lexicon import LexiconHits, LexiconTeacher
from conf_profile.teachers.protocol import Request

TAGS = tasks.parse({"attributes": {"age": ["young", "old"], "gender": ["female", "male"]}})
LEXICON = {
    "name": "test",
    "match": "phrase",
    "entries": {
        "rose pruning": {"age": {"old": 6.0, "young": -6.0}},
        "skate park": {"age": {"young": 6.0, "old": -6.0}},
    },
    "fields": {"gender": {"female": {"gender": {"female": 6.0, "male": -6.0}}}},
}


@pytest.fixture
def lexicon(tmp_path):
    path = tmp_path / "lexicon.json"
    path.write_text(json.dumps(LEXICON))
    return path


def ask(teacher, user, samples=tuple(range(40))):
    request = Request(user.user_id, tuple(render_messages(user, TAGS, "full", 20)), samples)

    async def collect():
        return [completion async for completion in teacher.complete([request])]

    return [parse_or_none(completion.text, TAGS) for completion in asyncio.run(collect())]


def shares(answers, attribute, tag):
    known = [answer for answer in answers if answer is not None]
    return sum(answer.answers[attribute].tag == tag for answer in known) / len(known)


def test_it_follows_the_evidence_in_the_prompt(lexicon):
    teacher = LexiconTeacher(lexicon, TAGS, keyphrases_read=3, seed=0)
    old = ask(teacher, UserFeatures("u1", watch=["rose pruning near me", "weather"], self_gender="female"))
    young = ask(teacher, UserFeatures("u1", watch=["Skate Park", "weather"]))
    assert shares(old, "age", "old") > 0.95
    assert shares(young, "age", "young") > 0.95
    assert shares(old, "gender", "female") > 0.6


def test_the_rationale_names_what_it_read(lexicon):
    answers = ask(LexiconTeacher(lexicon, TAGS, 3, 0), UserFeatures("u1", watch=["rose pruning", "weather"]))
    assert {answer.rationale for answer in answers if answer} == {"rose pruning"}


def test_a_small_share_is_malformed_as_of_real_models(lexicon):
    answers = ask(LexiconTeacher(lexicon, TAGS, 3, 0), UserFeatures("u1", watch=["rose pruning"]), tuple(range(1000)))
    assert 0 < sum(answer is None for answer in answers) < 60


def test_each_sample_has_its_own_stream(lexicon):
    """Shards and restarts must give the same answers, whatever else is asked with them."""
    teacher = LexiconTeacher(lexicon, TAGS, 1, 0)
    user = UserFeatures("u1", watch=["rose pruning", "skate park", "weather"])
    assert ask(teacher, user)[7] == ask(teacher, user, (7,))[0]


def test_without_evidence_it_often_says_unknown(lexicon):
    answers = ask(LexiconTeacher(lexicon, TAGS, 3, 0), UserFeatures("u1", watch=["weather"]), tuple(range(200)))
    assert 0.2 < shares(answers, "age", None) < 0.8


@pytest.mark.parametrize(("text", "message"), [("{", "not valid JSON"), ("[]", "'entries'"), (None, "cannot read")])
def test_a_broken_lexicon_is_named(tmp_path, text, message):
    path = tmp_path / "lexicon.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(TeacherError, match=message):
        LexiconTeacher(path, TAGS, 3, 0)


def hits(tmp_path, match, entry, *keyphrases):
    """How many of the keyphrases an entry is found in."""
    path = tmp_path / "lexicon.json"
    path.write_text(json.dumps({"match": match, "entries": {entry: {"age": {"old": 1.0}}}}))
    prompts = [render_messages(UserFeatures("u", watch=[text]), TAGS, "full", 20)[-1]["content"] for text in keyphrases]
    return LexiconTeacher(path, TAGS, 3, 0).count_hits(prompts).found


@pytest.mark.parametrize(
    ("match", "entry", "keyphrase", "found"),
    [
        ("word", "man", "man of the house", True),
        ("word", "man", "one man, one vote", True),
        ("word", "man", "woman", False),
        ("word", "man", "mankind", False),
        ("word", "Man", "MAN of the house", True),
        ("word", "old age", "in old age!", True),
        ("word", "[animation", "Toy Story [animation, comedy]", True),
        ("word", ", drama", "Heat [crime, drama]", True),
        ("word", "(199", "Toy Story (1995)", True),
        ("word", "c++", "learn c++ now", True),
        ("word", "咖啡", "我喜欢咖啡店", True),
        ("word", "дом", "мой дом", True),
        ("word", "дом", "домино", False),
        ("part", "man", "woman", True),
        ("phrase", "man", "man of the house", True),
        ("phrase", "MAN", "man of the house", True),
        ("phrase", "man", "one man", False),
    ],
)
def test_an_entry_is_found_as_match_says(tmp_path, match, entry, keyphrase, found):
    assert hits(tmp_path, match, entry, keyphrase) == int(found)


def test_hits_are_counted_by_user_and_keyphrase(lexicon):
    users = [
        UserFeatures("u1", watch=["rose pruning", "weather"]),
        UserFeatures("u2", watch=["weather"], self_gender="Female"),
        UserFeatures("u3", watch=["weather"]),
    ]
    prompts = [render_messages(user, TAGS, "full", 20)[-1]["content"] for user in users]
    assert LexiconTeacher(lexicon, TAGS, 3, 0).count_hits(prompts) == LexiconHits(3, 2, 4, 1)


def test_answers_of_an_earlier_release_are_kept_where_they_would_be_the_same(tmp_path, lexicon):
    """The fingerprint is part of a kept answer's key."""
    assert LexiconTeacher(lexicon, TAGS, 3, 0).fingerprint.endswith("/read=3/seed=0")
    path = tmp_path / "other.json"
    for changed in ({"match": "word"}, {"entries": {"Tea": {}}}):
        path.write_text(json.dumps(LEXICON | changed))
        assert not LexiconTeacher(path, TAGS, 3, 0).fingerprint.endswith("/seed=0")
