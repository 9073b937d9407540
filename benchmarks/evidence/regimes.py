"""Where confidence weighting helps and where it breaks: the votes alone, over many kinds of teachers and histories.

One factor is varied at a time, everything else as in the preset; the number of samples M is varied with each. No
student is trained, so that hundreds of cells can be measured. The factors are the break conditions that reviewers of
the method name.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import getitem
from typing import Any

import numpy as np
import pyarrow.compute as pc

from benchmarks.evidence.artefacts import Artefacts
from benchmarks.evidence.measure import Yardstick
from benchmarks.evidence.plan import Settings
from benchmarks.evidence.results import METRICS, interval, p_value
from components.evaluation import teacher
from components.evaluation.cells import Population
from conf_profile.config import RunConfig
from conf_profile.consensus import voting
from conf_profile.evaluation import metrics
from conf_profile.evaluation.rows import integers

SAMPLES = (1, 2, 3, 5, 10, 20)
VOTES = ("majority_blind", "majority", "weighted", "log_odds", "em")
PAIRS = (("weighted", "majority"), ("weighted", "majority_blind"), ("em", "weighted"))
SHARED_SETTINGS: Settings = {"data.users": 1500, "teacher.samples": max(SAMPLES), "features.test_share": 0.9}
"""Nobody is trained on, so nearly all users are measured."""
LAST_STEP = "synthesis"
"""Every cell votes in many ways over the teacher's samples: the pipeline's own vote is none of them."""


@dataclass(frozen=True)
class Factor:
    """What is varied: a key of the configuration, its values, and what a reader should call it."""

    name: str
    title: str
    values: tuple[Any, ...]
    keys: tuple[str, ...]
    further: Settings

    def unchanged_values(self) -> list[Any]:
        """Those of its values with which world and teacher are as without the factor: one, or none."""
        usual = RunConfig().model_dump()
        values = {reduce(getitem, key.split("."), usual) for key in self.keys}
        return [value for value in self.values if values == {value} and not self.further]


FACTORS: tuple[Factor, ...] = (
    Factor("accuracy", "error of the teacher's evidence, nats", (0.0, 0.7, 1.5, 3.0, 6.0), ("data.lexicon.noise",), {}),
    Factor(
        "overconfidence",
        "levels added to two fifths of the tags",
        (0, 1, 2, 4),
        ("data.lexicon.overconfidence",),
        {"data.lexicon.overconfident_tags": 0.4},
    ),
    Factor(
        "correlation",
        "share of answers whose level is drawn at random",
        (0.0, 0.25, 0.5, 0.75, 1.0),
        ("data.lexicon.random_levels",),
        {},
    ),
    Factor(
        "history",
        "keyphrases of a user, median",
        (2, 5, 14, 50, 200),
        ("data.world.median_keyphrases",),
        {"prompt.max_keyphrases": 500},
    ),
    Factor("noise", "share of keyphrases that say nothing", (0.0, 0.3, 0.6, 0.9), ("data.world.noise_share",), {}),
)


def cells(factor: Factor) -> Iterator[tuple[Any, Settings]]:
    """Each value of a factor, and the settings that bring it about."""
    for value in factor.values:
        yield value, {**SHARED_SETTINGS, **factor.further, **dict.fromkeys(factor.keys, value)}


def measure(made: Artefacts) -> Iterator[dict[str, Any]]:
    """Counts of every vote over the first M samples, for each M: samples, vote, correct, answered, answerable."""
    people = Yardstick(made).people
    samples, asked = teacher.read_samples(made.candidates, people.taxonomy)
    rows = integers(pc.index_in(people.user_ids, asked), metrics.NO_TAG)
    for count in SAMPLES:
        for vote in VOTES:
            yield {"samples": count, "vote": vote, **_count(samples, rows, people, count, vote)}


def _count(
    samples: teacher.Samples, rows: metrics.IntArray, people: Population, count: int, vote: str
) -> dict[str, Any]:
    correct = answered = answerable = 0
    for column, attribute in enumerate(people.taxonomy.attributes):
        tags, levels = samples.tags[:, column, :count], samples.levels[:, column, :count]
        winner = voting.fit(tags, levels, len(attribute.tags), vote).elect(tags[rows], levels[rows]).tag
        truth = people.truth[:, column]
        known = truth != metrics.NO_TAG
        correct += int((winner == truth)[known].sum())
        answered += int((winner != voting.NO_ANSWER)[known].sum())
        answerable += int(known.sum())
    return {"correct": correct, "answered": answered, "answerable": answerable}


def f1(row: Mapping[str, Any]) -> float:
    """F1 of a row of counts."""
    total = row["answered"] + row["answerable"]
    return float(2 * row["correct"] / total) if total else 0.0


def group_by_cell(
    rows: Sequence[Mapping[str, Any]], factor: str, better: str, worse: str
) -> dict[tuple[Any, int], list[float]]:
    """(value, M) -> F1 of one vote minus another's, seed by seed."""
    found: dict[tuple[Any, int, int], dict[str, float]] = {}
    for row in rows:
        if row["factor"] == factor:
            found.setdefault((row["value"], row["samples"], row["seed"]), {})[row["vote"]] = f1(row)
    differences: dict[tuple[Any, int], list[float]] = {}
    for (value, samples, _), votes in sorted(found.items()):
        differences.setdefault((value, samples), []).append(votes[better] - votes[worse])
    return differences


def summarise(rows: Sequence[Mapping[str, Any]], dataset: str) -> dict[str, Any]:
    """As `results.summarise`; an arm is a vote in a cell, 'noise=0.3, M=10: weighted'."""
    arms: dict[str, dict[str, list[float]]] = {}
    for row in rows:
        arm = f"{row['factor']}={row['value']:g}, M={row['samples']}: {row['vote']}"
        rates = metrics.scores(np.array([row["correct"], row["answered"], row["answerable"]], dtype=np.float64))
        for metric in METRICS:
            arms.setdefault(arm, {}).setdefault(metric, []).append(getattr(rates, metric))
    return {
        "name": "regimes",
        "dataset": dataset,
        "seeds": sorted({row["seed"] for row in rows}),
        "arms": {arm: {name: list(interval(values)) for name, values in rates.items()} for arm, rates in arms.items()},
        "comparisons": [found for factor in FACTORS for pair in PAIRS for found in _comparisons(rows, factor, *pair)],
    }


def _comparisons(
    rows: Sequence[Mapping[str, Any]], factor: Factor, better: str, worse: str
) -> Iterator[dict[str, Any]]:
    for (value, samples), differences in group_by_cell(rows, factor.name, better, worse).items():
        cell = f"{factor.name}={value:g}, M={samples}"
        mean, low, high = interval(differences)
        names = {"better": f"{cell}: {better}", "worse": f"{cell}: {worse}", "metric": "f1"}
        yield names | {"difference": mean, "low": low, "high": high, "p": p_value(differences)}
