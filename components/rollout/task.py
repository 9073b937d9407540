"""The rollout as a task of KFP; what is served goes into the artefact's metadata."""

from __future__ import annotations

from pathlib import Path

from components.outputs import Artefact
from components.rollout import step
from conf_profile.config import RolloutConfig, StorageConfig, parse_section


def run(outcome: Artefact, served: Artefact, config: str, storage: str) -> None:
    """`config` is the section `rollout`, `storage` the section of that name."""
    result = step.run(
        Path(outcome.path),
        Path(served.path),
        parse_section(RolloutConfig, config),
        parse_section(StorageConfig, storage),
    )
    served.metadata["uri"] = result.get("uri", "")
