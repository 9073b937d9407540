"""What a run will ask for: answers of the teacher, tokens, money, disk and memory. Estimates, and named so.

The figures a user come from docs/scale.md, measured on the generated world; a test compares them with its inputs.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from conf_profile.config import RunConfig
from conf_profile.dialogue.output_format import Answer, ProfileAnswer, render
from conf_profile.dialogue.prompts import Message
from conf_profile.dialogue.task import Task
from conf_profile.teachers.cost import CHARACTERS_A_TOKEN, Price
from conf_profile.teachers.protocol import Usage

FIGURES: Mapping[str, float] = {
    "students.mib_per_million": 3390,
    "evaluation.mib_per_million": 8260,
    "features.mib_per_million": 2980,
    "features.bytes_per_user": 53.8,
    "synthesis.candidate_bytes_per_asked": 181,
    "synthesis.answer_bytes_per_asked": 4660,
}
"""docs/scale.md, of preset `tiny` with ten samples: mib_per_million is peak memory for a million users."""
FIGURES_SAMPLES = 10
MODEL_GIB: Mapping[str, float] = {"scratch": 2.1, "smollm2-wheel": 15.2}
"""Peak memory of a whole run with this student (docs/performance.md)."""
GIB = 2**30


@dataclass(frozen=True)
class CostFacts:
    """What the teacher is asked for. Tokens are characters / 4; an answer has between its bare form and max_tokens."""

    answers: int
    prompt_tokens: int
    least_answer_tokens: int
    most_answer_tokens: int
    least_cost: float | None
    most_cost: float | None


@dataclass(frozen=True)
class MachineFacts:
    """GiB that the run needs, as estimated, and that this machine has; memory is None where nobody has measured it."""

    disk_needed: float
    disk_free: float
    memory_needed: float | None
    memory: float


def estimate_cost(
    config: RunConfig, task: Task, asked: int, prompts: Sequence[Sequence[Message]], price: Price | None
) -> CostFacts:
    """From the prompts of a sample of the users."""
    answers = asked * config.teacher.samples
    length = sum(len(message["content"]) for prompt in prompts for message in prompt) / max(1, len(prompts))
    bare = ProfileAnswer("", {each.name: Answer(each.tags[0], 3) for each in task.attributes})
    given = round(answers * length / CHARACTERS_A_TOKEN)
    least = round(answers * len(render(bare, task)) / CHARACTERS_A_TOKEN)
    most = max(least, answers * config.teacher.max_tokens)
    cost = [price.cost(Usage(given, said)) if price else None for said in (least, most)]
    return CostFacts(answers, given, least, most, *cost)


def estimate_machine(config: RunConfig, profiled: int, asked: int, data_bytes: int, folder: Path) -> MachineFacts:
    """Disk of the run's folder, and memory of this machine."""
    of_answers = FIGURES["synthesis.answer_bytes_per_asked"] + FIGURES["synthesis.candidate_bytes_per_asked"]
    disk = data_bytes + profiled * FIGURES["features.bytes_per_user"]
    disk += asked * of_answers * config.teacher.samples / FIGURES_SAMPLES
    growth = max(
        profiled * max(FIGURES["students.mib_per_million"], FIGURES["features.mib_per_million"]),
        asked * FIGURES["evaluation.mib_per_million"] * config.teacher.samples / FIGURES_SAMPLES,
    )
    model = MODEL_GIB.get(config.student.source)
    return MachineFacts(
        disk_needed=disk / GIB,
        disk_free=shutil.disk_usage(existing_parent(folder)).free / GIB,
        memory_needed=None if model is None else model + growth / 1e6 / 1024,
        memory=psutil.virtual_memory().total / GIB,
    )


def existing_parent(path: Path) -> Path:
    """The path itself, or the nearest folder above it that is there."""
    return next(each for each in (path, *path.parents) if each.exists())
