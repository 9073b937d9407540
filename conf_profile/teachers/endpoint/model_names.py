"""Whether two names may be those of one model: endpoints add dates, versions and owners to the one asked for."""

from __future__ import annotations

import re

_LATEST = re.compile(r"[-:@](?:latest|preview)$")
_VERSION = re.compile(r"(?:[-_:@](?:v?\d+(?:\.\d+)*|latest|preview|exp|free))*")


def same_model(asked: str, answered: str) -> bool:
    """`gpt-4o` and `gpt-4o-2024-08-06` may be one, `gpt-4o` and `gpt-4o-mini` are not."""
    first, second = sorted((_bare(asked), _bare(answered)), key=len)
    return second.startswith(first) and bool(_VERSION.fullmatch(second[len(first) :]))


def _bare(name: str) -> str:
    return _LATEST.sub("", name.strip().lower().rstrip("/").rpartition("/")[2])
