"""What this machine gives to this process."""

from __future__ import annotations

import os


def usable_cores() -> int:
    """Cores that this process may use; all of them on a system that cannot bind processes to some (macOS)."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1
