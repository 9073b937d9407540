"""Smoke profiles: made of what several users share, and compared with what is served."""

import json

import pytest

from conf_profile.dialogue.prompts import UserFeatures
from conf_profile.errors import DataError
from conf_profile.rollout import smoke
from conf_profile.rollout.smoke import ExpectedAnswer, SmokeProfile

SAID = {"age": ExpectedAnswer("25-34", 4), "gender": ExpectedAnswer(None, None)}
ONE = SmokeProfile({"watch": ("trail running",), "search": (), "submit": ()}, SAID)


def crowd(*phrases, users=smoke.MIN_USERS, first=0):
    return [UserFeatures(f"u{first + number}", watch=phrases) for number in range(users)]


def shown(age="25-34", level=4, **more):
    profile = {
        "age": {"tag": age, "level": level, "accepted": True},
        "gender": {"tag": None, "accepted": False, "reason": "the evidence says nothing"},
    }
    return {"predictions": [{"user_id": "smoke-0", "model_version": "v2", "profile": profile, **more}]}


def test_nothing_that_fewer_than_five_users_have_gets_in():
    people = [*crowd("running", "cooking"), *crowd("a rare illness", users=smoke.MIN_USERS - 1, first=50)]
    made_up = smoke.make_up_users(people)
    assert {phrase for user in made_up for phrase in user.texts("watch")} == {"running", "cooking"}
    assert all(set(user.values) == {"watch"} for user in made_up)


def test_a_user_who_repeats_a_phrase_is_one_user():
    assert smoke.make_up_users([UserFeatures("u", watch=["mine"] * 10)]) == []


def test_a_few_profiles_of_a_few_phrases_always_the_same():
    phrases = [f"phrase {number}" for number in range(200)]
    people = [*crowd(*phrases), *crowd(*phrases[:60], first=20)]
    made_up = smoke.make_up_users(people)
    assert len(made_up) == smoke.PROFILES
    assert all(len(user.texts("watch")) == smoke.KEYPHRASES for user in made_up)
    assert {phrase for user in made_up for phrase in user.texts("watch")} <= set(phrases[:60])
    assert smoke.make_up_users(people[::-1]) == made_up


def test_written_and_read_again():
    body = json.dumps(smoke.render([ONE])).encode()
    assert smoke.parse(body, "smoke.json") == (ONE,)


@pytest.mark.parametrize(
    "body", [b"", b"[]", b'{"profiles": [{}]}', b'{"profiles": [{"features": [], "answers": {}}]}']
)
def test_something_else_is_refused(body):
    with pytest.raises(DataError, match=r"champion://b/models/m@v: holds no smoke profiles"):
        smoke.parse(body, "champion://b/models/m@v")


def test_asked_for_with_consent_and_with_nothing_withheld():
    assert smoke.request([ONE], ["u7"]) == {
        "instances": [
            {
                "user_id": "smoke-0",
                "features": {"watch": ("trail running",), "search": (), "submit": (), "consent": True},
            },
            {"user_id": "u7"},
        ],
        "parameters": {"thresholds": {"age": 1, "gender": 1}},
    }


def test_the_same_answers_a_level_apart_are_the_same():
    for level in (3, 4, 5):
        assert smoke.faults(shown(level=level), [ONE]) == []


@pytest.mark.parametrize(("age", "level"), [("35-44", 4), (None, None), ("25-34", 2)])
def test_other_answers_are_counted_by_attribute(age, level):
    assert smoke.faults(shown(age, level), [ONE]) == ["1 of 2 answers are not those of the evaluation (age 1)"]


def test_one_near_tie_among_many_answers_is_let_pass():
    many = [ONE] * 10
    entry, other = shown()["predictions"][0], shown("35-44")["predictions"][0]
    assert smoke.faults({"predictions": [entry] * 8 + [other] * 2}, many) == []
    assert smoke.faults({"predictions": [entry] * 7 + [other] * 3}, many) != []


def test_users_that_were_not_answered_and_malformed_answers_are_faults():
    failed = shown(error={"code": 504, "message": "too late"})
    assert smoke.faults(failed, [SmokeProfile({}, {})]) == ["profile 0 was not answered: too late"]
    malformed = {"predictions": [{"profile": {"age": {"tag": None, "reason": "malformed answer"}}}]}
    assert smoke.faults(malformed, smoke.UNMEASURED_PROFILES) == ["profile 0 is outside the grammar"]


def test_which_versions_have_answered():
    assert smoke.versions({"predictions": [*shown()["predictions"], {"model_version": "v1"}]}) == {"v1", "v2"}
