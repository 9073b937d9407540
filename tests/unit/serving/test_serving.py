"""The serving path's pure parts: requests, levels from log-probabilities, profiles, thresholds, the breaker."""

import json
import math
import re
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from conf_profile import tables
from conf_profile.config import PromptConfig
from conf_profile.consensus import confidence
from conf_profile.consensus.confidence import Calibration, Partition
from conf_profile.data.inferred import profiles_from_predictions
from conf_profile.dialogue import task as tasks
from conf_profile.dialogue.output_format import Answer, ProfileAnswer, render
from conf_profile.dialogue.prompts import UserFeatures
from conf_profile.errors import DataError, ServingError
from conf_profile.students import examples
from serving import settings
from serving.circuit_breaker import CircuitBreaker
from serving.model import bundle as bundles
from serving.model import levels, profile
from serving.model.bundle import Bundle
from serving.model.profile import Completion
from serving.transformer import features, request, write_back
from serving.transformer.request import BadRequestError

TAGS = tasks.parse({"attributes": {"age": ["young", "old"], "gender": ["female", "male"]}})
EVEN = Calibration("greedy", {name: Partition((0.2, 0.4, 0.6, 0.8)) for name in TAGS.names})
BUNDLE = Bundle("v1", TAGS, EVEN, EVEN, PromptConfig(student_style="brief"), 48, {"age": 3, "gender": 1}, {})
SETTINGS = settings.Settings(model="m")


def answer(age="old", gender="male", age_level=4, gender_level=2):
    given = {"age": Answer(age, age_level), "gender": Answer(gender, gender_level)}
    return render(ProfileAnswer("rose pruning", given), TAGS)


# ---- requests


def parse(body, **changed):
    return request.parse(body, BUNDLE, SETTINGS.model_copy(update=changed))


def test_a_plain_request():
    found = parse({"instances": [{"user_id": "u1"}, {"user_id": "u2", "features": {"watch": []}}]})
    assert [(i.user_id, i.features) for i in found.instances] == [("u1", None), ("u2", {"watch": []})]
    assert (found.samples, found.explain, found.thresholds) == (1, False, {})


def test_thresholds_of_the_request_go_over_the_configuration_over_the_model():
    body = {"instances": [{"user_id": "u"}], "parameters": {"thresholds": {"gender": 5}}}
    configured = SETTINGS.model_copy(update={"thresholds": {"age": 2, "gender": 4}})
    assert request.thresholds(parse(body), BUNDLE, configured) == {"age": 2, "gender": 5}


UNJUDGED = replace(BUNDLE, thresholds={"age": 3, "gender": None}, judged=False)


def test_what_an_unjudged_model_never_accepts_no_request_and_no_configuration_accepts():
    body = {"instances": [{"user_id": "u"}], "parameters": {"thresholds": {"age": 1, "gender": 1}}}
    configured = SETTINGS.model_copy(update={"thresholds": {"gender": 1}})
    limits = request.thresholds(request.parse(body, UNJUDGED, configured), UNJUDGED, configured)
    assert limits == {"age": 1, "gender": None}
    found = profile.profile([Completion(answer(), (4.5, 5.0))], UNJUDGED, limits)
    assert found.attributes["age"].to_json()["accepted"]
    assert found.attributes["gender"].to_json() == {
        "tag": None, "level": 5, "score": 1.0, "accepted": False,
        "reason": "never accepted: the model is unjudged, and no lowest level was given",
    }  # fmt: skip


def test_of_an_unjudged_model_nothing_is_passed_on_that_is_never_accepted():
    found = profile.profile([Completion(answer(), (4.5, 5.0))], UNJUDGED, {"age": 1, "gender": None})
    passed = write_back.to_inferred_profile("u", found, UNJUDGED, {"gender": 1})
    assert [(tag.attribute, tag.tag) for tag in passed.tags] == [("age", "old")]
    rows = [{"user_id": "u", "attribute": name, "tag": "old", "level": 5, "score": 1.0} for name in ("age", "gender")]
    (stored,) = profiles_from_predictions(
        tables.from_rows(rows, tables.PREDICTIONS), UNJUDGED.thresholds, "v1", datetime.now(UTC)
    )
    assert [tag.attribute for tag in stored.tags] == ["age"]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ([], "an object with a list 'instances'"),
        ({"instances": {}}, "an object with a list 'instances'"),
        ({"instances": []}, "has 0 entries; 1 to 256"),
        ({"instances": [{"user_id": "u"}] * 257}, "has 257 entries"),
        ({"instances": ["u"]}, r"instances\[0\] must be an object"),
        ({"instances": [{"user_id": "u"}, {"user_id": " "}]}, r"instances\[1\]: 'user_id'"),
        ({"instances": [{"user_id": 7}]}, r"instances\[0\]: 'user_id'"),
        ({"instances": [{"user_id": "u"}], "parameters": []}, None),
        ({"instances": [{"user_id": "u"}], "parameters": [1]}, "'parameters' must be an object"),
        ({"instances": [{"user_id": "u"}], "parameters": {"tau": 3}}, r"unknown parameter\(s\) tau"),
        ({"instances": [{"user_id": "u"}], "parameters": {"thresholds": {"height": 3}}}, "no attribute 'height'"),
        ({"instances": [{"user_id": "u"}], "parameters": {"thresholds": {"age": 6}}}, "'age' is 6; a level is 1 to 5"),
        ({"instances": [{"user_id": "u"}], "parameters": {"thresholds": {"age": True}}}, "'age' is True"),
        ({"instances": [{"user_id": "u"}], "parameters": {"samples": 0}}, "'samples' is 0; 1 to 16"),
        ({"instances": [{"user_id": "u"}], "parameters": {"samples": 2.5}}, "'samples' is 2.5"),
        ({"instances": [{"user_id": "u"}], "parameters": {"explain": "yes"}}, "'explain' is 'yes'"),
    ],
)
def test_a_request_that_breaks_the_api_is_told_where(body, message):
    if message is None:
        assert parse(body).samples == 1
        return
    with pytest.raises(BadRequestError, match=message):
        parse(body)


