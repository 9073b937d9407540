"""What a step costs: processor time and peak memory of a fresh process, and what they grow by for each further user.

Processor seconds, not the clock's: they are the same on a machine that does other work at the same time. The process
reads its own peak: the kernel's `ru_maxrss` of a child begins at what its parent held when it started the child.
"""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass

MILLION = 1_000_000
_PEAK = """
from pathlib import Path
print(next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")).split()[1])
"""


@dataclass(frozen=True)
class Usage:
    """One process: seconds of one core, start and imports included, and the peak of its resident memory in MiB."""

    seconds: float
    mib: float


def measure(code: str, *arguments: object) -> Usage:
    """Runs Python code in a process of its own; ends with its message where it fails."""
    command = [sys.executable, "-c", code + _PEAK, *map(str, arguments)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        printed = child.stdout.read()
        _, status, used = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise SystemExit(f"the measured process failed with status {child.returncode}")
    return Usage(used.ru_utime + used.ru_stime, int(printed.split()[-1]) / 1024)


def growth(small: Usage, large: Usage, more: int) -> dict[str, float]:
    """Seconds and MiB for each further million, where `large` had `more` of them than `small`."""
    each = MILLION / more
    return {
        "seconds_per_million": (large.seconds - small.seconds) * each,
        "mib_per_million": (large.mib - small.mib) * each,
    }
