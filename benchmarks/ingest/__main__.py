"""`conf-profile ingest` on generated event logs: seconds, peak memory and disk, and how they grow.

    python -m benchmarks.ingest [--millions 1 5 20] [--formats parquet csv jsonl] [--snapshot last]

A user has 50 events on average, a few have many more; three kinds; texts of about 30 characters; one event in a
thousand has no user. The log is written by DuckDB, in no order. The command runs in a process of its own, start and
imports included; its resident memory, and what its temporary folder takes on disk, are read ten times a second. Prints
a Markdown table.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import duckdb
import psutil

MIB = 1 << 20
EVENTS_OF_A_USER = 50
LOOK_SECONDS = 0.1
_EVENTS = """
SELECT CASE WHEN random() < 0.001 THEN NULL ELSE CAST(pow(random(), 2) * {users} AS BIGINT) END AS uid,
       TIMESTAMPTZ '2024-01-01 00:00:00+00' + to_microseconds(CAST(random() * 31536000e6 AS BIGINT)) AS ts,
       ['watch', 'search', 'submit'][1 + i % 3] AS kind,
       'a keyphrase with number ' || CAST(CAST(pow(random(), 3) * 100000 AS INTEGER) AS VARCHAR) AS title,
       i AS event_id, random() AS unused
FROM range({events}) AS numbers(i)
"""
_FORMATS = {"parquet": "FORMAT parquet", "csv": "FORMAT csv, HEADER", "jsonl": "FORMAT json"}


@dataclass(frozen=True)
class IngestRun:
    """One call: bytes of the log, seconds of clock and processor, peaks of memory and temporary disk, what came out."""

    events: int
    log_format: str
    log_bytes: int
    seconds: float
    processor_seconds: float
    memory: int
    disk: int
    users: int
    out_bytes: int


def write_log(path: Path, events: int) -> None:
    """A log of so many events in the format of the file's suffix."""
    query = _EVENTS.format(users=max(1, events // EVENTS_OF_A_USER), events=events)
    with duckdb.connect() as connection:
        connection.execute("SET memory_limit = '2GB'")
        connection.execute("SELECT setseed(0.5)")
        connection.execute(f"COPY ({query}) TO '{path}' ({_FORMATS[path.suffix[1:]]})")


def measure(log: Path, events: int, out: Path, snapshot: str) -> IngestRun:
    """Runs the command and watches it; ends with its message where it fails."""
    options = ["--user", "uid", "--time", "ts", "--text", "title", "--kind", "kind", "--consent-for-all"]
    command = [sys.executable, "-m", "conf_profile", "ingest", "--events", str(log), *options, "--snapshot", snapshot]
    began = time.monotonic()
    with subprocess.Popen([*command, "--out", str(out)], stdout=subprocess.DEVNULL) as child:
        memory, disk = _watch(psutil.Process(child.pid), out)
    if child.returncode:
        raise SystemExit(f"the command failed with status {child.returncode}")
    seconds = time.monotonic() - began
    report = json.loads((out / "ingest.json").read_text(encoding="utf-8"))
    used = os.times()
    return IngestRun(
        events, log.suffix[1:], log.stat().st_size, seconds, used.children_user + used.children_system, memory, disk,
        report["users"], _folder_bytes(out),
    )  # fmt: skip


def _watch(process: psutil.Process, out: Path) -> tuple[int, int]:
    """Peaks of resident memory and of the folder in which the result comes about, until the process ends."""
    memory = disk = 0
    while process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
        try:
            memory = max(memory, process.memory_info().rss)
        except psutil.NoSuchProcess:
            break
        disk = max(disk, sum(_folder_bytes(folder) for folder in out.parent.glob(f".{out.name}.*.tmp")))
        time.sleep(LOOK_SECONDS)
    return memory, disk


def _folder_bytes(folder: Path) -> int:
    total = 0
    for path in folder.rglob("*"):
        try:
            total += path.stat().st_size if path.is_file() else 0
        except OSError:  # temporary files come and go
            continue
    return total


def table(runs: Sequence[IngestRun]) -> str:
    """The figures as Markdown."""
    lines = [
        "| events | format | log, MiB | users | seconds | of one core | peak MiB | disk, MiB | result, MiB |",
        "|--:|---|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for run in runs:
        sizes = " | ".join(f"{size / MIB:,.0f}" for size in (run.memory, run.disk, run.out_bytes))
        lines.append(
            f"| {run.events:,} | {run.log_format} | {run.log_bytes / MIB:,.0f} | {run.users:,} | {run.seconds:.0f} | "
            f"{run.processor_seconds:.0f} | {sizes} |"
        )
    return "\n".join(lines)


def main(given: Sequence[str] | None = None) -> None:
    """The program."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ingest")
    parser.add_argument("--millions", type=float, nargs="+", default=[1, 5, 20])
    parser.add_argument("--formats", nargs="+", choices=sorted(_FORMATS), default=["parquet"])
    parser.add_argument("--snapshot", default="last")
    options = parser.parse_args(given)
    runs, spent = [], 0.0
    with tempfile.TemporaryDirectory() as folder:
        for log_format in options.formats:
            for millions in options.millions:
                log, events = Path(folder) / f"events.{log_format}", int(millions * 1_000_000)
                write_log(log, events)
                run = measure(log, events, Path(folder) / f"{log_format}-{events}", options.snapshot)
                runs.append(IngestRun(**{**vars(run), "processor_seconds": run.processor_seconds - spent}))
                spent = run.processor_seconds
                log.unlink()
    print(table(runs))


if __name__ == "__main__":
    main()
