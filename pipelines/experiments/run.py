"""Runs an experiment's arms seed by seed and writes its results; what is done is not done again."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from conf_profile import tables
from conf_profile.config import RunConfig, resolve
from pipelines.experiments import measure, regimes, results
from pipelines.experiments.chain import Chain
from pipelines.experiments.measure import Yardstick
from pipelines.experiments.plan import EXPERIMENTS, Experiment, Settings
from pipelines.experiments.results import Results

REGIMES = "regimes"


def run(name: str, config: RunConfig, seeds: Sequence[int], out: Path, console: Any) -> dict[str, Any]:
    """Writes OUT/NAME.parquet, OUT/NAME.observations.parquet and OUT/NAME.json; returns what the last one holds.

    `config` is what all arms begin with (preset, data set). Finished steps lie in OUT/work. The files are written
    after every seed, so that a long experiment can be looked at while it runs.
    """
    if name == REGIMES:
        return _run_regimes(config, seeds, out, console)
    experiment, found = EXPERIMENTS[name], Results([], [])
    summary: dict[str, Any] = {}
    for seed in seeds:
        _measure_seed(experiment, config, seed, out, found, console)
        results.write(out, name, found)
        summary = results.summarise(experiment, found, config.data.name)
        tables.write_text(out / f"{name}.json", json.dumps(summary, indent=2))
    return summary


def _measure_seed(
    experiment: Experiment, config: RunConfig, seed: int, out: Path, found: Results, console: Any
) -> None:
    yardsticks: dict[Path, Yardstick] = {}
    for arm in experiment.arms:
        console.print(f"{experiment.name}, seed {seed}: {arm.name}", highlight=False)
        chain = Chain(with_settings(config, of_seed(seed) | {**experiment.settings, **arm.settings}), out / "work")
        yardstick = yardsticks.setdefault(chain.features, Yardstick(chain))
        cells = measure.arm_cells(arm, chain, yardstick.people)
        if cells is None:
            continue
        constant = {"experiment": experiment.name, "dataset": config.data.name, "seed": seed}
        found.counts.extend(measure.rows(measure.counts(arm.name, cells, yardstick), **constant))
        found.observations.extend(measure.rows(measure.observations(arm, chain, cells), **constant))


def _run_regimes(config: RunConfig, seeds: Sequence[int], out: Path, console: Any) -> dict[str, Any]:
    rows: list[dict[str, Any]] = []
    summary: dict[str, Any] = {}
    for seed in seeds:
        for factor in regimes.FACTORS:
            for value, settings in regimes.cells(factor):
                console.print(f"regimes, seed {seed}: {factor.name} {value}", highlight=False)
                chain = Chain(with_settings(config, of_seed(seed) | {**settings}), out / "work")
                constant = {"seed": seed, "factor": factor.name, "value": float(value)}
                rows += [constant | row for row in regimes.measure(chain)]
        with tables.atomic_path(out / f"{REGIMES}.parquet") as temporary:
            pq.write_table(pa.Table.from_pylist(rows), temporary)
        summary = regimes.summarise(rows, config.data.name)
        tables.write_text(out / f"{REGIMES}.json", json.dumps(summary, indent=2))
    return summary


def of_seed(seed: int) -> dict[str, Any]:
    """What a seed draws anew: people, samples and weights by the run's seed, and another teacher."""
    return {"seed": seed, "data.lexicon.seed": seed}


def with_settings(config: RunConfig, settings: Settings) -> RunConfig:
    """The configuration with dotted keys set; ConfigError names a key that does not exist."""
    nested: dict[str, Any] = {}
    for key, value in settings.items():
        *sections, last = key.split(".")
        at = nested
        for section in sections:
            at = at.setdefault(section, {})
        at[last] = value
    return resolve(config.preset, values=_merged(config.model_dump(mode="json"), nested))


def _merged(base: dict[str, Any], layer: dict[str, Any]) -> dict[str, Any]:
    return base | {
        key: _merged(base[key], value) if isinstance(value, dict) and isinstance(base.get(key), dict) else value
        for key, value in layer.items()
    }
