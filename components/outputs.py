"""What the tasks of KFP write besides their tables and models: scalars and the metadata of an artefact."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol


class Artefact(Protocol):
    """An artefact as KFP hands it to a task: a path on the task's own disk, and scalars about it."""

    path: str
    metadata: dict[str, Any]


class Metrics(Artefact, Protocol):
    """KFP's artefact for scalars."""

    def log_metric(self, metric: str, value: float) -> None:
        """Adds a scalar to what KFP's page shows."""


def log_metrics(metrics: Metrics, values: Mapping[str, float]) -> None:
    """Puts scalars on KFP's page, and into the artefact's file: kfp.local caches a task only if it has one."""
    for name, value in values.items():
        metrics.log_metric(name, value)
    Path(metrics.path).write_text(json.dumps(values), encoding="utf-8")
