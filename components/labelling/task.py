"""The labelling step as a task of KFP: fetches the task; `candidates` are the collected shards."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

from components.labelling import step
from components.outputs import Artefact
from conf_profile.config import LabellingConfig, parse_section
from conf_profile.data import inputs


def run(
    candidates: Sequence[Artefact],
    features: Artefact,
    pseudo_labels: Artefact,
    calibration: Artefact,
    report: Artefact,
    task_file: str,
    config: str,
    samples: int,
) -> None:
    """`task_file` is an address, `config` the section `labelling`, `samples` the teacher's M."""
    with tempfile.TemporaryDirectory() as folder:
        step.run(
            candidates=[Path(shard.path) for shard in candidates],
            task_file=inputs.fetch_task(task_file, Path(folder)),
            features=Path(features.path),
            pseudo_labels=Path(pseudo_labels.path),
            calibration=Path(calibration.path),
            report=Path(report.path),
            config=parse_section(LabellingConfig, config),
            samples=int(samples),
        )
