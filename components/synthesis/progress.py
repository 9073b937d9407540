"""How far the teacher is: a bar where somebody watches a terminal, plain log lines elsewhere."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

SECONDS_BETWEEN_LINES = 15.0
_log = logging.getLogger(__name__)

OnProgress = Callable[[int], None]


@contextmanager
def progress(title: str, total: int) -> Iterator[OnProgress]:
    """A function that is told how many of `total` answers are there."""
    if sys.stderr.isatty():
        with _bar(title, total) as report:
            yield report
    else:
        yield _lines(title, total)


@contextmanager
def _bar(title: str, total: int) -> Iterator[OnProgress]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(title, total=total)
        yield lambda done: bar.update(task, completed=done)


def _lines(title: str, total: int) -> OnProgress:
    last = -SECONDS_BETWEEN_LINES

    def report(done: int) -> None:
        nonlocal last
        if done == total or time.monotonic() - last >= SECONDS_BETWEEN_LINES:
            last = time.monotonic()
            _log.info("%s: %d of %d answers", title, done, total)

    return report
