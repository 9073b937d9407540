"""What an arm got right on the test users. The only module of the experiments that reads true labels.

Counts (correct, answered, answerable) are kept, not rates: every figure of the evidence page can be made from them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from benchmarks.evidence.artefacts import Artefacts
from benchmarks.evidence.plan import Arm
from components.evaluation import teacher
from components.evaluation.cells import (
    Population,
    feature_slices,
    population,
    read_predictions,
)
from conf_profile import tables
from conf_profile.consensus import confidence
from conf_profile.dialogue import task as tasks
from conf_profile.dialogue.output_format import LEVELS
from conf_profile.evaluation import metrics
from conf_profile.evaluation.arms import teacher_arm
from conf_profile.evaluation.metrics import BoolArray, Cells

EVERYBODY = ""
ALL_ATTRIBUTES = ""


@dataclass(frozen=True)
class Count:
    """Counts of one arm over the test users of a slice, answers below level `tau` left out."""

    arm: str
    slice: str
    attribute: str
    tau: int
    correct: int
    answered: int
    answerable: int


@dataclass(frozen=True)
class Observation:
    """Anything else that was seen of an arm: a name and a number."""

    arm: str
    name: str
    value: float


@dataclass(frozen=True)
class Yardstick:
    """The test users of a run and their true tags."""

    made: Artefacts

    @cached_property
    def people(self) -> Population:
        data = self.made.data
        if data.labels is None:
            raise ValueError(f"{data.folder} has no labels to measure with")
        features, labels = tables.read_features(self.made.features), tables.read(data.labels, tables.LABELS)
        return population(features, labels, "test", tasks.load(data.task))

    @cached_property
    def slices(self) -> Mapping[str, BoolArray]:
        """Groups of users by name; none of them is made from a label."""
        found = feature_slices(self.people)
        terciles = [mask for name, mask in found.items() if name.startswith("history: ")]
        # Their bounds in keyphrases differ from seed to seed, and equal histories can leave fewer than three.
        short_to_long = dict(zip(("history: short", "history: middle", "history: long"), terciles, strict=False))
        return {name: mask for name, mask in found.items() if not name.startswith("history: ")} | short_to_long


def arm_cells(arm: Arm, made: Artefacts, people: Population) -> Cells | None:
    """What the arm says of the test users; None where the data set has no such arm (a ceiling, a lexicon)."""
    if arm.stage == "majority_tag":
        return metrics.majority_tag(people.truth, [len(attribute.tags) for attribute in people.taxonomy.attributes])
    if arm.stage == "ceiling":
        known = made.data.paths.get("ceiling.parquet")
        return None if known is None else read_predictions(known, people, arm.name)
    if arm.stage == "teacher":
        methods = () if arm.vote == "single" else (arm.vote,)
        return teacher.arms(made.candidates, people, methods)[teacher_arm(arm.vote)]
    return read_predictions(made.path("predictions"), people, arm.name)


def counts(arm: str, cells: Cells, yardstick: Yardstick) -> Iterator[Count]:
    """Over all attributes and each of them, at every threshold; slices at threshold 0 alone."""
    people = yardstick.people
    for tau in (0, *LEVELS):
        yield from _counts(arm, EVERYBODY, tau, metrics.counts(cells, tau), people)
    everything = metrics.counts(cells)
    for name, mask in yardstick.slices.items():
        yield from _counts(arm, name, 0, everything[mask], people)
    for column, attribute in enumerate(people.taxonomy.attributes):
        for position, tag in enumerate(attribute.tags):
            of_tag = everything[people.truth[:, column] == position, column].sum(axis=0)
            yield Count(arm, f"tag: {tag}", attribute.name, 0, *map(int, of_tag))


def observations(arm: Arm, made: Artefacts, cells: Cells) -> Iterator[Observation]:
    """Levels, balance and tag entropy of the answers; of a second stage also what its log says at the end."""
    given = _levels(cells)
    for level, count in zip(LEVELS, given, strict=True):
        yield Observation(arm.name, f"level {level}", float(count))
    yield Observation(arm.name, "imbalance of levels", confidence.balance_of_counts(given))
    yield Observation(arm.name, "tag entropy", _tag_entropy(cells))
    if arm.stage == "teacher":
        yield from _labelling(arm, made)
    if arm.stage == "grpo":
        yield from _training(arm, made)
        yield from _drift(arm, made, cells)


def _counts(arm: str, name: str, tau: int, found: metrics.FloatArray, people: Population) -> Iterator[Count]:
    """`found` is [users, attributes, 3]."""
    by_attribute = found.sum(axis=0)
    yield Count(arm, name, ALL_ATTRIBUTES, tau, *map(int, by_attribute.sum(axis=0)))
    for attribute, row in zip(people.taxonomy.names, by_attribute, strict=True):
        yield Count(arm, name, attribute, tau, *map(int, row))


def _tag_entropy(cells: Cells) -> float:
    """Summed over the attributes, in nats."""
    total = 0.0
    for column in cells.prediction.T:
        share = np.bincount(column[column != metrics.NO_TAG]) / max(1, int((column != metrics.NO_TAG).sum()))
        total -= float((share[share > 0] * np.log(share[share > 0])).sum())
    return total


def _labelling(arm: Arm, made: Artefacts) -> Iterator[Observation]:
    """Verbal levels as the teacher said them, and after the partition, over everybody who was asked."""
    report = json.loads(made.path("labelling_report").read_text(encoding="utf-8"))
    for kind in ("raw_levels", "calibrated_levels"):
        summed = np.sum(list(report[kind].values()), axis=0)
        for level, count in zip(LEVELS, summed, strict=True):
            yield Observation(arm.name, f"{kind} {level}", float(count))
        yield Observation(arm.name, f"imbalance of {kind}", confidence.balance_of_counts(summed))


def _training(arm: Arm, made: Artefacts) -> Iterator[Observation]:
    history = json.loads(made.path("grpo_log").read_text(encoding="utf-8"))
    for name in ("reward", "agreement", "kl", "entropy", "tag_entropy"):
        values = [row[name] for row in history if name in row]
        if values:
            yield Observation(arm.name, f"{name}, first 5 steps", float(np.mean(values[:5])))
            yield Observation(arm.name, f"{name}, last 5 steps", float(np.mean(values[-5:])))
    done: dict[str, Any] = json.loads(made.path("grpo_metrics").read_text(encoding="utf-8"))
    yield Observation(arm.name, "collapsed", float(done["collapsed"]))
    yield Observation(arm.name, "steps", float(done["steps"]))
    kept = pq.read_table(made.path("filtered"), columns=["user_id", "kept"])
    yield Observation(arm.name, "users of the second stage", float(sum(kept["kept"].to_pylist())))
    yield from _kept_by_tag(arm, made)


def _drift(arm: Arm, made: Artefacts, cells: Cells) -> Iterator[Observation]:
    """What the levels would be with the partition from before GRPO, and how precision rises over each of the two."""
    from conf_profile.students.folder import load_calibration

    taught = "rejection_student" if "rejection_student" in made.outputs else "sft_student"
    before = load_calibration(made.path(taught))
    level = np.zeros_like(cells.level)
    for column, name in enumerate(before.partitions):
        said = cells.prediction[:, column] != metrics.NO_TAG
        level[said, column] = confidence.apply(before, name, cells.score[said, column])
    old = Cells(cells.prediction, level, cells.score, cells.truth)
    yield Observation(arm.name, "imbalance of levels, old partition", confidence.balance_of_counts(_levels(old)))
    for kind, found in (("old", old), ("new", cells)):
        curve = metrics.sweep(found)
        # Where nothing stands at the highest level there is no precision to compare.
        if curve[-1].scores.coverage > 0:
            rise = curve[-1].scores.precision - curve[0].scores.precision
            yield Observation(arm.name, f"rise of precision, {kind} partition", rise)


def _levels(cells: Cells) -> metrics.IntArray:
    return np.array(metrics.level_counts(cells))


def _kept_by_tag(arm: Arm, made: Artefacts) -> Iterator[Observation]:
    """Which share of the users that the reference gives each tag passes the filter: who is thrown away."""
    kept = {row["user_id"]: row["kept"] for row in tables.read(made.path("filtered"), tables.FILTERED).to_pylist()}
    of_tag: dict[str, list[bool]] = {}
    for row in tables.read(made.path("reference"), tables.REFERENCE).to_pylist():
        of_tag.setdefault(f"{row['attribute']}={row['tag']}", []).append(kept[row["user_id"]])
    for tag, passed in sorted(of_tag.items()):
        yield Observation(arm.name, f"kept of {tag}", float(np.mean(passed)))
        yield Observation(arm.name, f"reference users of {tag}", float(len(passed)))


def rows(items: Iterator[Any], **constant: Any) -> list[dict[str, Any]]:
    """Dictionaries of dataclasses, with the same further columns."""
    return [constant | asdict(item) for item in items]
