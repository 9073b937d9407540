"""A short run of the benchmark of steady load, against a transformer with an online store and a plain predictor."""

import asyncio

import psutil
import pytest

from benchmarks import steady_load
from support.serving_process import Predictor, online_store, transformer

ALLOWED_MIB = 12.0
"""Python's allocator settles for a while; what a request leaks of a whole answer, 20 KiB, would be 24 MiB more."""
RATE, REQUESTS = 250.0, 1500


@pytest.fixture(scope="module")
def target(tmp_path_factory):
    folder, predictor = tmp_path_factory.mktemp("steady"), Predictor()
    predictor.start()
    try:
        features = {"repository": str(online_store(folder))}
        with transformer(folder, predictor.url, features=features, deadline_seconds=30.0) as made:
            yield steady_load.Target(made.url, made.name, psutil.Process(made.child.guarded.pid))
    finally:
        predictor.kill()


def test_memory_stays_under_load_and_every_request_is_answered(target):
    windows = asyncio.run(steady_load.send_steady_load(target, ["ada", "bob"], REQUESTS / RATE, RATE))
    assert sum(window.answered for window in windows) == REQUESTS
    assert all(window.features_ms > 0 and window.p99_ms >= window.p50_ms > 0 for window in windows)
    assert windows[-1].memory_mib - windows[1].memory_mib < ALLOWED_MIB
    found = steady_load.report(windows, REQUESTS / RATE, RATE)
    assert (found["failed"], len(found["windows"])) == (0, steady_load.WINDOWS)
