"""Rejection sampling as a task of KFP: processes, checkpoints, and scalars for KFP's page."""

from __future__ import annotations

from pathlib import Path

from components.outputs import Artefact, Metrics, log_metrics
from components.rejection import step
from conf_profile.config import ReferenceConfig, RejectionConfig, StudentConfig, parse_section
from conf_profile.students import checkpoint_folders as checkpoints
from conf_profile.students import processes


def run(
    features: Artefact,
    sft_student: Artefact,
    student: Artefact,
    log: Artefact,
    metrics: Metrics,
    config: str,
    sampling: str,
    student_config: str,
    workspace: str,
    seed: int,
) -> None:
    """`config` is the section `rejection`, `sampling` the section `reference`; checkpoints lie below `workspace`."""
    settings = parse_section(RejectionConfig, config)
    trained_on = [Path(features.path), Path(sft_student.path)]
    keyed_by = [config, sampling, student_config, str(int(seed))]
    with checkpoints.open_checkpoints(workspace, __name__, trained_on, keyed_by) as kept:
        counts = processes.call(
            step.run,
            processes.read_process_count() if settings.rounds else 1,
            features=Path(features.path),
            sft_student=Path(sft_student.path),
            student=Path(student.path),
            log=Path(log.path),
            config=settings,
            sampling=parse_section(ReferenceConfig, sampling),
            student_config=parse_section(StudentConfig, student_config),
            checkpoints=kept,
            seed=int(seed),
        )
    log_metrics(metrics, counts)
