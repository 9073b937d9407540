"""The SFT step as a task of KFP: the task, processes, checkpoints, and scalars for KFP's page."""

from __future__ import annotations

import tempfile
from pathlib import Path

from components.outputs import Artefact, Metrics, log_metrics
from components.sft import step
from conf_profile.config import PromptConfig, SFTConfig, StudentConfig, parse_section
from conf_profile.data import inputs
from conf_profile.students import checkpoint_folders as checkpoints
from conf_profile.students import processes


def run(
    features: Artefact,
    pseudo_labels: Artefact,
    student: Artefact,
    log: Artefact,
    metrics: Metrics,
    task_file: str,
    config: str,
    student_config: str,
    prompt: str,
    workspace: str,
    seed: int,
) -> None:
    """`task_file` is an address; the checkpoints lie below `workspace`."""
    trained_on = [Path(features.path), Path(pseudo_labels.path)]
    settings = [config, student_config, prompt, str(int(seed))]
    with (
        tempfile.TemporaryDirectory() as folder,
        checkpoints.open_checkpoints(workspace, __name__, trained_on, settings) as kept,
    ):
        counts = processes.call(
            step.run,
            processes.read_process_count(),
            features=Path(features.path),
            pseudo_labels=Path(pseudo_labels.path),
            task_file=inputs.fetch_task(task_file, Path(folder)),
            student=Path(student.path),
            log=Path(log.path),
            config=parse_section(SFTConfig, config),
            student_config=parse_section(StudentConfig, student_config),
            prompt=parse_section(PromptConfig, prompt),
            checkpoints=kept,
            seed=int(seed),
        )
    log_metrics(metrics, counts)
