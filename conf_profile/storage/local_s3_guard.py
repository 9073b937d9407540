"""Runs one command and kills it as soon as standard input ends, that is, as soon as its parent is gone.

Started as a script by `local_s3`, never imported: `python -I -S local_s3_guard.py LOCK_FD COMMAND...`. It
prints the command's process id and passes the lock's descriptor on, so that the lock lives exactly as long
as the command does. The command's output goes to standard error.
"""

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import threading

_PR_SET_PDEATHSIG = 1


def main(lock: int, command: list[str]) -> int:
    """Waits for the command; returns its exit status."""
    die_with_guard = _die_with_guard if sys.platform == "linux" else None
    child = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=sys.stderr, pass_fds=(lock,), preexec_fn=die_with_guard
    )
    signal.signal(signal.SIGTERM, lambda *_: child.kill())
    threading.Thread(target=_kill_at_end_of_input, args=(child,), daemon=True).start()
    # A parent that died already must not keep the guard from waiting for its child.
    with contextlib.suppress(BrokenPipeError):
        print(child.pid, flush=True)
    return child.wait()


def _kill_at_end_of_input(child: "subprocess.Popen[bytes]") -> None:
    # A plain read: sys.stdin's buffer lock would stand in the way of the interpreter's exit.
    while os.read(0, 1024):
        pass
    child.kill()


def _die_with_guard() -> None:
    """For a guard that is killed itself; no thread runs yet, so this is safe after fork."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), sys.argv[2:]))
