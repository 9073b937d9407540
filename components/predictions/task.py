"""The predictions as a task of KFP."""

from __future__ import annotations

from pathlib import Path

from components.outputs import Artefact
from components.predictions import step
from conf_profile.config import EvaluationConfig, StudentConfig, parse_section


def run(
    features: Artefact,
    student: Artefact,
    predictions: Artefact,
    untrained: bool,
    config: str,
    student_config: str,
    seed: int,
) -> None:
    """`config` is the section `evaluation`, whose batch size counts here."""
    step.run(
        features=Path(features.path),
        student=Path(student.path),
        predictions=Path(predictions.path),
        untrained=bool(untrained),
        config=parse_section(StudentConfig, student_config),
        batch_size=parse_section(EvaluationConfig, config).batch_size,
        seed=int(seed),
    )
