"""Drift of served answers: the divergence, the baseline read off an evaluation, the window."""

from dataclasses import replace

import pytest
from prometheus_client import CollectorRegistry

from conf_profile.config import PromptConfig
from conf_profile.consensus.confidence import Calibration, Partition
from conf_profile.dialogue import task as tasks
from serving.model.bundle import Bundle
from serving.model.profile import Attribute, Profile
from serving.telemetry.drift import DriftCollector, DriftMonitor, baseline, divergence

TAGS = tasks.parse({"attributes": {"gender": ["female", "male"]}})
EVEN = Calibration("greedy", {"gender": Partition((0.2, 0.4, 0.6, 0.8))})
COVERAGE = (1.0, 0.8, 0.6, 0.4, 0.2)
EVALUATION = {
    "candidate": "sft_grpo",
    "arms": {
        "sft_grpo": {
            "confusion": {"gender": {"matrix": [[30, 10, 5], [20, 40, 5]]}},
            "sweep_per_attribute": {
                "gender": [{"tau": tau, "coverage": share} for tau, share in enumerate(COVERAGE, start=1)]
            },
        }
    },
}


def bundle(evaluation):
    return Bundle("v1", TAGS, EVEN, EVEN, PromptConfig(student_style="brief"), 48, {"gender": 1}, evaluation)


def said(tag, level):
    return Profile({"gender": Attribute(tag, level, 0.5, True)})


def test_divergence_is_nothing_for_equal_shares_and_one_bit_for_disjoint_ones():
    assert divergence([1, 3], [10, 30]) == 0.0
    assert divergence([5, 0], [0, 7]) == pytest.approx(1.0)
    assert divergence([1, 0], [1, 1]) == pytest.approx(0.3113, abs=1e-4)
    assert divergence([1, 0], [1, 1]) == divergence([1, 1], [1, 0])
    assert divergence([0, 0], [1, 1]) == 0.0


def test_the_baseline_is_what_the_candidate_predicted_at_its_evaluation():
    tags, levels = baseline(bundle(EVALUATION))["gender"]
    assert tags.tolist() == [50, 50]
    assert levels.tolist() == pytest.approx([0.2] * 5)
    assert baseline(bundle({})) == {}


def test_an_unjudged_model_has_a_baseline_of_its_answers_alone():
    counted = {"gender": {"tag_counts": [40, 60], "level_counts": [20] * 5}}
    answers = {"sft": {"per_attribute": {}}, "sft_grpo": {"per_attribute": counted}}
    evaluation = {"judged": False, "candidate": "sft_grpo", "answers": answers}
    tags, levels = baseline(replace(bundle(evaluation), judged=False))["gender"]
    assert (tags.tolist(), levels.tolist()) == ([40, 60], [20] * 5)


def test_answers_like_those_at_evaluation_show_no_drift_and_others_do():
    monitor = DriftMonitor(bundle(EVALUATION), window=100, minimum=50)
    for number in range(100):
        monitor.observe(said(("female", "male")[number % 2], 1 + number % 5))
    assert [bits for _, _, bits in monitor.divergences()] == pytest.approx([0.0, 0.0])
    for _ in range(100):
        monitor.observe(said("male", 5))
    found = {kind: bits for _, kind, bits in monitor.divergences()}
    assert found["tag"] == pytest.approx(0.3113, abs=1e-4) and found["level"] > 0.5


def test_too_few_answers_or_no_baseline_have_no_divergence():
    few = DriftMonitor(bundle(EVALUATION), minimum=3)
    few.observe(said("male", 5))
    few.observe(Profile({"gender": Attribute(None, None, None, False, "the evidence says nothing")}))
    assert list(few.divergences()) == []
    unknown = DriftMonitor(bundle({}), minimum=1)
    unknown.observe(said("male", 5))
    assert list(unknown.divergences()) == []


def test_prometheus_reads_the_version_that_is_served():
    served = [DriftMonitor(bundle(EVALUATION), minimum=1)]
    registry = CollectorRegistry()
    registry.register(DriftCollector(lambda: served[-1]))
    labels = {"attribute": "gender", "of": "tag"}
    assert registry.get_sample_value("conf_profile_drift_bits", labels) is None
    served.append(DriftMonitor(bundle(EVALUATION), minimum=1))
    served[-1].observe(said("male", 5))
    assert registry.get_sample_value("conf_profile_drift_bits", labels) == pytest.approx(0.3113, abs=1e-4)
