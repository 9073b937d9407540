"""Child processes of the local server: started in a session of their own, waited for by asking, ended with all theirs.

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
from dataclasses import dataclass
from pathlib import Path

from conf_profile import process_family
from conf_profile.errors import ServingError
from conf_profile.process_family import ProcessFamily

GRACE_SECONDS = 10.0
POLL_SECONDS = 0.2


@dataclass(frozen=True)
class Child:
    """One running process, its log, and what it is called in messages."""

    name: str
    process: subprocess.Popen[bytes]
    family: ProcessFamily
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
        """SIGTERM for it and all that it started, SIGKILL for what is left of them."""
        process_family.end([self.family], GRACE_SECONDS)
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
    return Child(name, process, ProcessFamily(process.pid), log)


def end_all() -> None:
    """Ends every process that this one has started, known to anybody or not."""
    import psutil

    process_family.end([ProcessFamily(child.pid) for child in psutil.Process().children()], GRACE_SECONDS)


def free_port() -> int:
    """A port on 127.0.0.1 that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
