"""`conf-profile try`: one user's prompt and one answer of the configured teacher, as a run would read it."""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from conf_profile.cli.options import config_options

if TYPE_CHECKING:
    from conf_profile.config import RunConfig
    from conf_profile.dialogue.answer_reader import ReadAnswer
    from conf_profile.dialogue.prompts import Message
    from conf_profile.dialogue.task import Task
    from conf_profile.teachers.protocol import Completion, Request, Teacher

MALFORMED_STATUS = 2


@click.command("try", short_help="Ask the teacher for one answer, and show how it is read.")
@config_options
@click.option("--user", "user_id", default="", metavar="ID", help="Whom to ask about; default: one of the run's users.")
def try_teacher(config: RunConfig, user_id: str) -> None:
    """Show one user's prompt, ask the configured teacher once, and show its answer and what is read from it.

    Nothing is written, and the answer is not kept. The exit status is 2 where it is malformed. Prompt and answer hold
    what the user has watched or written.
    """
    from conf_profile.data.build import build
    from conf_profile.dialogue import task as tasks
    from conf_profile.dialogue.answer_reader import read_answer
    from conf_profile.dialogue.prompts import render_messages
    from conf_profile.teachers.factory import make_teacher
    from conf_profile.teachers.protocol import Request
    from pipelines.check.people import read_user
    from pipelines.local.malformed_answers import describe

    with tempfile.TemporaryDirectory() as temporary:
        data = build(config, Path(temporary) / config.data.name)
        task = tasks.load(data.task)
        user = read_user(config, data, task, user_id)
        messages = tuple(render_messages(user, task, "full", config.prompt.max_keyphrases))
        _echo(_prompt_lines(user.user_id, messages))
        teacher = make_teacher(config.teacher, task, data.lexicon, config.seed)
        began = time.monotonic()
        completion = asyncio.run(_ask(teacher, Request(user.user_id, messages, (0,))))
    seconds = time.monotonic() - began
    found = read_answer(completion.text, task, completion.reason)
    _echo(describe(found, completion.text))
    _echo(_result_lines(found, task))
    click.echo(_cost_line(config, messages, completion, seconds))
    if found.answer is None:
        sys.exit(MALFORMED_STATUS)


async def _ask(teacher: Teacher, request: Request) -> Completion:
    """The one answer; TeacherError where the teacher gives none."""
    from conf_profile.errors import TeacherError

    try:
        answers = [completion async for completion in teacher.complete([request])]
    finally:
        await teacher.aclose()
    if not answers:
        raise TeacherError("the teacher stopped without an answer; try again")
    return answers[0]


def _echo(lines: Iterator[str]) -> None:
    for line in lines:
        click.echo(line)


def _prompt_lines(user_id: str, messages: Sequence[Message]) -> Iterator[str]:
    from pipelines.local.malformed_answers import printable

    yield f"the teacher's prompt for user {printable(user_id)}:"
    for message in messages:
        yield f"  [{message['role']}]"
        yield from (f"  {line}" for line in message["content"].splitlines())


def _result_lines(found: ReadAnswer, task: Task) -> Iterator[str]:
    if found.answer is None:
        yield f"what to change: {found.form.remedy}"
        return
    from conf_profile.dialogue.taxonomy import UNKNOWN
    from pipelines.local.malformed_answers import printable

    width = max(map(len, task.names))
    yield "read as:"
    for name, answer in found.answer.answers.items():
        yield f"  {name:<{width}}  {answer.tag or UNKNOWN}, level {answer.level}"
    yield f"  its evidence: {printable(found.answer.rationale) or 'none named'}"


def _cost_line(config: RunConfig, messages: Sequence[Message], completion: Completion, seconds: float) -> str:
    from conf_profile.teachers.cost import price_of, usage_of

    usage, price = usage_of(messages, completion), price_of(config.teacher)
    about = "about " if completion.usage is None else ""
    line = f"{seconds:.1f} s, {about}{usage.prompt_tokens:,} tokens of prompt and {usage.answer_tokens:,} of answer"
    return line if price is None else f"{line}, cost {about}{price.cost(usage):.6f}"
