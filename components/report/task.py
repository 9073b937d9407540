"""The report as a task of KFP: reads the run's configuration, and hands every step's report to the page."""

from __future__ import annotations

from pathlib import Path

from components.outputs import Artefact
from components.report import step
from conf_profile.data import run_folder
from conf_profile.storage import configuration_file


def run(
    evaluation: Artefact,
    gate_decision: Artefact,
    labelling_report: Artefact,
    features_report: Artefact,
    sft_log: Artefact,
    grpo_log: Artefact,
    filtering_report: Artefact,
    reference_report: Artefact,
    outcome: Artefact,
    page: Artefact,
    configuration: str,
) -> None:
    """`configuration` is the place of the run's whole configuration."""
    folder = run_folder.find_run(configuration)
    step.run(
        evaluation=Path(evaluation.path),
        gate=Path(gate_decision.path),
        labelling_report=Path(labelling_report.path),
        features_report=Path(features_report.path),
        sft_log=Path(sft_log.path),
        grpo_log=Path(grpo_log.path),
        filtering_report=Path(filtering_report.path),
        reference_report=Path(reference_report.path),
        outcome=Path(outcome.path),
        report=Path(page.path),
        config_yaml=configuration_file.read(configuration).to_yaml(),
        run_folder=folder,
        warnings=run_folder.read_warnings(folder) if folder else (),
    )
