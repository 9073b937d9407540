"""What the transformer costs over asking vLLM directly, both against the same vLLM and model in one run.

    python -m benchmarks.serving --run runs/world-tiny [--users 200] [--rounds 3]

Starts `conf-profile serve` on a finished run's champion, then measures in turns, so that a noisy machine hits both
sides: (1) one request at a time: milliseconds that the transformer adds at p50 and p99; (2) 32 at once: requests a
second; (3) 100 users in one request against 100 bare calls at once; (4) the share of prompt tokens that vLLM's prefix
cache served, by its own counters; (5) seconds on the processor that each process spent on a request, at 32 at once.
Both sides are asked by the same client over kept connections, with bodies made beforehand; the direct side's are the
very ones that the transformer sends: prompt, sampling, logprobs and grammar. Reading features, rendering, parsing and
calibrating are all on the transformer's side. Prints JSON.
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
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import httpx
import numpy as np
import orjson
import psutil

from benchmarks.teacher_vllm import machine
from feature_repo import store as feature_store
from serving.model import bundle as bundles
from serving.settings import PredictorSettings
from serving.transformer.predictor_client import PredictorClient, Question

Ask = Callable[[str], Awaitable[None]]
CONCURRENT_REQUESTS, BATCH_USERS = 32, 100


@dataclass(frozen=True)
class Sides:
    """Both ways to ask for one user, and the way to ask for many in one request."""

    direct: Ask
    transformer: Ask
    together: Callable[[Sequence[str]], Awaitable[None]]


@contextmanager
def start_serving(run: Path) -> Any:
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


def sides(state: dict[str, Any], work: Path, users: list[str], http: aiohttp.ClientSession) -> Sides:
    """The two sides; the direct one's bodies are made before anything is timed."""
    model = bundles.load(work / "models" / state["version"])
    client = PredictorClient(PredictorSettings(url=state["predictor"], model=state["model"]), model)
    known = feature_store.online_features(feature_store.connect(work / "features"), users)
    bodies = {u.user_id: orjson.dumps(client.body(Question(model.messages(u), 1))) for u in known if u is not None}
    predict = f"{state['url']}/v1/models/{state['model']}:predict"

    async def post(url: str, body: bytes) -> None:
        async with http.post(url, data=body, headers={"Content-Type": "application/json"}) as answer:
            answer.raise_for_status()
            await answer.read()

    async def direct(user: str) -> None:
        await post(f"{state['predictor']}/v1/chat/completions", bodies[user])

    async def post_batch(several: Sequence[str]) -> None:
        await post(predict, orjson.dumps({"instances": [{"user_id": user} for user in several]}))

    async def transformer(user: str) -> None:
        await post_batch([user])

    return Sides(direct, transformer, post_batch)


async def send_in_turn(ask: Ask, users: Sequence[str]) -> list[float]:
    """Seconds of each request."""
    seconds = []
    for user in users:
        start = time.perf_counter()
        await ask(user)
        seconds.append(time.perf_counter() - start)
    return seconds


async def send_concurrently(ask: Ask, users: Sequence[str], places: int) -> float:
    """Seconds for all, `places` under way at any time."""
    semaphore = asyncio.Semaphore(places)

    async def one(user: str) -> None:
        async with semaphore:
            await ask(user)

    start = time.perf_counter()
    await asyncio.gather(*map(one, users))
    return time.perf_counter() - start


def listener(url: str) -> psutil.Process:
    """The process that listens at this address of this machine."""
    listening = {c.laddr.port: c.pid for c in psutil.net_connections("tcp4") if c.status == psutil.CONN_LISTEN}
    return psutil.Process(listening[int(url.rsplit(":", 1)[1])])


class Processors:
    """Seconds on the processor of the transformer, and of vLLM's processes together."""

    def __init__(self, state: dict[str, Any]) -> None:
        roots = {"transformer": listener(state["url"]), "vllm": listener(state["predictor"])}
        self._families = {name: [root, *root.children(recursive=True)] for name, root in roots.items()}

    def used_seconds(self) -> dict[str, float]:
        """So far."""
        return {
            name: sum(times.user + times.system for times in (process.cpu_times() for process in family))
            for name, family in self._families.items()
        }


