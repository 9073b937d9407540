"""Child processes of the local server: guarded, waited for by asking, ended with all theirs."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from conf_profile.errors import ServingError
from conf_profile.processes import process_family
from conf_profile.processes.process_family import GuardedProcess, ProcessFamily

GRACE_SECONDS = 10.0
POLL_SECONDS = 0.2


@dataclass(frozen=True)
class Child:
    """One running process, its log, and what it is called in messages."""

    name: str
    guarded: GuardedProcess
    family: ProcessFamily
    log: Path

    @property
    def process(self) -> subprocess.Popen[bytes]:
        """Ends as the command does."""
        return self.guarded.process

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
        if self.process.poll() is None:
            os.kill(self.guarded.pid, signal.SIGHUP)

    def stop(self) -> None:
        """SIGTERM for it and all that it started, SIGKILL for what is left of them."""
        process_family.end([self.family], GRACE_SECONDS)
        self.process.wait()


def start(name: str, command: Sequence[str], environment: Mapping[str, str], log: Path) -> Child:
    """Starts a process that writes to `log`; the variables go over ours."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as out:
        guarded = process_family.start_guarded(
            command, stdout=out, stderr=subprocess.STDOUT, env={**os.environ, **environment}
        )
    return Child(name, guarded, ProcessFamily(guarded.process.pid), log)


def free_port() -> int:
    """A port on 127.0.0.1 that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
