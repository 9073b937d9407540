"""How many users an hour a student profiles offline: vLLM's engine as `conf-profile backfill` uses it."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from conf_profile.data import run_folder
from conf_profile.tables import read_json
from serving.backfill import backfill
from serving.backfill import engines as backfill_engines

USERS, WARM_UP = 2_000, 64


def backfill_of(run: Path) -> Callable[[Path], dict[str, float]]:
    """The measurement for one finished run."""

    def measure(work: Path) -> dict[str, float]:
        arguments = run_folder.read_arguments(run.resolve())
        source = backfill.source_of(arguments)
        model = _student(run)
        plan = backfill.plan(source, model, work / "out", "vllm", USERS)
        shard = plan.shards[0]
        start = time.perf_counter()
        people = backfill.people(plan, shard)
        reading = time.perf_counter() - start
        start = time.perf_counter()
        engine = backfill_engines.make_engine("vllm", model, plan.bundle, arguments["dtype"], WARM_UP)
        engine.answer(people[:WARM_UP])
        starting = time.perf_counter() - start
        start = time.perf_counter()
        answered = engine.answer(people[WARM_UP:])
        rate = len(set(answered.column("user_id").to_pylist())) / (time.perf_counter() - start)
        return {
            "backfill.users_per_second": rate,
            "backfill.start_seconds": starting,
            "backfill.read_seconds_per_shard": reading * backfill.SHARD_USERS / USERS,
        }

    return measure


def _student(run: Path) -> Path:
    """The run's own student, whether or not it was promoted."""
    return Path(read_json(run / "workspace" / "outputs.json", "give the folder of a finished run")["student"])
