"""What Ctrl-C, SIGTERM and SIGHUP do to a command that starts processes: its blocks unwind, then none of them is left.

Without a handler SIGTERM and SIGHUP would end a process at once, in the middle of what it had to put away. SIGKILL
cannot be handled; what was started by `process_family.start_guarded` ends with the process all the same.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from conf_profile.processes import process_family
from conf_profile.processes.process_family import ProcessFamily

_PR_SET_CHILD_SUBREAPER = 36
_SHELLS_OFFSET = 128
"""A shell's status for a program that a signal has ended is the signal's number and this."""


class Interruption(KeyboardInterrupt):
    """A signal that asks this process to end, raised where the main thread stands."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


@contextmanager
def end_processes(advice: str = "what is done is kept: the same command continues it") -> Iterator[None]:
    """A signal ends the block, with a line that gives this advice and status 128 + number; no process is left after it.

    The second signal does not wait for the blocks. Signals that the caller has ignored (nohup) stay ignored, and
    processes that were there before the block are left alone. Outside the main thread nothing is handled.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    _adopt_orphans()
    others, raised = _children(), list[int]()
    before = {number: signal.signal(number, _raise_once(others, raised)) for number in _unignored_signals()}
    try:
        yield
    except (Interruption, OSError):
        # What is written while the blocks unwind fails where the terminal is gone.
        if not raised:
            raise
        with suppress(OSError):
            name = signal.Signals(raised[0]).name
            print(f"conf-profile: ended by {name}; {advice}", file=sys.stderr, flush=True)
        sys.exit(_SHELLS_OFFSET + raised[0])
    finally:
        for number in before:
            signal.signal(number, _end_at_once(others))
        _end_children(others)
        for number, handler in before.items():
            signal.signal(number, handler)


def _unignored_signals() -> list[signal.Signals]:
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    return [number for number in numbers if signal.getsignal(number) is not signal.SIG_IGN]


def _raise_once(others: set[int], raised: list[int]) -> Any:
    def handle(number: int, _: object) -> None:
        raised.append(number)
        for following in _unignored_signals():
            signal.signal(following, _end_at_once(others))
        raise Interruption(number)

    return handle


def _end_at_once(others: set[int]) -> Any:
    def handle(number: int, _: object) -> None:
        _end_children(others)
        os._exit(_SHELLS_OFFSET + number)

    return handle


def _end_children(others: set[int]) -> None:
    process_family.end(list(_families(_children() - others)))


def _families(pids: Iterable[int]) -> Iterator[ProcessFamily]:
    import psutil

    for pid in pids:
        with suppress(psutil.NoSuchProcess):
            yield ProcessFamily(pid)


def _children() -> set[int]:
    import psutil

    return {child.pid for child in psutil.Process().children()}


def _adopt_orphans() -> None:
    """On Linux: what a killed child has started becomes a child of this process, and ends with the others."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1)
