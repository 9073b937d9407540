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
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import psutil

from benchmarks.evidence import measure, regimes, results
from benchmarks.evidence.artefacts import Artefacts, ExperimentFolder
from benchmarks.evidence.measure import Yardstick
from benchmarks.evidence.plan import EXPERIMENTS, PAPERS_VOTE, STAGES, Settings
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
    for measured in _measure_seeds(partial(measure_seed, name, config, out), seeds, jobs):
        found.counts.extend(measured.counts)
        found.observations.extend(measured.observations)
        results.write(out, name, found)
        summary = results.summarise(experiment, found, config.data.name)
        write_text(out / f"{name}.json", json.dumps(summary, indent=2))
    return summary


def measure_seed(name: str, config: RunConfig, out: Path, seed: int) -> Results:
    """All arms of one experiment for one seed."""
    experiment, found = EXPERIMENTS[name], Results([], [])
    folder, made = ExperimentFolder(out / "work"), list[Artefacts]()
    for arm in experiment.arms:
        _print_line(f"{name}, seed {seed}: {arm.name}")
        settings = seed_settings(seed) | {**experiment.settings, **arm.settings}
        made.append(folder.run(override(config, settings), *STAGES[arm.stage]))
    # True labels are read when everything is made.
    yardsticks: dict[Path, Yardstick] = {}
    for arm, found_here in zip(experiment.arms, made, strict=True):
        yardstick = yardsticks.setdefault(found_here.features, Yardstick(found_here))
        cells = measure.arm_cells(arm, found_here, yardstick.people)
        if cells is None:
            continue
        constant = {"experiment": name, "dataset": config.data.name, "seed": seed}
        found.counts.extend(measure.rows(measure.counts(arm.name, cells, yardstick), **constant))
        found.observations.extend(measure.rows(measure.observations(arm, found_here, cells), **constant))
    return found


def _run_regimes(config: RunConfig, seeds: Sequence[int], out: Path, jobs: int) -> dict[str, Any]:
    rows: list[dict[str, Any]] = []
    summary: dict[str, Any] = {}
    for measured in _measure_seeds(partial(measure_regimes, config, out), seeds, jobs):
        rows.extend(measured)
        results.write_rows(out / f"{REGIMES}.parquet", rows)
        summary = regimes.summarise(rows, config.data.name)
        write_text(out / f"{REGIMES}.json", json.dumps(summary, indent=2))
    return summary


def measure_regimes(config: RunConfig, out: Path, seed: int) -> list[dict[str, Any]]:
    """Every vote in every cell of the regimes for one seed."""
    folder, made = ExperimentFolder(out / "work"), list[tuple[dict[str, Any], Artefacts]]()
    for factor in regimes.FACTORS:
        for value, settings in regimes.cells(factor):
            _print_line(f"{REGIMES}, seed {seed}: {factor.name} {value}")
            cell = folder.run(override(config, seed_settings(seed) | {**settings}), regimes.LAST_STEP)
            made.append(({"seed": seed, "factor": factor.name, "value": float(value)}, cell))
    # True labels are read when everything is made.
    return [constant | row for constant, cell in made for row in regimes.measure(cell)]


def _measure_seeds(measure_one: Callable[[int], Any], seeds: Sequence[int], jobs: int) -> Iterator[Any]:
    """What is measured for each seed, in the seeds' order; a worker process for each of the `jobs`.

    A single one has its own process, too: what the pipeline has started there ends with this one.
    """
    if jobs > 1:
        # Their steps read it when they load torch: two trainings that each spin on all cores starve each other.
        os.environ["OMP_NUM_THREADS"] = str(max(1, (os.cpu_count() or 1) // jobs))
    with ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn"), initializer=end_with_parent) as pool:
        try:
            yield from pool.map(measure_one, seeds)
        except BaseException:
            # Otherwise the pool would wait for the other seeds, and for one that it has not begun.
            for worker in multiprocessing.active_children():
                _kill(worker.pid)
            raise


def end_with_parent() -> None:
    """From now on this worker ends, with all that it has started, when the process that started it is gone.

    Otherwise workers of a killed experiment would train on, beside those of the call that continues it.
    """
    threading.Thread(target=_end_after, args=(multiprocessing.parent_process(),), daemon=True).start()


def _end_after(parent: Any) -> None:
    parent.join()
    _kill(os.getpid())


def _kill(pid: int | None) -> None:
    """A process and all that it has started, itself last: it may be this one."""
    with suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        for one in (*process.children(recursive=True), process):
            with suppress(psutil.NoSuchProcess):
                one.kill()


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
