"""The reference pass as a task of KFP; the hash of what is frozen goes into the table's metadata."""

from __future__ import annotations

from pathlib import Path

from components.outputs import Artefact
from components.reference import step
from conf_profile.config import ReferenceConfig, parse_section


def run(
    features: Artefact,
    student: Artefact,
    reference: Artefact,
    support: Artefact,
    report: Artefact,
    config: str,
    dtype: str,
    seed: int,
) -> None:
    """`config` is the section `reference`, `dtype` the student's."""
    summary = step.run(
        features=Path(features.path),
        student=Path(student.path),
        reference=Path(reference.path),
        support=Path(support.path),
        report=Path(report.path),
        config=parse_section(ReferenceConfig, config),
        dtype=dtype,
        seed=int(seed),
    )
    reference.metadata["sha256"] = summary["sha256"]
    reference.metadata["users"] = summary["users"]
