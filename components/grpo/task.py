"""GRPO as a task of KFP: processes, checkpoints, and scalars for KFP's page."""

from __future__ import annotations

from pathlib import Path

from components.grpo import step
from components.outputs import Artefact, Metrics, log_metrics
from conf_profile.config import GRPOConfig, StudentConfig, parse_section
from conf_profile.students import checkpoint_folders as checkpoints
from conf_profile.students import processes


def run(
    features: Artefact,
    reference: Artefact,
    support: Artefact,
    filtered: Artefact,
    sft_student: Artefact,
    student: Artefact,
    log: Artefact,
    metrics: Metrics,
    config: str,
    student_config: str,
    workspace: str,
    seed: int,
) -> None:
    """`config` is the section `grpo`; the checkpoints lie below `workspace`."""
    trained_on = [Path(artefact.path) for artefact in (sft_student, reference, support, filtered)]
    settings = [config, student_config, str(int(seed))]
    with checkpoints.open_checkpoints(workspace, __name__, trained_on, settings) as kept:
        counts = processes.call(
            step.run,
            processes.read_process_count(),
            features=Path(features.path),
            reference=Path(reference.path),
            support=Path(support.path),
            filtered=Path(filtered.path),
            sft_student=Path(sft_student.path),
            student=Path(student.path),
            log=Path(log.path),
            config=parse_section(GRPOConfig, config),
            student_config=parse_section(StudentConfig, student_config),
            checkpoints=kept,
            seed=int(seed),
        )
    log_metrics(metrics, counts)
