"""From a configuration to a teacher; imports only the one that is asked for."""

from __future__ import annotations

from pathlib import Path

from conf_profile.config import TeacherConfig
from conf_profile.dialogue.task import Task
from conf_profile.errors import TeacherError
from conf_profile.teachers.protocol import Teacher
from conf_profile.teachers.spending import Spending


def make_teacher(
    config: TeacherConfig, task: Task, lexicon_path: Path | None, seed: int, spending: Spending | None = None
) -> Teacher:
    """The teacher of `config.kind`, to be closed with `aclose`. TeacherError when it lacks what it needs.

    `spending` counts against the budget of a teacher that costs something.
    """
    if config.kind == "openai":
        from conf_profile.teachers.openai import OpenAITeacher

        return OpenAITeacher(config, spending)
    if config.kind == "vllm":
        from conf_profile.teachers.vllm import VLLMTeacher

        return VLLMTeacher(config, task, seed)
    return _lexicon_teacher(config, task, lexicon_path, seed)


def _lexicon_teacher(config: TeacherConfig, task: Task, path: Path | None, seed: int) -> Teacher:
    from conf_profile.teachers.lexicon import LexiconTeacher

    if path is None:
        raise TeacherError(
            "teacher.kind 'lexicon' needs a lexicon, and this data set has none; add one to the data folder, "
            "or choose teacher.kind openai or vllm"
        )
    return LexiconTeacher(path, task, config.keyphrases_read, seed)
