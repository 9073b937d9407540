"""Whether served answers still look like those that the model was judged by.

For each attribute the last answers' tags and levels are compared with the distribution at evaluation, by the
Jensen-Shannon divergence in bits: 0 the same, 1 nothing in common. It needs no label. A rise says that people or
features have changed (or a feature feed broke), not that the model is wrong; but its measured precision no longer
applies.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from conf_profile.dialogue.output_format import LEVELS
from conf_profile.evaluation.unjudged.agreement import divergence
from serving.model.bundle import Bundle
from serving.model.profile import Profile

WINDOW = 2000
"""Answers of each attribute that are compared: enough for stable shares, few enough to notice within the hour."""
MINIMUM = 200
"""Fewer answers than this have no divergence: chance alone would look like drift."""

Counts = npt.NDArray[np.float64]


class DriftMonitor:
    """Counts the answers of one model version; a Prometheus collector reads `divergences`."""

    def __init__(self, bundle: Bundle, window: int = WINDOW, minimum: int = MINIMUM) -> None:
        self._minimum = minimum
        self._indices = {attribute.name: attribute.index for attribute in bundle.task.attributes}
        self._baseline = baseline(bundle)
        self._answers: dict[str, deque[tuple[int, int]]] = {name: deque(maxlen=window) for name in self._indices}

    def observe(self, profile: Profile) -> None:
        """Counts one profile, withheld answers too; attributes of which nothing was said do not count."""
        for name, attribute in profile.attributes.items():
            if attribute.tag is not None and attribute.level is not None:
                self._answers[name].append((self._indices[name][attribute.tag], attribute.level))

    def divergences(self) -> Iterator[tuple[str, str, float]]:
        """(attribute, "tag" or "level", bits) wherever enough was answered and a baseline is known."""
        for name, answers in self._answers.items():
            if len(answers) < self._minimum or name not in self._baseline:
                continue
            tags, levels = np.array(answers).T
            expected_tags, expected_levels = self._baseline[name]
            yield name, "tag", divergence(np.bincount(tags, minlength=len(expected_tags)), expected_tags)
            yield name, "level", divergence(np.bincount(levels, minlength=len(LEVELS) + 1)[1:], expected_levels)


class DriftCollector(Collector):
    """Exposes the divergences of the version that is served; they are computed when Prometheus asks.

    `monitor` gives the monitor of the version that is served at that moment.
    """

    def __init__(self, monitor: Callable[[], DriftMonitor]) -> None:
        self._monitor = monitor

    def collect(self) -> Iterator[GaugeMetricFamily]:
        family = GaugeMetricFamily(
            "conf_profile_drift_bits",
            "Jensen-Shannon divergence of served answers from those at evaluation",
            labels=["attribute", "of"],
        )
        for attribute, kind, bits in self._monitor().divergences():
            family.add_metric([attribute, kind], bits)
        yield family


def baseline(bundle: Bundle) -> Mapping[str, tuple[Counts, Counts]]:
    """Attribute -> counts of predicted tags, and shares of levels 1-5, of the candidate at its evaluation."""
    evaluation = bundle.evaluation
    if not bundle.judged:
        return _unjudged_baseline(bundle)
    arm = evaluation.get("arms", {}).get(evaluation.get("candidate", ""))
    if arm is None:
        return {}
    return {
        name: (_predicted_tags(arm["confusion"][name]["matrix"]), _levels(arm["sweep_per_attribute"][name]))
        for name in bundle.task.names
        if name in arm["confusion"] and name in arm["sweep_per_attribute"]
    }


def _unjudged_baseline(bundle: Bundle) -> Mapping[str, tuple[Counts, Counts]]:
    """The same where no label was there: such an evaluation counts the answers themselves."""
    answers = bundle.evaluation.get("answers", {}).get(bundle.evaluation.get("candidate", ""), {})
    return {
        name: (np.asarray(said["tag_counts"], dtype=np.float64), np.asarray(said["level_counts"], dtype=np.float64))
        for name, said in answers.get("per_attribute", {}).items()
        if name in bundle.task.names
    }


def _predicted_tags(matrix: Sequence[Sequence[int]]) -> Counts:
    """Columns are predictions; the last one is "none"."""
    return np.asarray(np.asarray(matrix, dtype=np.float64).sum(axis=0)[:-1])


def _levels(sweep: Sequence[Mapping[str, Any]]) -> Counts:
    """Coverage at or above each threshold to the share of each level."""
    coverage = [float(point["coverage"]) for point in sorted(sweep, key=lambda point: int(point["tau"]))]
    return np.asarray([above - beyond for above, beyond in zip(coverage, [*coverage[1:], 0.0], strict=True)])
