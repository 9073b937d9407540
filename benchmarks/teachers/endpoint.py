"""Answers a second of the synthesis step from an HTTP endpoint, against a bare aiohttp loop over the same prompts.

A stub in a process of its own gives each answer after `--delay` seconds. The bare loop is what a user without this
project would write: prompts rendered, so many requests at once, the JSON read, texts in a list. The step's side is all
that synthesis does: it reads the features, renders the prompts, asks, keeps every answer on disk, and writes the
parsed answers as a table; once with one sample a request, once with as many as the endpoint gives. They take turns in
one process, so that a noisy machine hits all. Prints JSON: wall and processor seconds of each turn, and `ratio`, of the
medians. `ideal` is the delay alone.

    python -m benchmarks.teachers.endpoint --answers 2000 --delay 0.05 --concurrency 64 --rounds 5
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp

from benchmarks.teacher_vllm import WORDS, machine
from components.synthesis import step
from conf_profile import tables
from conf_profile.config import PromptConfig, TeacherConfig
from conf_profile.dialogue.output_format import Answer, ProfileAnswer, render
from conf_profile.dialogue.prompts import UserFeatures, render_messages
from conf_profile.dialogue.task import builtin

STUB = Path(__file__).with_name("stub_endpoint.py")


class Turn(NamedTuple):
    """Seconds of one turn: by the clock, and of this process's processor."""

    wall: float
    cpu: float


def main() -> None:
    """Runs the comparison and prints it."""
    arguments = parse_arguments()
    with tempfile.TemporaryDirectory() as temporary, stub(arguments.delay) as url:
        folder = Path(temporary)
        write_inputs(folder, arguments.answers // arguments.samples)
        turns: dict[str, Callable[[], object]] = {
            "bare": lambda: asyncio.run(ask_bare(url, prompts(folder, arguments), arguments)),
            "step": lambda: run_step(url, folder, arguments, 1),
            "step, several samples in a request": lambda: run_step(url, folder, arguments, None),
        }
        measured = measure(turns, arguments.rounds)
    print(json.dumps(report(measured, arguments), indent=2))


def parse_arguments() -> argparse.Namespace:
    """The size of the comparison."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--answers", type=int, default=2000)
    parser.add_argument("--samples", type=int, default=10, help="of each user")
    parser.add_argument("--delay", type=float, default=0.05, help="seconds that the stub takes for an answer")
    parser.add_argument("--concurrency", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    return parser.parse_args()


@contextmanager
def stub(delay: float) -> Iterator[str]:
    """The address of a running endpoint."""
    task = builtin("profile")
    answers = {attribute.name: Answer(attribute.tags[0], 4) for attribute in task.attributes}
    command = [sys.executable, str(STUB), str(delay), render(ProfileAnswer("rose 1; tax 2", answers), task)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield f"http://127.0.0.1:{int(process.stdout.readline())}/v1"
        finally:
            process.kill()


def write_inputs(folder: Path, users: int) -> None:
    """The step's inputs: users with 20 keyphrases, and the built-in task of six attributes."""
    watch = [[f"{WORDS[n % 10]} {WORDS[(n + k) % 10]} {k}" for k in range(20)] for n in range(users)]
    empty = dict.fromkeys(("self_age", "self_gender", "signature", "region"))
    rows = [
        {"user_id": f"u{n:05d}", "split": "train", "watch": watch[n], "search": [], "submit": [], **empty}
        for n in range(users)
    ]
    tables.write(folder / "features.parquet", tables.from_rows(rows, tables.FEATURES), tables.FEATURES)
    builtin("profile").save(folder / "task.yaml")


def prompts(folder: Path, arguments: argparse.Namespace) -> list[list[Any]]:
    """Every prompt, once for each sample."""
    rows = tables.read(folder / "features.parquet", tables.FEATURES).to_pylist()
    users = [UserFeatures(**{name: value for name, value in row.items() if name != "split"}) for row in rows]
    rendered = [render_messages(user, builtin("profile"), "full", PromptConfig().max_keyphrases) for user in users]
    return [list(messages) for messages in rendered for _ in range(arguments.samples)]


async def ask_bare(url: str, messages: Sequence[Any], arguments: argparse.Namespace) -> list[str]:
    """As many workers as requests at once; no retries, nothing kept."""
    left, texts = iter(messages), []
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=arguments.concurrency)) as session:

        async def work() -> None:
            for prompt in left:
                body = {"model": "stub", "messages": prompt, "temperature": 1.0, "max_tokens": 512}
                async with session.post(f"{url}/chat/completions", json=body) as answer:
                    texts.append((await answer.json())["choices"][0]["message"]["content"])

        await asyncio.gather(*[work() for _ in range(arguments.concurrency)])
    return texts


def run_step(url: str, folder: Path, arguments: argparse.Namespace, samples_per_request: int | None) -> None:
    """The synthesis step as the pipeline runs it, with an empty store of answers."""
    config = TeacherConfig(
        kind="openai", base_url=url, model="stub", samples=arguments.samples, shards=1,
        concurrency=arguments.concurrency, samples_per_request=samples_per_request,
    )  # fmt: skip
    with tempfile.TemporaryDirectory(dir=folder) as answers:
        step.run(
            folder / "features.parquet", folder / "task.yaml", None, folder / "candidates.parquet", config,
            PromptConfig(), 0, 0, answers,
        )  # fmt: skip


def measure(turns: dict[str, Callable[[], object]], rounds: int) -> dict[str, list[Turn]]:
    """Each side's turns; the order changes from round to round, and the first one only warms up."""
    measured: dict[str, list[Turn]] = {name: [] for name in turns}
    for number in range(rounds + 1):
        for name in sorted(turns, reverse=bool(number % 2)):
            wall, cpu = time.perf_counter(), time.process_time()
            turns[name]()
            measured[name].append(Turn(time.perf_counter() - wall, time.process_time() - cpu))
    return {name: values[1:] for name, values in measured.items()}


def report(measured: dict[str, list[Turn]], arguments: argparse.Namespace) -> dict[str, Any]:
    """Medians, their ratio to the bare loop's, and on what they were measured."""
    wall = {name: statistics.median(turn.wall for turn in turns) for name, turns in measured.items()}
    return {
        "seconds": {name: round(value, 2) for name, value in wall.items()},
        "cpu_seconds": {
            name: round(statistics.median(turn.cpu for turn in turns), 2) for name, turns in measured.items()
        },
        "answers_per_second": {name: round(arguments.answers / value) for name, value in wall.items()},
        "ratio": {name: round(value / wall["bare"], 2) for name, value in wall.items()},
        "ideal": math.ceil(arguments.answers / arguments.concurrency) * arguments.delay,
        "turns": {name: [[round(part, 2) for part in turn] for turn in turns] for name, turns in measured.items()},
        "arguments": {name: str(value) for name, value in vars(arguments).items()},
        "machine": machine(),
    }


if __name__ == "__main__":
    main()
