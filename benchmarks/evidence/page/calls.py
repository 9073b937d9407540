"""Which calls of `conf-profile experiment` the protocol names, and how each is typed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from benchmarks.evidence.command import NAMES
from benchmarks.evidence.page.findings import FULL_SEEDS

EVIDENCE = "runs/evidence"
"""Where the protocol puts the results; the page names this place wherever it reads them from."""
FIRST_SEED = 100
FEWER_SEEDS = {"second_stage_regimes": 2}
"""The experiments for which the protocol plans fewer seeds than for the others."""
HOME = "world-tiny"
"""The folder of the data set on which the paper's claims are judged."""


@dataclass(frozen=True)
class Place:
    """What the experiments of a folder are called with, and what has to run before them."""

    options: tuple[str, ...] = ()
    before: tuple[str, ...] = ()


PLACES: Mapping[str, Place] = {
    HOME: Place(),
    "movielens-100k-tiny": Place(("--dataset movielens-100k",)),
    "sentiment-tiny": Place(
        ("--config benchmarks/sentiment/run.yaml", f"--data {EVIDENCE}/sentiment-data"),
        (f"python -m benchmarks.sentiment.build --out {EVIDENCE}/sentiment-data",),
    ),
}
PLANNED_RUNS: tuple[tuple[str, str], ...] = (
    *((name, HOME) for name in NAMES if name != "transfer"),
    ("transfer", "movielens-100k-tiny"),
    ("transfer", "sentiment-tiny"),
)
"""Experiment and folder, in the protocol's order."""


def commands(name: str, place: str, first_seed: int = FIRST_SEED) -> list[str]:
    """The lines that make the results of an experiment in a folder, one of them for each command."""
    called = PLACES.get(place) or _default(place)
    seeds = f"--first-seed {first_seed} --seeds {FEWER_SEEDS.get(name, FULL_SEEDS)}"
    return [
        *called.before,
        " ".join(("conf-profile experiment", name, *called.options, seeds, f"--out {EVIDENCE}/{place}")),
    ]


def _default(place: str) -> Place:
    """A folder is named DATASET-PRESET unless its user said otherwise."""
    dataset, _, preset = place.rpartition("-")
    return Place((f"--dataset {dataset}", f"--preset {preset}"))
