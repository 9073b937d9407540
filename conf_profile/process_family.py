"""A child process and all that it has started: found, measured and ended together, with psutil.

Two ways lead to its members, and each misses some. An orphan has no parent any more that would lead to it, but stays in
the process group; a worker of torch's launcher leads a session of its own, but stays a descendant. Both are taken.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import psutil

POLL_SECONDS = 0.05
KILL_SECONDS = 10.0
"""What SIGKILL has not ended by then hangs in the kernel, or is another user's."""


class ProcessFamily:
    """The family of a child, which has a process group of its own where it was started in a new session."""

    def __init__(self, pid: int) -> None:
        import psutil

        self._head = psutil.Process(pid)

    def members(self) -> list[psutil.Process]:
        """Those that live now; who has ended and was not yet waited for does not."""
        found: set[psutil.Process] = set()
        for process in self._head_and_group():
            if process not in found:
                found |= {process, *_descendants(process)}
        return [process for process in found if _lives(process)]

    def resident_mib(self) -> float:
        """The resident memory of all members, in MiB."""
        return sum(map(_resident_bytes, self.members())) / 2**20

    def _head_and_group(self) -> Iterator[psutil.Process]:
        import psutil

        if self._head.is_running():
            yield self._head
        elif psutil.pid_exists(self._head.pid):
            return  # its number is another process's by now, and that happens only when its group is empty
        for process in psutil.process_iter():
            if _group(process.pid) == self._head.pid:
                yield process


def end(families: Sequence[ProcessFamily], grace_seconds: float = 0.0) -> None:
    """SIGTERM for all members where there is a grace, then SIGKILL for who is left after it.

    Who started a head still has to wait for it: its status is left for that.
    """
    import psutil

    deadline = time.monotonic() + grace_seconds
    if grace_seconds:
        for process in _members(families):
            with suppress(psutil.Error):
                process.terminate()
    while (left := _members(families)) and time.monotonic() < deadline + KILL_SECONDS:
        # Each time anew: a member may start another one while it is looked for.
        for process in left if time.monotonic() >= deadline else ():
            with suppress(psutil.Error):
                process.kill()
        time.sleep(POLL_SECONDS)


def _members(families: Sequence[ProcessFamily]) -> list[psutil.Process]:
    return [process for family in families for process in family.members()]


def _descendants(process: psutil.Process) -> list[psutil.Process]:
    import psutil

    try:
        found: list[psutil.Process] = process.children(recursive=True)
    except psutil.Error:
        return []
    return found


def _lives(process: psutil.Process) -> bool:
    import psutil

    try:
        return bool(process.status() not in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD))
    except psutil.Error:
        return False


def _resident_bytes(process: psutil.Process) -> int:
    import psutil

    try:
        return int(process.memory_info().rss)
    except psutil.Error:
        return 0  # it ended between the listing and the look


def _group(pid: int) -> int | None:
    try:
        return os.getpgid(pid)
    except OSError:
        return None
