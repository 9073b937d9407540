"""Child processes of the local server: started in a group of their own, waited for by asking, ended as a group.

A signal's handler runs between any two steps, so also between the start of a process and the block that would end it.
Whoever handles signals therefore calls `end_all` last.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from conf_profile.errors import ServingError

if TYPE_CHECKING:
    import psutil

GRACE_SECONDS = 10.0
POLL_SECONDS = 0.2


@dataclass(frozen=True)
class Child:
    """One running process, its log, and what it is called in messages."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path

    def wait_until(self, answers: Callable[[], bool], seconds: float) -> None:
        """Polls until it answers; ServingError with the end of its log when it died or the time is over."""
        end = time.monotonic() + seconds
        while not answers():
            if self.process.poll() is not None:
                raise ServingError(f"{self.name} ended with status {self.process.returncode}: {self.last_words()}")
            if time.monotonic() > end:
                raise ServingError(f"{self.name} did not answer within {seconds:.0f} s: {self.last_words()}")
            time.sleep(POLL_SECONDS)

    def last_words(self) -> str:
        """The end of the log, with its place."""
        text = self.log.read_text(encoding="utf-8", errors="replace") if self.log.is_file() else ""
        return f"{text[-1500:].strip()}\n(whole log: {self.log})"

    def hang_up(self) -> None:
        """SIGHUP: read the settings again."""
        self.process.send_signal(signal.SIGHUP)

    def stop(self) -> None:
        """SIGTERM for the group, SIGKILL for what is left of it."""
        _signal_group(self.process.pid, signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(GRACE_SECONDS)
        _signal_group(self.process.pid, signal.SIGKILL)
        self.process.wait()


def start(name: str, command: Sequence[str], environment: Mapping[str, str], log: Path) -> Child:
    """Starts a process that writes to `log`; the variables go over ours."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as out:
        process = subprocess.Popen(
            list(command),
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            env={**os.environ, **environment},
            start_new_session=True,
        )
    return Child(name, process, log)


def end_all() -> None:
    """Ends every process that this one has started, known to anybody or not."""
    import psutil

    children = psutil.Process().children()
    groups = [child.pid for child in children if _leads_a_group(child.pid)]
    for child in children:
        _signal(child, signal.SIGTERM, groups)
    psutil.wait_procs(children, GRACE_SECONDS)
    for child in children:
        _signal(child, signal.SIGKILL, groups)
    psutil.wait_procs(children)


def _leads_a_group(pid: int) -> bool:
    """Not so for what a library has started beside us, in our own group."""
    try:
        return os.getpgid(pid) == pid
    except ProcessLookupError:
        return False


def _signal(child: psutil.Process, number: signal.Signals, groups: Sequence[int]) -> None:
    if child.pid in groups:
        _signal_group(child.pid, number)
    elif child.is_running():
        child.send_signal(number)


def _signal_group(group: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.killpg(group, number)


def free_port() -> int:
    """A port on 127.0.0.1 that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
