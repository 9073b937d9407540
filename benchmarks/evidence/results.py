"""Results over seeds: Parquet of counts in; means, 95% intervals and paired tests out.

A seed draws new people (where the data set is generated), new teacher's answers and new weights; all arms of a seed
answer for the same users. So the unit is the seed: intervals are Student's t over the seeds' values, and a comparison
is the paired t over the seeds' differences. With one seed there is no interval.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.evidence.measure import ALL_ATTRIBUTES, EVERYBODY
from benchmarks.evidence.plan import Comparison, Experiment
from conf_profile.evaluation import metrics
from conf_profile.files import atomic_path

METRICS = ("precision", "recall", "f1")
ROUNDING = 1e-12
"""Differences that differ by less are equal, and have no spread to test with."""
Triple = tuple[float, float | None, float | None]
"""Mean, and the ends of its 95% interval (None with a single seed)."""


@dataclass(frozen=True)
class Results:
    """The counts and observations of one experiment on one data set."""

    counts: list[dict[str, Any]]
    observations: list[dict[str, Any]]

    @property
    def seeds(self) -> list[int]:
        return sorted({row["seed"] for row in self.counts})

    @property
    def arms(self) -> list[str]:
        """In the order in which they were measured."""
        return list(dict.fromkeys(row["arm"] for row in self.counts))

    def by_seed(
        self, arm: str, slice_: str = EVERYBODY, attribute: str = ALL_ATTRIBUTES, tau: int = 0
    ) -> dict[int, dict[str, float]]:
        """Seed -> precision, recall, f1, coverage."""
        wanted = (arm, slice_, attribute, tau)
        return {
            row["seed"]: _rates(row)
            for row in self.counts
            if (row["arm"], row["slice"], row["attribute"], row["tau"]) == wanted
        }

    def observed_values(self, arm: str, name: str) -> list[float]:
        """The values of an observation, seed by seed."""
        return [row["value"] for row in self.observations if (row["arm"], row["name"]) == (arm, name)]

    def interval(self, arm: str, metric: str, **where: Any) -> Triple:
        """Mean over the seeds with its interval."""
        return interval([values[metric] for values in self.by_seed(arm, **where).values()])

    def difference(self, comparison: Comparison, **where: Any) -> list[float]:
        """`better` minus `worse`, seed by seed, over the seeds that have both."""
        better, worse = (self.by_seed(arm, **where) for arm in (comparison.better, comparison.worse))
        return [better[seed][comparison.metric] - worse[seed][comparison.metric] for seed in better if seed in worse]


def interval(values: Sequence[float]) -> Triple:
    """Mean and Student's t 95% interval."""
    mean = float(np.mean(values))
    if len(values) < 2:
        return mean, None, None
    from scipy.stats import t

    half = float(t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / len(values) ** 0.5)
    return mean, mean - half, mean + half


def p_value(differences: Sequence[float]) -> float | None:
    """Two-sided p of the paired t test that the mean difference is zero; None with a single seed."""
    if len(differences) < 2:
        return None
    from scipy.stats import ttest_1samp

    if np.ptp(differences) < ROUNDING:
        return 1.0 if abs(differences[0]) < ROUNDING else 0.0
    return float(ttest_1samp(differences, 0.0).pvalue)


def summarise(experiment: Experiment, results: Results, dataset: str) -> dict[str, Any]:
    """What programs read: every arm's rates and every comparison's difference, with intervals."""
    arms = {arm: {metric: list(results.interval(arm, metric)) for metric in METRICS} for arm in results.arms}
    return {
        "name": experiment.name,
        "dataset": dataset,
        "seeds": results.seeds,
        "arms": arms,
        "comparisons": [
            _comparison(comparison, results)
            for comparison in experiment.comparisons
            if {comparison.better, comparison.worse} <= set(results.arms)
        ],
    }


def write(folder: Path, name: str, results: Results) -> None:
    """NAME.parquet and NAME.observations.parquet, each whole or not at all."""
    for suffix, rows in (("", results.counts), (".observations", results.observations)):
        write_rows(folder / f"{name}{suffix}.parquet", rows)


def write_rows(path: Path, rows: list[dict[str, Any]]) -> None:
    """Rows of equal columns as one Parquet file, whole or not at all."""
    with atomic_path(path) as temporary:
        pq.write_table(pa.Table.from_pylist(rows), temporary)


def read(folder: Path, name: str) -> Results:
    """What `write` wrote."""
    return Results(
        pq.read_table(folder / f"{name}.parquet").to_pylist(),
        pq.read_table(folder / f"{name}.observations.parquet").to_pylist(),
    )


def _comparison(comparison: Comparison, results: Results) -> dict[str, Any]:
    differences = results.difference(comparison)
    mean, low, high = interval(differences)
    names = {"better": comparison.better, "worse": comparison.worse, "metric": comparison.metric}
    return names | {"difference": mean, "low": low, "high": high, "p": p_value(differences)}


def _rates(row: Mapping[str, Any]) -> dict[str, float]:
    found = metrics.scores(np.array([row["correct"], row["answered"], row["answerable"]], dtype=np.float64))
    return {"precision": found.precision, "recall": found.recall, "f1": found.f1, "coverage": found.coverage}
