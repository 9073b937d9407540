"""The difficulty filter as a task of KFP."""

from __future__ import annotations

from pathlib import Path

from components.filtering import step
from components.outputs import Artefact
from conf_profile.config import FilteringConfig, parse_section


def run(reference: Artefact, filtered: Artefact, report: Artefact, config: str, seed: int) -> None:
    """`config` is the section `filtering`."""
    step.run(
        reference=Path(reference.path),
        filtered=Path(filtered.path),
        report=Path(report.path),
        config=parse_section(FilteringConfig, config),
        seed=int(seed),
    )
