"""How a container ends: one line that says why, where people and Kubernetes look for it. The standard library alone."""

from __future__ import annotations

import os
import sys
from pathlib import Path

TERMINATION_LOG = Path("/dev/termination-log")
"""Kubernetes shows what is in it as the reason (`kubectl describe pod`)."""
MAX_BYTES = 4096
"""Kubernetes reads no more."""


def report_error(program: str, error: Exception, log: Path = TERMINATION_LOG) -> None:
    """The error as one line on standard error, and in the termination log where there is one."""
    line = f"{program}: {' '.join(str(error).split())}"
    print(line, file=sys.stderr, flush=True)
    if log.is_file() and os.access(log, os.W_OK):
        log.write_bytes(line.encode()[:MAX_BYTES])
