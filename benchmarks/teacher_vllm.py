"""Tokens/s of synthesis with the vllm teacher, against a bare `LLM.chat` over the same prompts.

Both use one engine in one process, in turns, so that a noisy machine hits both. The teacher's side includes
everything that synthesis adds: seeds for each request, refilling, and keeping every answer on disk. The
prefix cache is emptied before each turn. Prints JSON; `ratio` is the teacher's tokens/s over the bare one's,
both summed over all rounds after a first turn of each that only warms up.

    python benchmarks/teacher_vllm.py --users 16 --samples 4 --rounds 3
"""

from __future__ import annotations

import argparse
import asyncio
import json
import platform
import random
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from conf_profile.config import TeacherConfig
from conf_profile.dialogue.prompts import UserFeatures, render_messages
from conf_profile.dialogue.task import builtin
from conf_profile.students.smollm2 import smollm2_folder
from conf_profile.teachers.answers import AnswerStore, ask
from conf_profile.teachers.protocol import Request
from conf_profile.teachers.vllm import VLLMTeacher

WORDS = ("rose", "pension", "chess", "guitar", "exam", "nursery", "marathon", "tax", "cream", "fishing")


class TokenCounter:
    """Counts the tokens of every output that an engine finishes, whoever calls `step`."""

    def __init__(self, engine: Any) -> None:
        self.tokens = 0
        self._step = engine.step
        engine.step = self

    def __call__(self) -> list[Any]:
        outputs = list(self._step())
        self.tokens += sum(len(a.token_ids) for output in outputs if output.finished for a in output.outputs)
        return outputs


def main() -> None:
    """Runs the comparison and prints it."""
    arguments = parse_arguments()
    requests = make_requests(arguments.users, arguments.samples)
    teacher = VLLMTeacher(make_config(arguments), builtin("profile"), seed=0)
    counter = TokenCounter(teacher.llm.llm_engine)
    turns = {"bare": lambda: run_bare(teacher, requests), "teacher": lambda: run_teacher(teacher, requests)}
    measured = measure(turns, teacher, counter, arguments.rounds)
    asyncio.run(teacher.aclose())
    print(json.dumps(report(measured, arguments), indent=2))


def parse_arguments() -> argparse.Namespace:
    """The size of the comparison."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", type=Path, help="model folder; default: SmolLM2-135M-Instruct")
    parser.add_argument("--users", type=int, default=16)
    parser.add_argument("--samples", type=int, default=4)
    parser.add_argument("--max-tokens", type=int, default=224)
    parser.add_argument("--max-num-seqs", type=int, default=8, help="so that the teacher has to refill")
    parser.add_argument("--structured", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--rounds", type=int, default=3)
    return parser.parse_args()


def make_config(arguments: argparse.Namespace) -> TeacherConfig:
    """The teacher's section for this comparison."""
    return TeacherConfig(
        kind="vllm",
        model=str(arguments.model or smollm2_folder()),
        samples=arguments.samples,
        max_tokens=arguments.max_tokens,
        structured_output=arguments.structured,
        engine_arguments={"max_num_seqs": arguments.max_num_seqs, "max_model_len": 2048},
    )


def make_requests(users: int, samples: int) -> list[Request]:
    """Prompts of generated users: the real instruction, 10-30 keyphrases."""
    source, taxonomy = random.Random(0), builtin("profile")
    requests = []
    for number in range(users):
        watch = [" ".join(source.sample(WORDS, 2)) for _ in range(source.randint(10, 30))]
        user = UserFeatures(f"u{number}", watch=watch)
        messages = tuple(render_messages(user, taxonomy, "full", 40))
        requests.append(Request(user.user_id, messages, tuple(range(samples))))
    return requests


def run_bare(teacher: VLLMTeacher, requests: Sequence[Request]) -> None:
    """What a user without this project would write; no seeds, nothing kept."""
    parameters = [teacher.sampling(request) for request in requests]
    for parameter in parameters:
        parameter.seed = None
    teacher.llm.chat([list(request.messages) for request in requests], parameters, use_tqdm=False)


def run_teacher(teacher: VLLMTeacher, requests: Sequence[Request]) -> None:
    """The synthesis step's way, answers kept on disk."""
    with tempfile.TemporaryDirectory() as folder, AnswerStore(Path(folder), teacher.fingerprint) as store:
        asyncio.run(ask(teacher, requests, store))


def measure(
    turns: dict[str, Callable[[], None]], teacher: VLLMTeacher, counter: TokenCounter, rounds: int
) -> dict[str, list[tuple[int, float]]]:
    """(tokens, seconds) of each turn; the order changes from round to round."""
    measured: dict[str, list[tuple[int, float]]] = {name: [] for name in turns}
    for number in range(rounds + 1):
        for name in sorted(turns, reverse=bool(number % 2)):
            teacher.llm.reset_prefix_cache()
            tokens, start = counter.tokens, time.perf_counter()
            turns[name]()
            measured[name].append((counter.tokens - tokens, time.perf_counter() - start))
    return {name: values[1:] for name, values in measured.items()}


def report(measured: dict[str, list[tuple[int, float]]], arguments: argparse.Namespace) -> dict[str, Any]:
    """Rates, their ratio, and on what they were measured."""
    rates = {name: sum(t for t, _ in turns) / sum(s for _, s in turns) for name, turns in measured.items()}
    return {
        "tokens_per_second": {name: round(rate, 1) for name, rate in rates.items()},
        "ratio": round(rates["teacher"] / rates["bare"], 3),
        "turns": {name: [(t, round(s, 2)) for t, s in turns] for name, turns in measured.items()},
        "arguments": {name: str(value) for name, value in vars(arguments).items()},
        "machine": machine(),
    }


def machine() -> str:
    """The processor's name, where Linux tells it."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{len(names)} x {names[0]}" if names else platform.processor()


if __name__ == "__main__":
    main()