def test_features_of_a_request_need_consent_and_a_form():
    given = {"watch": ["a"], "self_age": "31", "consent": True}
    assert features.read_request_features("u", given, TAGS.features, True).features == UserFeatures(
        "u", watch=("a",), self_age="31"
    )
    assert features.read_request_features("u", {"watch": ["a"]}, TAGS.features, True).reason == "no consent"
    assert features.read_request_features("u", {"watch": ["a"]}, TAGS.features, False).features is not None
    assert (
        features.read_request_features("u", {"watch": ["a"], "consent": False}, TAGS.features, False).features is None
    )
    for wrong, message in (
        ([], "must be an object"),
        ({"watch": "a", "consent": True}, "'watch' must be a list of texts"),
        ({"watch": [1], "consent": True}, "'watch' must be a list of texts"),
        ({"region": 3, "consent": True}, "'region' must be a text"),
        ({"height": 3, "consent": True}, r"unknown feature\(s\) height"),
        ({"watch": ["a"] * 1001, "consent": True}, "has 1001 keyphrases"),
    ):
        with pytest.raises(features.BadFeaturesError, match=f"user 'u': .*{message}"):
            features.read_request_features("u", wrong, TAGS.features, True)


# ---- levels from log-probabilities


def token(text, **probabilities):
    top = [{"token": other, "logprob": math.log(p)} for other, p in (probabilities or {text: 1.0}).items()]
    return {"token": text, "logprob": top[0]["logprob"], "top_logprobs": top}


def test_a_level_is_the_expected_value_of_its_digit():
    digit = {"token": "4", "top_logprobs": [{"token": t, "logprob": math.log(p)} for t, p in (("4", 0.6), ("5", 0.2))]}
    content = [token("<age>old"), token("<level>"), digit, token("</level></age>")]
    assert levels.expected_levels(content) == [pytest.approx((4 * 0.6 + 5 * 0.2) / 0.8)]


def test_a_level_inside_a_larger_token_is_compared_with_the_same_token_of_another_digit():
    pieces = {"<level>2</level>": 0.5, "<level>1</level>": 0.5, "<level>5</other>": 0.9}
    top = [{"token": t, "logprob": math.log(p)} for t, p in pieces.items()]
    content = [token("old"), {"token": "<level>2</level>", "top_logprobs": top}]
    assert levels.expected_levels(content) == [pytest.approx(1.5)]


def test_without_alternatives_the_stated_level_counts():
    assert levels.expected_levels([{"token": "<level>3</level>", "top_logprobs": []}]) == [3.0]
    assert levels.expected_levels([]) == []


# ---- profiles


def test_one_completion_becomes_a_calibrated_profile():
    found = profile.profile([Completion(answer(), (4.5, 1.2))], BUNDLE, BUNDLE.thresholds)
    assert found.attributes["age"].to_json() == {"tag": "old", "level": 5, "score": 0.9, "accepted": True}
    assert found.attributes["gender"].to_json() == {"tag": "male", "level": 2, "score": 0.24, "accepted": True}
    assert (found.rationale, found.malformed) == ("rose pruning", 0)


def test_an_answer_below_its_threshold_is_withheld_with_the_reason():
    found = profile.profile([Completion(answer(), (2.0, 2.0))], BUNDLE, BUNDLE.thresholds)
    assert found.attributes["age"].to_json() == {"tag": "old", "level": 3, "score": 0.4, "accepted": True}
    found = profile.profile([Completion(answer(), (1.0, 2.0))], BUNDLE, BUNDLE.thresholds)
    shown = {"tag": None, "level": 2, "score": 0.2, "accepted": False, "reason": "below threshold 3"}
    assert found.attributes["age"].to_json() == shown


def test_unknown_and_malformed_say_why():
    found = profile.profile([Completion(answer(age=None), (1.0, 3.0))], BUNDLE, BUNDLE.thresholds)
    assert found.attributes["age"].to_json() == {"tag": None, "accepted": False, "reason": "the evidence says nothing"}
    cut = profile.profile([Completion(answer()[:40])], BUNDLE, BUNDLE.thresholds)
    assert {a.reason for a in cut.attributes.values()} == {"malformed answer"} and cut.malformed == 1


