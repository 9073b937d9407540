"""Two malformed answers of the teacher for whoever has started a run on this machine.

They may quote what a user has watched or written. They are therefore shown on the terminal of the one who runs it, like
the prompt of `conf-profile check`; no step prints one, and none is in run.log or in the logs of a pod.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from pathlib import Path

from conf_profile.config import RunConfig
from conf_profile.data.dataset import Dataset
from conf_profile.dialogue import task as tasks
from conf_profile.dialogue.answer_reader import ReadAnswer, read_answer
from conf_profile.teachers.answers import kept_texts
from conf_profile.teachers.factory import make_teacher

SHOWN_ANSWERS = 2
SHOWN_CHARACTERS = 1_000


def describe_latest(config: RunConfig, data: Dataset, answers: Path) -> Iterator[str]:
    """The lines to show: the malformed answers that this run's teacher has given last, each with what is wrong."""
    task = tasks.load(data.task)
    teacher = make_teacher(config.teacher, task, data.lexicon, config.seed)
    read = ((read_answer(text, task), text) for text in kept_texts(answers, teacher.fingerprint))
    latest = deque(((found, text) for found, text in read if found.answer is None), maxlen=SHOWN_ANSWERS)
    for found, text in latest:
        yield from describe(found, text)


def describe(found: ReadAnswer, text: str) -> Iterator[str]:
    """An answer, indented and limited in length, under a line that says how it was read."""
    yield f"the teacher's answer, {'well-formed' if found.answer else 'malformed'}: {found.form}"
    cut = text[:SHOWN_CHARACTERS] + ("…" if len(text) > SHOWN_CHARACTERS else "")
    yield from (f"  | {printable(line)}" for line in cut.splitlines() or [""])


def printable(line: str) -> str:
    """A line without characters by which a text could steer a terminal."""
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in line)
