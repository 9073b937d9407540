"""A student sampled M times for each user, and the vote over its samples. No labels.

The reference step freezes this vote; rejection sampling chooses by it which samples to learn from.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from conf_profile.config import ReferenceConfig
from conf_profile.consensus import voting
from conf_profile.consensus.ballots import Ballots
from conf_profile.consensus.voting import Vote
from conf_profile.dialogue.output_format import ProfileAnswer, parse_or_none
from conf_profile.dialogue.prompts import UserFeatures
from conf_profile.dialogue.task import Task
from conf_profile.errors import StudentError
from conf_profile.students import examples
from conf_profile.students.folder import Student
from conf_profile.students.rollouts import rollouts
from conf_profile.students.rollouts.rollouts import Sampling


@dataclass(frozen=True)
class Samples:
    """What the student said: texts and parsed answers (None: malformed), both [users][samples]."""

    people: Sequence[UserFeatures]
    texts: Sequence[Sequence[str]]
    parsed: Sequence[Sequence[ProfileAnswer | None]]
    task: Task

    def ballots(self, name: str) -> Ballots:
        """The samples' answers about one attribute."""
        return Ballots.from_answers(self.parsed, self.task[name])

    def votes(self, method: str) -> Mapping[str, Vote]:
        """Attribute -> the vote over the samples."""
        return {name: voting.vote_on(self.ballots(name), method) for name in self.task.names}


def second_stage_users(features: pa.Table, config: ReferenceConfig) -> list[UserFeatures]:
    """Users of the splits, one split after the other, at most `max_users`."""
    return [person for split in config.splits for person in examples.users(features, [split])][: config.max_users]


def sample(
    source: Path, student: Student, people: list[UserFeatures], config: ReferenceConfig, seed: int, step: str
) -> Samples:
    """Samples the student that was loaded from `source`, for a step, which the lines of progress name.

    StudentError where no sample follows the grammar.
    """
    sampling = Sampling(config.temperature, config.samples, config.batch_size, student.max_completion_tokens, seed)
    texts = _texts(source, student, people, sampling, config.use_vllm, step)
    parsed = [[parse_or_none(text, student.task) for text in samples] for samples in texts]
    if not any(found for samples in parsed for found in samples):
        raise StudentError(f"{source}: none of the student's samples follows the grammar; train it for longer")
    return Samples(people, texts, parsed, student.task)


def _texts(
    source: Path, student: Student, people: list[UserFeatures], sampling: Sampling, use_vllm: bool, step: str
) -> list[list[str]]:
    prompts: list[str] = student.prompts(people)
    if use_vllm:
        from conf_profile.students.rollouts.vllm import generate as generate_with_vllm

        return generate_with_vllm(source, prompts, sampling)
    return rollouts.generate(student.model, student.tokenizer, prompts, sampling, _Reporter(step, len(people)))


class _Reporter:
    """Prints a line at every tenth of the users."""

    def __init__(self, step: str, total: int) -> None:
        self.step, self.total, self.done, self.said = step, total, 0, 0

    def __call__(self, count: Any) -> None:
        self.done += count
        if self.done * 10 // self.total > self.said:
            self.said = self.done * 10 // self.total
            print(f"{self.step} {self.done}/{self.total} users", flush=True)