def test_a_vote_has_a_partition_of_its_own():
    sure = Calibration("vote", {name: Partition((0.1, 0.12, 0.14, 0.16)) for name in TAGS.names})
    bundle = replace(BUNDLE, vote_calibration=sure)
    texts = [Completion(answer("old", "male", 2, 1)), Completion(answer("young", "male", 1, 1))]
    found = profile.profile(texts, bundle, bundle.thresholds)
    assert (found.attributes["age"].score, found.attributes["age"].level) == (0.2, 5)


def test_several_completions_are_voted_on_and_malformed_ones_counted():
    texts = [answer("old", "male", 5, 1), answer("young", "male", 2, 1), answer("young", "female", 2, 5), "cut"]
    found = profile.profile([Completion(text) for text in texts], BUNDLE, {"age": 1, "gender": 1})
    assert (found.attributes["age"].tag, found.attributes["gender"].tag) == ("old", "female")
    assert found.attributes["age"].score == pytest.approx(5 / 20)
    assert found.malformed == 1


# ---- the breaker


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def test_the_breaker_opens_after_failures_in_a_row_and_tries_once():
    clock = Clock()
    breaker = CircuitBreaker(3, 5.0, clock)
    breaker.record_failure()
    breaker.record_failure()
    breaker.record_success()
    for _ in range(3):
        assert breaker.allow()
        breaker.record_failure()
    assert breaker.state == "open" and not breaker.allow()
    clock.now = 5.0
    assert breaker.state == "half_open" and breaker.allow() and not breaker.allow()
    breaker.record_failure()
    assert not breaker.allow()
    clock.now = 10.0
    assert breaker.allow()
    breaker.record_success()
    assert breaker.state == "closed" and breaker.allow()


def test_a_trial_that_says_nothing_frees_its_place():
    clock = Clock()
    breaker = CircuitBreaker(1, 5.0, clock)
    breaker.record_failure()
    clock.now = 6.0
    assert breaker.allow() and not breaker.allow()
    breaker.release_trial()
    assert breaker.allow()


# ---- settings and the model's folder


def test_settings_name_the_wrong_key(tmp_path):
    file = tmp_path / "serving.yaml"
    file.write_text("model: m\npredictor: {concurency: 3}\n")
    with pytest.raises(ServingError, match=r"serving\.yaml: predictor\.concurency"):
        settings.read(file)
    file.write_text("model: m\npredictor: {concurrency: 3}\n")
    assert settings.read(file).predictor.concurrency == 3
    with pytest.raises(ServingError, match="cannot be read"):
        settings.read(tmp_path / "absent.yaml")


@pytest.fixture
def folder(tmp_path):
    TAGS.save(tmp_path / "task.yaml")
    confidence.save(EVEN, tmp_path / "calibration.json")
    profile_json = {"prompt": {"student_style": "brief", "max_keyphrases": 7}, "max_completion_tokens": 48}
    (tmp_path / "profile.json").write_text(json.dumps(profile_json))
    return tmp_path


def test_a_students_folder_is_enough_and_a_version_says_more(folder):
    found = bundles.load(folder)
    assert (found.version, found.thresholds) == ("unreleased", {"age": 1, "gender": 1})
    assert found.vote_calibration.partitions["age"].boundaries == (0.2, 0.4, 0.6, 0.8)
    (folder / "thresholds.json").write_text('{"age": 4}')
    (folder / "manifest.json").write_text('{"version": "v7"}')
    found = bundles.load(folder)
    assert (found.version, found.thresholds) == ("v7", {"age": 4, "gender": 1})


def test_a_version_that_nobody_has_judged_accepts_what_has_a_level_and_nothing_else(folder):
    (folder / "evaluation.json").write_text('{"judged": false}')
    assert bundles.load(folder).thresholds == {"age": None, "gender": None}
    (folder / "thresholds.json").write_text('{"age": 4, "gender": null}')
    found = bundles.load(folder)
    assert (found.judged, found.thresholds) == (False, {"age": 4, "gender": None})
    (folder / "evaluation.json").write_text('{"arms": {}}')
    (folder / "thresholds.json").write_text('{"age": 4}')
    assert bundles.load(folder).judged


def test_the_prompt_is_the_one_of_training(folder):
    found, user = bundles.load(folder), UserFeatures("u", watch=[f"phrase {i}" for i in range(9)], self_age="31")
    assert found.messages(user) == examples.student_messages(user, TAGS, found.prompt)
    assert "phrase 1;" not in found.messages(user)[0]["content"]


def test_the_grammar_lets_every_answer_of_training_through(folder):
    found = bundles.load(folder)
    long = render(ProfileAnswer("x" * 600, {"age": Answer("old", 4), "gender": Answer(None, 1)}), TAGS)
    assert re.fullmatch(found.grammar, answer()) and re.fullmatch(found.grammar, long)


def test_a_folder_without_a_profile_is_named(folder):
    (folder / "profile.json").unlink()
    with pytest.raises(DataError, match=r"profile\.json: cannot be read.*give a model's folder"):
        bundles.load(folder)
