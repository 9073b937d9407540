"""A student's folder is complete: everything that serving needs lies in it and is hashed with it.

model.safetensors, config.json and tokenizer.* are the network; `registry.version_files` says what the others are.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from conf_profile.config import PromptConfig, StudentConfig
from conf_profile.consensus import confidence
from conf_profile.consensus.confidence import Calibration
from conf_profile.dialogue import task as tasks
from conf_profile.dialogue.prompts import UserFeatures
from conf_profile.dialogue.task import Task
from conf_profile.errors import StudentError
from conf_profile.files import write_text
from conf_profile.registry.version_files import CALIBRATION, PROFILE, TASK, VOTE_CALIBRATION
from conf_profile.students import examples, model
from conf_profile.students.rollouts import predict


@dataclass(frozen=True)
class Student:
    """A loaded student."""

    model: Any
    tokenizer: Any
    task: Task
    prompt: PromptConfig
    max_completion_tokens: int

    def prompts(self, people: list[UserFeatures]) -> list[str]:
        """The prompts of these users as the model reads them."""
        messages = [examples.student_messages(person, self.task, self.prompt) for person in people]
        return examples.prompt_texts(messages, self.tokenizer)

    def answer(self, people: list[UserFeatures], batch_size: int) -> predict.GreedyAnswers:
        """Greedy answers for these users."""
        ids = [person.user_id for person in people]
        return predict.answer(
            self.model,
            self.tokenizer,
            ids,
            self.prompts(people),
            self.task,
            batch_size,
            self.max_completion_tokens,
        )


def load(folder: Path, dtype: str) -> Student:
    """Reads a complete student. StudentError names what is missing."""
    network, tokenizer = model.load(folder, dtype)
    try:
        profile = json.loads((folder / PROFILE).read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError) as error:
        raise StudentError(f"{folder / PROFILE}: cannot be read: {error}; is this a student's folder?") from error
    return Student(
        network,
        tokenizer,
        tasks.load(tasks.find(folder)),
        PromptConfig.model_validate(profile["prompt"]),
        int(profile["max_completion_tokens"]),
    )


def load_calibration(folder: Path) -> Calibration:
    """The partition that the student was saved with."""
    return confidence.load(folder / CALIBRATION, predict.GREEDY)


def save(
    network: Any,
    tokenizer: Any,
    task: Task,
    prompt: PromptConfig,
    config: StudentConfig,
    unlabelled: list[UserFeatures],
    batch_size: int,
    folder: Path,
    of_votes: Calibration | None = None,
) -> Calibration:
    """Fits the partition on users without labels, then writes the complete folder, whole or not at all.

    `of_votes` is the partition of the scores of votes, where it is known.
    """
    student = Student(network, tokenizer, task, prompt, config.max_completion_tokens)
    answers = student.answer(unlabelled[: predict.MAX_CALIBRATION_USERS], batch_size)
    calibration = predict.fit_calibration(answers, task)

    def complete(temporary: Path) -> None:
        task.save(temporary / TASK)
        confidence.save(calibration, temporary / CALIBRATION)
        if of_votes is not None:
            confidence.save(of_votes, temporary / VOTE_CALIBRATION)
        profile = {
            "prompt": prompt.model_dump(),
            "max_prompt_tokens": config.max_prompt_tokens,
            "max_completion_tokens": config.max_completion_tokens,
        }
        write_text(temporary / PROFILE, json.dumps(profile, indent=2))

    model.save(network, tokenizer, folder, complete)
    return calibration
