"""A child process and all that it has started: found, measured and ended together, with psutil.

`start_guarded` starts one that outlives nobody: when this process ends, in whatever way, a guard kills the family.

Two ways lead to its members, and each misses some. An orphan has no parent any more that would lead to it, but stays in
the process group; a worker of torch's launcher leads a session of its own, but stays a descendant. Both are taken.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import psutil

POLL_SECONDS = 0.05
_GUARD = Path(__file__).with_name("process_guard.py")
KILL_SECONDS = 10.0
"""What SIGKILL has not ended by then hangs in the kernel, or is another user's."""


@dataclass(frozen=True)
class GuardedProcess:
    """A command under its guard. `process` is the guard, which heads their group and ends as the command does.

    `pid` is the command's own number, 0 where it could not be started: then the guard says why and ends with 127.
    """

    process: subprocess.Popen[Any]
    pid: int

    def close(self) -> None:
        """Kills the command with all that it has started, and waits for the guard."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        try:
            self.process.wait(KILL_SECONDS)
        except subprocess.TimeoutExpired:
            # Its command dies with it.
            self.process.kill()
            self.process.wait()


def start_guarded(
    command: Sequence[str], kill_on_sigterm: bool = False, pass_fds: Sequence[int] = (), **options: Any
) -> GuardedProcess:
    """Starts a command in a session of its own that ends when this process ends; `options` are those of Popen.

    Its standard input is empty. The result has to be kept: without it nothing holds the pipe that the guard reads.
    """
    reader, writer = os.pipe()
    with os.fdopen(reader, "rb") as told:
        try:
            process = subprocess.Popen(
                [
                    sys.executable,
                    "-I",
                    "-S",
                    str(_GUARD),
                    str(writer),
                    "kill" if kill_on_sigterm else "leave",
                    *command,
                ],
                stdin=subprocess.PIPE,
                start_new_session=True,
                pass_fds=(writer, *pass_fds),
                **options,
            )
        finally:
            os.close(writer)
        return GuardedProcess(process, int(told.readline() or 0))


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
