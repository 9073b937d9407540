"""The promotion as a task of KFP: reads the run's configuration, hashes the reference, notes where the model lies."""

from __future__ import annotations

from pathlib import Path

from components.outputs import Artefact
from components.promotion import step
from conf_profile.config import StorageConfig, parse_section
from conf_profile.storage import configuration_file


def run(
    model: Artefact,
    evaluation: Artefact,
    gate: Artefact,
    reference: Artefact,
    outcome: Artefact,
    config: str,
    configuration: str,
    expected_champion: str,
) -> None:
    """`config` is the section `storage`, `configuration` the place of the whole configuration."""
    result = step.run(
        Path(model.path),
        Path(evaluation.path),
        Path(gate.path),
        step.file_hash(Path(reference.path)),
        Path(outcome.path),
        parse_section(StorageConfig, config),
        configuration_file.read(configuration).model_dump_json(),
        expected_champion,
    )
    outcome.metadata["promoted"] = result["promoted"]
    outcome.metadata["uri"] = result.get("uri", "")
