"""Whether a transformer's memory and its reads of features stay as they are under an hour of steady load.

    python -m benchmarks.steady_load --run runs/world-tiny [--minutes 60] [--rate 10]

Starts `conf-profile serve` on a finished run's champion and asks for one user after the other, `rate` times a second
whether answers come or not. The time is cut into ten windows; for each it prints the transformer's resident memory at
its end, the mean time of a read of Feast's online store by the transformer's own histogram, and the latency that
callers saw. The first window warms up, and the slopes are over the other nine (least squares). Prints JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import aiohttp
import httpx
import numpy as np
import psutil

from benchmarks.serving import listener, people, start_serving
from benchmarks.teacher_vllm import machine

WINDOWS = 10
STAGE = "conf_profile_stage_seconds"


@dataclass(frozen=True)
class Window:
    """A tenth of the time: MiB at its end, milliseconds, and how many requests were answered and how many failed."""

    memory_mib: float
    features_ms: float
    p50_ms: float
    p99_ms: float
    answered: int
    failed: int


@dataclass(frozen=True)
class Target:
    """A running transformer: its address, the model's name, and its process."""

    url: str
    model: str
    process: psutil.Process

    def feature_reads(self) -> tuple[float, float]:
        """Seconds of all reads so far, and how many there were."""
        lines = httpx.get(f"{self.url}/metrics").text.splitlines()

        def total(suffix: str) -> float:
            name = f'{STAGE}_{suffix}{{stage="features"}}'
            return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(name))

        return total("sum"), total("count")


async def send_steady_load(target: Target, users: Sequence[str], seconds: float, rate: float) -> list[Window]:
    """Ten windows of load; requests of a window that are under way at its end are waited for."""
    per_window = max(1, round(seconds * rate / WINDOWS))
    connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=4.0)
    async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(60.0)) as http:
        return [
            await one_window(target, http, [users[(number + i) % len(users)] for i in range(per_window)], rate)
            for number in range(0, WINDOWS * per_window, per_window)
        ]


async def one_window(target: Target, http: aiohttp.ClientSession, users: Sequence[str], rate: float) -> Window:
    """Asks for these users, one every 1/rate seconds."""
    before = await asyncio.to_thread(target.feature_reads)
    start, asked = time.perf_counter(), []
    for number, user in enumerate(users):
        await asyncio.sleep(max(0.0, start + number / rate - time.perf_counter()))
        asked.append(asyncio.create_task(ask(target, http, user)))
    taken = [seconds for seconds in await asyncio.gather(*asked) if seconds is not None]
    after = await asyncio.to_thread(target.feature_reads)
    p50, p99 = np.percentile(taken, [50, 99]) * 1000 if taken else (np.nan, np.nan)
    return Window(
        memory_mib=round(target.process.memory_info().rss / 2**20, 1),
        features_ms=round((after[0] - before[0]) / max(1.0, after[1] - before[1]) * 1000, 3),
        p50_ms=round(float(p50), 1),
        p99_ms=round(float(p99), 1),
        answered=len(taken),
        failed=len(users) - len(taken),
    )


async def ask(target: Target, http: aiohttp.ClientSession, user: str) -> float | None:
    """Seconds of one answer; None for one that was not given."""
    start = time.perf_counter()
    try:
        body = {"instances": [{"user_id": user}]}
        async with http.post(f"{target.url}/v1/models/{target.model}:predict", json=body) as answer:
            await answer.read()
            return time.perf_counter() - start if answer.ok else None
    except (aiohttp.ClientError, TimeoutError):
        return None


def report(windows: Sequence[Window], seconds: float, rate: float) -> dict[str, Any]:
    """The windows, and what an hour would add at their slope."""
    hours = np.arange(1, len(windows)) * seconds / WINDOWS / 3600

    def per_hour(values: Sequence[float]) -> float:
        return float(np.polyfit(hours, values, 1)[0])

    return {
        "minutes": round(seconds / 60, 1),
        "requests_per_second": rate,
        "memory_mib_per_hour": round(per_hour([window.memory_mib for window in windows[1:]]), 1),
        "features_ms_per_hour": round(per_hour([window.features_ms for window in windows[1:]]), 3),
        "failed": sum(window.failed for window in windows),
        "windows": [asdict(window) for window in windows],
        "machine": machine(),
        "load_average": [round(value, 1) for value in psutil.getloadavg()],
    }


def main() -> None:
    """Runs the load and prints what was seen."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--run", type=Path, default=Path("runs/world-tiny"))
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--rate", type=float, default=10.0, help="requests a second")
    parser.add_argument("--users", type=int, default=500)
    given = parser.parse_args()
    work, seconds = (given.run / "serving").resolve(), given.minutes * 60
    with start_serving(given.run) as state:
        target = Target(state["url"], state["model"], listener(state["url"]))
        windows = asyncio.run(send_steady_load(target, people(work, given.run, given.users), seconds, given.rate))
        print(json.dumps(report(windows, seconds, given.rate), indent=2))


if __name__ == "__main__":
    main()
