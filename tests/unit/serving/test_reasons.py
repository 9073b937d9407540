"""Why nothing is said of an attribute: a word of the API for callers, and one type for whoever decides by it."""

import json

import pytest

from conf_profile.config import PromptConfig
from conf_profile.consensus.confidence import Calibration, Partition
from conf_profile.dialogue import task as tasks
from conf_profile.dialogue.reasons import Reason
from conf_profile.rollout import smoke
from serving.model.bundle import Bundle
from serving.model.profile import Attribute, Completion, empty_profile, profile
from serving.transformer import transformer

TAGS = tasks.parse({"attributes": {"age": ["young", "old"]}})
EVEN = Calibration("greedy", {"age": Partition((0.2, 0.4, 0.6, 0.8))})
BUNDLE = Bundle("v1", TAGS, EVEN, EVEN, PromptConfig(), 48, {"age": 1}, {})


def answered(found):
    """The answer of the API as a client reads it."""
    shown = {name: attribute.to_json() for name, attribute in found.attributes.items()}
    return json.loads(json.dumps({"predictions": [{"profile": shown}]}))


def test_the_words_of_the_api_stay():
    assert [reason.value for reason in Reason] == [
        "malformed answer", "the evidence says nothing", "no consent", "unknown user",
        "the feature store gave no answer", "the predictor gave no answer",
        "never accepted: the model is unjudged, and no lowest level was given",
    ]  # fmt: skip


def test_a_rollout_recognises_a_malformed_answer_of_what_it_serves():
    malformed = answered(profile([Completion("nonsense")], BUNDLE, {"age": 1}))
    assert smoke.faults(malformed, smoke.UNMEASURED_PROFILES) == ["profile 0 is outside the grammar"]


@pytest.mark.parametrize("reason", [reason for reason in Reason if reason is not Reason.MALFORMED])
def test_no_other_reason_is_taken_for_one(reason):
    assert smoke.faults(answered(empty_profile(BUNDLE, reason)), smoke.UNMEASURED_PROFILES) == []


def test_every_reason_is_an_outcome_of_the_metrics():
    outcomes = {reason: transformer._outcome(Attribute(None, None, None, False, reason)) for reason in Reason}
    assert outcomes == {
        Reason.MALFORMED: "malformed",
        Reason.UNKNOWN: "unknown",
        Reason.NO_CONSENT: "no_consent",
        Reason.NO_USER: "unknown_user",
        Reason.NO_FEATURES: "failed",
        Reason.NO_ANSWER: "failed",
        Reason.NO_LEVEL: "never_accepted",
    }
    assert transformer._outcome(Attribute("old", 2, 0.3, False, "below threshold 3")) == "below_threshold"
    assert transformer._outcome(Attribute("old", 4, 0.7, True)) == "accepted"
