"""The storage initialiser against plain boto3: the same objects of the same SeaweedFS, in turns, in one process.

    python -m benchmarks.storage [--mib 500] [--rounds 5] [--model FOLDER]

One version has random safetensors of that size; the other is small: the model's folder that is given, else files of the
tiny preset's sizes. Plain means `download_file` of each object, one after the other, with boto3's own threads and no
hash compared. Both sides make a client of their own, as a program must, and write to the same disk; interpreter and
imports are before the clock. Prints JSON and a Markdown table; ends with status 1 if the initialiser is below 80% of
plain throughput in either.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import boto3
import numpy as np
from botocore.config import Config
from safetensors.numpy import save_file

from conf_profile.config import StorageConfig
from conf_profile.registry.format import Version
from conf_profile.registry.registry import Registry, connect
from conf_profile.registry.version_files import MANIFEST
from conf_profile.storage import object_store
from conf_profile.storage.local_s3 import S3Access, local_s3
from serving import storage

TARGET = 0.8
PATH_STYLE = Config(proxies={}, s3={"addressing_style": "path"})
SHARD_MIB = 250
TINY = {
    "model.safetensors": 1_864_152,
    "tokenizer.json": 50_879,
    "config.json": 839,
    "calibration.json": 811,
    "calibration-vote.json": 700,
    "taxonomy.yaml": 533,
    "tokenizer_config.json": 363,
    "generation_config.json": 195,
    "chat_template.jinja": 180,
    "profile.json": 135,
}
"""Bytes of what the tiny preset trains."""


@dataclass(frozen=True)
class Measurement:
    """One version: medians over the rounds of seconds and of this process's processor seconds; plain time over ours."""

    name: str
    files: int
    mib: float
    rounds: int
    plain_seconds: float
    initialiser_seconds: float
    plain_cpu_seconds: float
    initialiser_cpu_seconds: float
    ratio: float
    spread: float


def measure(name: str, version: Version, models: Registry, access: S3Access, rounds: int, work: Path) -> Measurement:
    """Both sides in turns, each the first in every other round; `spread` is the plain side's, over its median."""
    prefix = f"models/{models.model}/versions/{version.name}/"

    def fetch_plainly(folder: Path) -> None:
        client = boto3.session.Session().client(
            "s3", endpoint_url=access.endpoint, region_name=access.region, config=PATH_STYLE,
            aws_access_key_id=access.access_key, aws_secret_access_key=access.secret_key,
        )  # fmt: skip
        for path in version.files:
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            client.download_file(models.bucket, prefix + path, str(folder / path))

    def fetch_by_initialiser(folder: Path) -> None:
        storage.fetch(models.uri(version.name), folder)

    taken: dict[Callable[[Path], None], list[tuple[float, float]]] = {fetch_plainly: [], fetch_by_initialiser: []}
    for number in range(rounds + 1):
        for side in (fetch_plainly, fetch_by_initialiser) if number % 2 else (fetch_by_initialiser, fetch_plainly):
            found = _time_fetch(side, version, work)
            # The first round warms the server's and the disk's caches.
            if number:
                taken[side].append(found)
    clock, cpu = ({side: [pair[at] for pair in pairs] for side, pairs in taken.items()} for at in (0, 1))
    plain_seconds, ours = statistics.median(clock[fetch_plainly]), statistics.median(clock[fetch_by_initialiser])
    return Measurement(
        name, len(version.files), version.bytes / 2**20, rounds, plain_seconds, ours,
        statistics.median(cpu[fetch_plainly]),
        statistics.median(cpu[fetch_by_initialiser]), plain_seconds / ours,
        (max(clock[fetch_plainly]) - min(clock[fetch_plainly])) / plain_seconds,
    )  # fmt: skip


def _time_fetch(side: Callable[[Path], None], version: Version, work: Path) -> tuple[float, float]:
    folder = work / "fetched"
    started, used = time.perf_counter(), time.process_time()
    side(folder)
    taken = time.perf_counter() - started, time.process_time() - used
    wrong = [path for path, digest in version.files.items() if object_store.digest_of(folder / path) != digest]
    if wrong:
        raise SystemExit(f"{side.__name__} fetched something else: {', '.join(wrong)}")
    shutil.rmtree(folder)
    return taken


def _publish(models: Registry, folder: Path) -> Version:
    if (folder / MANIFEST).exists():
        raise SystemExit(f"{folder}: is a published version; name the folder of a model")
    return models.publish(folder)


def _write_large_model(folder: Path, mib: int) -> Path:
    random = np.random.default_rng(0)
    folder.mkdir()
    for number, begin in enumerate(range(0, mib, SHARD_MIB)):
        size = min(SHARD_MIB, mib - begin) << 20
        weights = {"weight": random.integers(0, 256, size, dtype=np.uint8)}
        save_file(weights, folder / f"model-{number:05}.safetensors")
    (folder / "config.json").write_text("{}")
    return folder


def _write_tiny_model(folder: Path) -> Path:
    folder.mkdir()
    for name, size in TINY.items():
        (folder / name).write_bytes(os.urandom(size))
    return folder


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--mib", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--model", type=Path, help="a model's folder; default: random files of the tiny preset's sizes")
    options = parser.parse_args()
    found = []
    with tempfile.TemporaryDirectory(prefix="storage-benchmark-") as name, local_s3(Path(name) / "s3") as access:
        work = Path(name)
        os.environ.update(access.environment())
        models = connect(StorageConfig(model="benchmark"), access)
        for label, folder in (
            ("tiny", options.model or _write_tiny_model(work / "tiny")),
            ("large", _write_large_model(work / "large", options.mib)),
        ):
            found.append(measure(label, _publish(models, folder), models, access, options.rounds, work))
    print(json.dumps([asdict(one) for one in found], indent=2))
    print(
        "| version | files | MiB | plain boto3, s | initialiser, s | of plain throughput |\n|---|--:|--:|--:|--:|--:|"
    )
    for one in found:
        print(
            f"| {one.name} | {one.files} | {one.mib:.0f} | {one.plain_seconds:.2f} ({one.plain_cpu_seconds:.2f}) "
            f"| {one.initialiser_seconds:.2f} ({one.initialiser_cpu_seconds:.2f}) | {one.ratio:.0%} |"
        )
    sys.exit(min(one.ratio for one in found) < TARGET)


if __name__ == "__main__":
    main()
