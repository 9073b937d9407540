"""Runs one command, and ends it with all that it has started as soon as the process that wanted it is gone.

Started as a script by `process_family.start_guarded`, never imported, on the standard library alone:

    python -I -S process_guard.py PID_FD ON_SIGTERM COMMAND...

Standard input is a pipe whose other end that process holds; it ends with the process, however that one ends. The
number of the command's process goes to PID_FD. Descriptors that are inherited here are inherited by the command.
The guard leads a process group of its own. When the command ends, what is left of its family is killed, and the guard
ends as the command did. A SIGTERM for the guard alone is left to the command, which gets its own (ON_SIGTERM `leave`),
or ends all (`kill`).

Linux tells the family of a guard that is killed itself: the command dies with it, and the guard adopts the orphans of
its family, those too that lead sessions of their own. Elsewhere whoever holds the pipe has to look at the guard.
"""

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

LINUX = sys.platform == "linux"
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_POLL_SECONDS = 0.01
_CANNOT_START = 127
_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def main(pid_descriptor: int, kill_on_sigterm: bool, command: list[str]) -> int:
    """Waits for the command; returns its exit status, negative for the signal that ended it."""
    os.set_inheritable(pid_descriptor, False)
    control = _linux_control()
    if control is not None:
        control(_PR_SET_CHILD_SUBREAPER, 1)
    try:
        child = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            close_fds=False,
            # No thread runs yet, so this is safe after the fork.
            preexec_fn=None if control is None else lambda: control(_PR_SET_PDEATHSIG, signal.SIGKILL),
        )
    except OSError as error:
        print(f"{command[0]}: cannot be started: {error}", file=sys.stderr)
        return _CANNOT_START
    for number in _SIGNALS:
        signal.signal(number, lambda *_: None)
    if kill_on_sigterm:
        signal.signal(signal.SIGTERM, lambda *_: _kill_family())
    threading.Thread(target=_kill_at_end_of_input, daemon=True).start()
    # Whoever wanted it may be gone already.
    with contextlib.suppress(BrokenPipeError), os.fdopen(pid_descriptor, "w") as told:
        print(child.pid, file=told, flush=True)
    status = _wait_for(child)
    _kill_family()
    return status


def _linux_control() -> Callable[[int, int], object] | None:
    if not LINUX:
        return None
    control: Callable[[int, int], object] = ctypes.CDLL(None).prctl
    return control


def _wait_for(child: "subprocess.Popen[bytes]") -> int:
    """Takes the status of adopted orphans on the way."""
    while True:
        pid, status = os.wait()
        if pid == child.pid:
            child.returncode = os.waitstatus_to_exitcode(status)
            return child.returncode


def _kill_at_end_of_input() -> None:
    # A plain read: sys.stdin's buffer lock would stand in the way of the interpreter's exit.
    while os.read(0, 1024):
        pass
    _kill_family()


def _kill_family() -> None:
    """Until nobody is left: a member may start another one while it is looked for."""
    while members := _family():
        for pid in members:
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(_POLL_SECONDS)


def _family() -> set[int]:
    """The descendants of this process and the members of its group, without itself, as far as they live."""
    own, rows = os.getpid(), list(_processes())
    group = {pid for pid, _, leader in rows if leader == own}
    family = {own, *group}
    while more := {pid for pid, parent, _ in rows if parent in family} - family:
        family |= more
    return family - {own}


def _processes() -> Iterator[tuple[int, int, int]]:
    """Number, parent and group of every process of this machine that lives."""
    return _processes_of_linux() if LINUX else _processes_by_ps()


def _processes_of_linux() -> Iterator[tuple[int, int, int]]:
    for folder in Path("/proc").glob("[1-9]*"):
        with contextlib.suppress(OSError):
            # The name of the program stands in brackets, and may hold any character.
            state, parent, group, *_ = (folder / "stat").read_bytes().rpartition(b")")[2].split()
            if state not in (b"Z", b"X"):
                yield int(folder.name), int(parent), int(group)


def _processes_by_ps() -> Iterator[tuple[int, int, int]]:
    with subprocess.Popen(["ps", "-A", "-o", "pid=,ppid=,pgid=,state="], stdout=subprocess.PIPE, text=True) as listing:
        assert listing.stdout is not None
        for line in listing.stdout:
            pid, parent, group, state, *_ = line.split()
            if int(pid) != listing.pid and not state.startswith("Z"):
                yield int(pid), int(parent), int(group)


def _end_like(status: int) -> None:
    """Ends with this status, or by this signal."""
    if status < 0:
        if -status not in (signal.SIGKILL, signal.SIGSTOP):
            signal.signal(-status, signal.SIG_DFL)
        os.kill(os.getpid(), -status)
    # The thread that reads standard input would keep an orderly exit waiting.
    os._exit(status)


if __name__ == "__main__":
    _end_like(main(int(sys.argv[1]), sys.argv[2] == "kill", sys.argv[3:]))
