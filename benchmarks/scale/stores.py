"""What the stores cost: S3 requests and bytes of a promotion and a download, Feast's online store."""

from __future__ import annotations

import os
import socket
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import numpy as np

from benchmarks.scale import people
from conf_profile.config import FeaturesConfig
from conf_profile.registry.registry import Registry
from conf_profile.storage import conditional_writes, object_store
from conf_profile.storage.local_s3 import S3Access, local_s3
from conf_profile.storage.object_store import ObjectStore
from feature_repo import store as feature_store

BUCKET = "scale"
SMALL_BYTES, LARGE_BYTES = 2 << 20, 200 << 20
"""Bytes of weights: below the threshold of multipart uploads, and above it."""
FILES = 11
"""Files of a version, the weights among them."""
ONLINE_USERS = 10_000
READS = 300


class CountingClient:
    """An S3 client that counts its requests, and the bytes of their bodies, through botocore's events.

    What botocore tries again counts again. Headers do not count.
    """

    def __init__(self, access: S3Access) -> None:
        self.client = object_store.s3_client(access.endpoint, access.region, access.access_key, access.secret_key)
        self.requests: Counter[str] = Counter()
        self.up = self.down = 0
        self.client.meta.events.register("before-send.s3", self._count_request)
        self.client.meta.events.register("after-call.s3", self._count_response)

    def take_counts(self) -> dict[str, Any]:
        """The counts since the last call."""
        counted = {"requests": sum(self.requests.values()), "up": self.up, "down": self.down, **self.requests}
        self.requests.clear()
        self.up = self.down = 0
        return counted

    def _count_request(self, request: Any, event_name: str, **_: Any) -> None:
        self.requests[event_name.rpartition(".")[2]] += 1
        headers = request.headers
        self.up += int(headers.get("X-Amz-Decoded-Content-Length") or headers.get("Content-Length") or 0)

    def _count_response(self, parsed: dict[str, Any], **_: Any) -> None:
        self.down += int(parsed.get("ContentLength") or 0)


def promotion(work: Path) -> dict[str, float]:
    """One promotion of a small and of a large model, and one download, on a real server."""
    with local_s3(work / "s3") as access:
        counted = CountingClient(access)
        ObjectStore(counted.client, BUCKET).ensure_bucket(create=True)
        counted.take_counts()
        small, _ = _count_promotion(counted, work / "small", SMALL_BYTES)
        large, fetched = _count_promotion(counted, work / "large", LARGE_BYTES)
    return {
        "promotion.requests_small": small["requests"],
        "promotion.requests_large": large["requests"],
        "promotion.bytes_up_per_byte": large["up"] / LARGE_BYTES,
        "promotion.bytes_down_per_byte": large["down"] / LARGE_BYTES,
        "download.requests": fetched["requests"],
    }


def online(work: Path) -> dict[str, float]:
    """Feast's own materialisation into sqlite and Redis, and reads of 1 and of 100 users."""
    world = people.originals(work / "world")
    given = people.grow(world, ONLINE_USERS, work / "users")
    figures: dict[str, float] = {}
    with _redis(work / "redis") as (url, memory):
        for kind in ("sqlite", "redis"):
            config = FeaturesConfig.model_validate({"online_store": kind, "redis_url": url})
            store = feature_store.open_store(work / kind, given.behaviour, given.demographics, config)
            before, start = memory(), time.perf_counter()
            feature_store.materialise(store, given.as_of)
            figures[f"online.{kind}.users_per_second"] = ONLINE_USERS / (time.perf_counter() - start)
            if kind == "redis":
                figures["online.redis.bytes_per_user"] = (memory() - before) / ONLINE_USERS
            figures |= {f"online.{kind}.read_{n}_ms": _read_ms(store, n) for n in (1, 100)}
    return figures


def _count_promotion(counted: CountingClient, folder: Path, weights: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """Counts of publishing and promoting, then of downloading, a model of `FILES` files."""
    # A promotion is a step, with a process of its own.
    conditional_writes.forget()
    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(os.urandom(weights))
    for number in range(FILES - 1):
        (folder / f"part-{number}.json").write_text(f'{{"file": {number}}}', encoding="utf-8")
    registry = Registry(BUCKET, folder.name, counted.client)
    registry.promote(registry.publish(folder).name, {})
    promoted = counted.take_counts()
    registry.download(None, folder.with_name(f"{folder.name}-fetched"))
    return promoted, counted.take_counts()


def _read_ms(store: Any, users: int) -> float:
    """Median milliseconds of one batched read; the first ones only warm up."""
    random, spent = np.random.default_rng(0), []
    for _ in range(READS):
        rows = random.integers(people.ORIGINALS, size=users)
        ids = [f"{row % (ONLINE_USERS // people.ORIGINALS):06d}-u{row:07d}" for row in rows]
        start = time.perf_counter()
        feature_store.read_online(store, ids)
        spent.append(time.perf_counter() - start)
    return float(np.median(spent[READS // 10 :])) * 1000


@contextmanager
def _redis(folder: Path) -> Iterator[tuple[str, Any]]:
    """A Redis of our own on a free port: its address, and a function that gives the bytes that it uses."""
    import redis

    folder.mkdir(parents=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(folder)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    client = redis.Redis(port=port, retry=redis.retry.Retry(redis.backoff.ConstantBackoff(0.05), 200))
    try:
        client.ping()
        yield f"127.0.0.1:{port}", lambda: int(cast(dict[str, Any], client.info("memory"))["used_memory"])
    finally:
        server.terminate()
        server.wait()
