"""What a step costs: processor time and peak memory of a fresh process, and what they grow by for each further user.

Processor seconds, not the clock's: they are the same on a machine that does other work at the same time.
"""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass

MILLION = 1_000_000


@dataclass(frozen=True)
class Usage:
    """One process: seconds of one core, start and imports included, and the peak of its resident memory in MiB."""

    seconds: float
    mib: float


def of(code: str, *arguments: object) -> Usage:
    """Runs Python code in a process of its own; ends with its message where it fails."""
    child = subprocess.Popen([sys.executable, "-c", code, *map(str, arguments)])
    _, status, used = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise SystemExit(f"the measured process failed with status {child.returncode}")
    return Usage(used.ru_utime + used.ru_stime, used.ru_maxrss / 1024)


def growth(small: Usage, large: Usage, more: int) -> dict[str, float]:
    """Seconds and MiB for each further million, where `large` had `more` of them than `small`."""
    each = MILLION / more
    return {
        "seconds_per_million": (large.seconds - small.seconds) * each,
        "mib_per_million": (large.mib - small.mib) * each,
    }
