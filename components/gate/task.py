"""The gate as a task of KFP; the decision goes into the artefact's metadata."""

from __future__ import annotations

from pathlib import Path

from components.gate import step
from components.outputs import Artefact
from conf_profile.config import GateConfig, parse_section


def run(evaluation: Artefact, gate_decision: Artefact, config: str) -> None:
    """`config` is the section `gate`."""
    result = step.run(Path(evaluation.path), Path(gate_decision.path), parse_section(GateConfig, config))
    gate_decision.metadata["decision"] = result["decision"]
