"""What the transformer costs over asking vLLM directly, both against the same vLLM and model in one run.

    python -m benchmarks.serving --run runs/world-tiny [--users 200] [--rounds 3]

Starts `conf-profile serve` on a finished run's champion, then measures in turns, so that a noisy machine hits both
sides: (1) one request at a time: milliseconds that the transformer adds at p50 and p99; (2) 32 at once: requests a
second; (3) 100 users in one request against 100 bare calls at once; (4) the share of prompt tokens that vLLM's prefix
cache served, by its own counters. The direct side sends the very body that the transformer sends, with prompts made
beforehand: reading features, rendering, parsing and calibrating are all on the transformer's side. Prints JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from benchmarks.teacher_vllm import machine
from feature_repo import store as feature_store
from serving import bundle as bundles
from serving.predictor_client import PredictorClient, Question
from serving.settings import PredictorSettings

Ask = Callable[[str], Awaitable[None]]
MANY, TOGETHER = 32, 100


@dataclass(frozen=True)
class Sides:
    """Both ways to ask for one user, and the way to ask for many in one request."""

    direct: Ask
    transformer: Ask
    together: Callable[[Sequence[str]], Awaitable[None]]


@contextmanager
def served(run: Path) -> Any:
    """A running `conf-profile serve` on a free port; gives the line that it prints when it is ready."""
    command = [sys.executable, "-m", "conf_profile", "serve", f"--run={run}", "--port=0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    line = process.stdout.readline()
    try:
        yield json.loads(line)
    finally:
        process.terminate()
        process.wait(60)


def people(work: Path, run: Path, count: int) -> list[str]:
    """Users who may be profiled."""
    import pyarrow.parquet as pq

    arguments = json.loads((run / "workspace" / "arguments.json").read_text(encoding="utf-8"))
    ids = pq.read_table(arguments["demographics_uri"], columns=["user_id"]).column("user_id").to_pylist()
    known = feature_store.online_features(feature_store.connect(work / "features"), list(dict.fromkeys(ids)))
    return [user.user_id for user in known if user is not None][:count]


def sides(state: dict[str, Any], work: Path, users: list[str], http: httpx.AsyncClient) -> tuple[Sides, Any]:
    """The two sides; the direct one's bodies are made before anything is timed."""
    model = bundles.load(work / "models" / state["version"])
    client = PredictorClient(PredictorSettings(url=state["predictor"], model=state["model"]), model)
    known = feature_store.online_features(feature_store.connect(work / "features"), users)
    bodies = {u.user_id: client.body(Question(model.messages(u), 1)) for u in known if u is not None}
    predict = f"{state['url']}/v1/models/{state['model']}:predict"

    async def direct(user: str) -> None:
        (await http.post(f"{state['predictor']}/v1/chat/completions", json=bodies[user])).raise_for_status()

    async def together(several: Sequence[str]) -> None:
        body = {"instances": [{"user_id": user} for user in several]}
        (await http.post(predict, json=body)).raise_for_status()

    async def transformer(user: str) -> None:
        await together([user])

    return Sides(direct, transformer, together), client


async def one_at_a_time(ask: Ask, users: Sequence[str]) -> list[float]:
    """Seconds of each request."""
    seconds = []
    for user in users:
        start = time.perf_counter()
        await ask(user)
        seconds.append(time.perf_counter() - start)
    return seconds


async def at_once(ask: Ask, users: Sequence[str], places: int) -> float:
    """Seconds for all, `places` under way at any time."""
    semaphore = asyncio.Semaphore(places)

    async def one(user: str) -> None:
        async with semaphore:
            await ask(user)

    start = time.perf_counter()
    await asyncio.gather(*map(one, users))
    return time.perf_counter() - start


async def timed(call: Awaitable[None]) -> float:
    """Seconds of one call."""
    start = time.perf_counter()
    await call
    return time.perf_counter() - start


def prefix_counters(predictor: str) -> tuple[float, float]:
    """Prompt tokens that were looked up in vLLM's prefix cache, and those that it had."""
    lines = httpx.get(f"{predictor}/metrics").text.splitlines()

    def total(name: str) -> float:
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(f"vllm:{name}_total"))

    return total("prefix_cache_queries"), total("prefix_cache_hits")


async def measure(both: Sides, users: list[str], rounds: int) -> dict[str, Any]:
    """All timings; a first round of each side only warms up."""
    single: dict[str, list[float]] = {"direct": [], "transformer": []}
    many: dict[str, list[float]] = {"direct": [], "transformer": []}
    together: dict[str, list[float]] = {"direct": [], "transformer": []}
    for number in range(rounds + 1):
        for name in sorted(single, reverse=bool(number % 2)):
            ask = getattr(both, name)
            alone = await one_at_a_time(ask, users if number else users[:20])
            seconds = await at_once(ask, users, MANY)
            crowd = users[:TOGETHER]
            if name == "direct":
                whole = await at_once(ask, crowd, TOGETHER)
            else:
                whole = await timed(both.together(crowd))
            if number:
                single[name] += alone
                many[name].append(len(users) / seconds)
                together[name].append(whole)
    return {"single": single, "many": many, "together": together}


def report(found: dict[str, Any], cache: tuple[float, float], users: int) -> dict[str, Any]:
    """The figures that the page quotes."""
    single = {name: np.percentile(values, [50, 99]) * 1000 for name, values in found["single"].items()}
    added = single["transformer"] - single["direct"]
    many = {name: float(np.mean(values)) for name, values in found["many"].items()}
    together = {name: float(np.median(values)) for name, values in found["together"].items()}
    return {
        "milliseconds_at_1": {name: {"p50": round(v[0], 1), "p99": round(v[1], 1)} for name, v in single.items()},
        "added_milliseconds_at_1": {"p50": round(added[0], 1), "p99": round(added[1], 1)},
        f"requests_per_second_at_{MANY}": {name: round(rate, 1) for name, rate in many.items()},
        f"throughput_ratio_at_{MANY}": round(many["transformer"] / many["direct"], 3),
        f"seconds_for_{TOGETHER}_users": {name: round(value, 3) for name, value in together.items()},
        f"time_ratio_for_{TOGETHER}_users": round(together["transformer"] / together["direct"], 3),
        "prefix_cache_hit_share": round(cache[1] / cache[0], 3) if cache[0] else None,
        "users": users,
        "machine": machine(),
    }


async def compare(state: dict[str, Any], work: Path, users: list[str], rounds: int) -> dict[str, Any]:
    """Measures against a running server."""
    limits = httpx.Limits(max_connections=2 * TOGETHER, max_keepalive_connections=2 * TOGETHER)
    async with httpx.AsyncClient(timeout=120.0, limits=limits) as http:
        both, client = sides(state, work, users, http)
        before = prefix_counters(state["predictor"])
        found = await measure(both, users, rounds)
        after = prefix_counters(state["predictor"])
        await client.aclose()
    return report(found, (after[0] - before[0], after[1] - before[1]), len(users))


def main() -> None:
    """Runs the comparison and prints it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--run", type=Path, default=Path("runs/world-tiny"))
    parser.add_argument("--users", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    work = (given.run / "serving").resolve()
    with served(given.run) as state:
        users = people(work, given.run, given.users)
        print(json.dumps(asyncio.run(compare(state, work, users, given.rounds)), indent=2))


if __name__ == "__main__":
    main()