async def measure_seconds(call: Awaitable[None]) -> float:
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


@dataclass
class Timings:
    """Of one side: seconds of each request alone; requests a second; seconds for all together; and the processor's
    seconds of a request by process."""

    single: list[float] = field(default_factory=list)
    many: list[float] = field(default_factory=list)
    together: list[float] = field(default_factory=list)
    processor: list[dict[str, float]] = field(default_factory=list)


async def measure(both: Sides, users: list[str], rounds: int, processors: Processors) -> dict[str, Timings]:
    """All timings; a first round of each side only warms up."""
    found = {"direct": Timings(), "transformer": Timings()}
    for number in range(rounds + 1):
        for name in sorted(found, reverse=bool(number % 2)):
            one = await one_round(name, both, users if number else users[:20], processors)
            if number:
                for kind in ("single", "many", "together", "processor"):
                    getattr(found[name], kind).extend(getattr(one, kind))
    return found


async def one_round(name: str, both: Sides, users: list[str], processors: Processors) -> Timings:
    """One side, in each way once."""
    ask: Ask = getattr(both, name)
    single = await send_in_turn(ask, users)
    before = processors.used_seconds()
    seconds = await send_concurrently(ask, users, CONCURRENT_REQUESTS)
    after = processors.used_seconds()
    crowd = users[:BATCH_USERS]
    whole = await (
        send_concurrently(ask, crowd, BATCH_USERS) if name == "direct" else measure_seconds(both.together(crowd))
    )
    processor = {process: (after[process] - before[process]) / len(users) for process in after}
    return Timings(single, [len(users) / seconds], [whole], [processor])


def report(found: dict[str, Timings], cache: tuple[float, float], users: int) -> dict[str, Any]:
    """The figures that the page quotes."""
    single = {name: np.percentile(side.single, [50, 99]) * 1000 for name, side in found.items()}
    added = single["transformer"] - single["direct"]
    many = {name: float(np.mean(side.many)) for name, side in found.items()}
    together = {name: float(np.median(side.together)) for name, side in found.items()}
    return {
        "milliseconds_at_1": {name: {"p50": round(v[0], 1), "p99": round(v[1], 1)} for name, v in single.items()},
        "added_milliseconds_at_1": {"p50": round(added[0], 1), "p99": round(added[1], 1)},
        f"requests_per_second_at_{CONCURRENT_REQUESTS}": {
            name: [round(rate, 1) for rate in side.many] for name, side in found.items()
        },
        f"throughput_ratio_at_{CONCURRENT_REQUESTS}": round(many["transformer"] / many["direct"], 3),
        f"processor_milliseconds_at_{CONCURRENT_REQUESTS}": {name: per_request(side) for name, side in found.items()},
        f"seconds_for_{BATCH_USERS}_users": {name: round(value, 3) for name, value in together.items()},
        f"time_ratio_for_{BATCH_USERS}_users": round(together["transformer"] / together["direct"], 3),
        "prefix_cache_hit_share": round(cache[1] / cache[0], 3) if cache[0] else None,
        "users": users,
        "machine": machine(),
        "load_average": [round(value, 1) for value in psutil.getloadavg()],
    }


def per_request(side: Timings) -> dict[str, float]:
    """The mean of all rounds, in milliseconds."""
    return {name: round(float(np.mean([one[name] for one in side.processor])) * 1000, 1) for name in side.processor[0]}


async def compare(state: dict[str, Any], work: Path, users: list[str], rounds: int) -> dict[str, Any]:
    """Measures against a running server."""
    connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=4.0)
    async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(120.0)) as http:
        both, processors = sides(state, work, users, http), Processors(state)
        before = prefix_counters(state["predictor"])
        found = await measure(both, users, rounds, processors)
        after = prefix_counters(state["predictor"])
    return report(found, (after[0] - before[0], after[1] - before[1]), len(users))


def main() -> None:
    """Runs the comparison and prints it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--run", type=Path, default=Path("runs/world-tiny"))
    parser.add_argument("--users", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    work = (given.run / "serving").resolve()
    with start_serving(given.run) as state:
        users = people(work, given.run, given.users)
        print(json.dumps(asyncio.run(compare(state, work, users, given.rounds)), indent=2))


if __name__ == "__main__":
    main()
