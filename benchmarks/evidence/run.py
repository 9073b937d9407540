"""Runs an experiment's arms seed by seed and writes its results; what is done is not done again.

Seeds share nothing but the code, so `jobs` of them run at once, each in a process of its own.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.evidence import measure, regimes, results
from benchmarks.evidence.chain import Chain
from benchmarks.evidence.measure import Yardstick
from benchmarks.evidence.plan import EXPERIMENTS, PAPERS_VOTE, Settings
from benchmarks.evidence.results import Results
from conf_profile.config import RunConfig, resolve
from conf_profile.config_layers import merge
from conf_profile.files import write_text

REGIMES = "regimes"


def run(name: str, config: RunConfig, seeds: Sequence[int], out: Path, jobs: int = 1) -> dict[str, Any]:
    """Writes OUT/NAME.parquet, OUT/NAME.observations.parquet and OUT/NAME.json; returns what the last one holds.

    `config` is what all arms begin with (preset, data set). Finished steps lie in OUT/work. The files are written
    after every seed, so that a long experiment can be looked at while it runs.
    """
    if name == REGIMES:
        return _run_regimes(config, seeds, out, jobs)
    experiment, found = EXPERIMENTS[name], Results([], [])
    summary: dict[str, Any] = {}
    for of_seed_ in _map_seeds(partial(measure_seed, name, config, out), seeds, jobs):
        found.counts.extend(of_seed_.counts)
        found.observations.extend(of_seed_.observations)
        results.write(out, name, found)
        summary = results.summarise(experiment, found, config.data.name)
        write_text(out / f"{name}.json", json.dumps(summary, indent=2))
    return summary


def measure_seed(name: str, config: RunConfig, out: Path, seed: int) -> Results:
    """All arms of one experiment for one seed."""
    experiment, found = EXPERIMENTS[name], Results([], [])
    yardsticks: dict[Path, Yardstick] = {}
    for arm in experiment.arms:
        _print_line(f"{name}, seed {seed}: {arm.name}")
        chain = Chain(override(config, seed_settings(seed) | {**experiment.settings, **arm.settings}), out / "work")
        yardstick = yardsticks.setdefault(chain.features, Yardstick(chain))
        cells = measure.arm_cells(arm, chain, yardstick.people)
        if cells is None:
            continue
        constant = {"experiment": name, "dataset": config.data.name, "seed": seed}
        found.counts.extend(measure.rows(measure.counts(arm.name, cells, yardstick), **constant))
        found.observations.extend(measure.rows(measure.observations(arm, chain, cells), **constant))
    return found


def _run_regimes(config: RunConfig, seeds: Sequence[int], out: Path, jobs: int) -> dict[str, Any]:
    rows: list[dict[str, Any]] = []
    summary: dict[str, Any] = {}
    for of_seed_ in _map_seeds(partial(measure_regimes, config, out), seeds, jobs):
        rows.extend(of_seed_)
        results.write_rows(out / f"{REGIMES}.parquet", rows)
        summary = regimes.summarise(rows, config.data.name)
        write_text(out / f"{REGIMES}.json", json.dumps(summary, indent=2))
    return summary


def measure_regimes(config: RunConfig, out: Path, seed: int) -> list[dict[str, Any]]:
    """Every vote in every cell of the regimes for one seed."""
    rows: list[dict[str, Any]] = []
    for factor in regimes.FACTORS:
        for value, settings in regimes.cells(factor):
            _print_line(f"{REGIMES}, seed {seed}: {factor.name} {value}")
            chain = Chain(override(config, seed_settings(seed) | {**settings}), out / "work")
            constant = {"seed": seed, "factor": factor.name, "value": float(value)}
            rows += [constant | row for row in regimes.measure(chain)]
    return rows


def _map_seeds(measure_one: Callable[[int], Any], seeds: Sequence[int], jobs: int) -> Iterator[Any]:
    """What is measured for each seed, in the seeds' order."""
    if jobs == 1:
        yield from map(measure_one, seeds)
        return
    # Spawned children read it when they load torch: two trainings that each spin on all cores starve each other.
    os.environ["OMP_NUM_THREADS"] = str(max(1, (os.cpu_count() or 1) // jobs))
    with ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn"), initializer=end_with_parent) as pool:
        yield from pool.map(measure_one, seeds)


def end_with_parent() -> None:
    """From now on this worker ends when the process that started it is gone, however that ended.

    Otherwise workers of a killed experiment would train on, beside those of the call that continues it.
    """
    threading.Thread(target=_end_after, args=(multiprocessing.parent_process(),), daemon=True).start()


def _end_after(parent: Any) -> None:
    parent.join()
    os._exit(1)


def _print_line(text: str) -> None:
    from rich.console import Console

    Console(stderr=True).print(text, highlight=False)


def seed_settings(seed: int) -> dict[str, Any]:
    """What a seed draws anew: people, samples and weights by the run's seed, and another teacher.

    And what no arm takes from the preset.
    """
    return {"seed": seed, "data.lexicon.seed": seed, **PAPERS_VOTE}


def override(config: RunConfig, settings: Settings) -> RunConfig:
    """The configuration with dotted keys set; ConfigError names a key that does not exist."""
    nested: dict[str, Any] = {}
    for key, value in settings.items():
        *sections, last = key.split(".")
        at = nested
        for section in sections:
            at = at.setdefault(section, {})
        at[last] = value
    return resolve(config.preset, values=merge(config.model_dump(mode="json"), nested))
