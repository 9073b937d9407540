"""One self-contained HTML page about a run: for the data scientist, and for whoever asks whether it worked.

Everything is inline: no script, no font, no picture from elsewhere. It computes no metric; evaluation did.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from components.report import sections
from components.report.inputs import Inputs, read_log, read_object
from conf_profile.errors import DataError
from conf_profile.files import write_text


def run(
    evaluation: Path,
    gate: Path,
    labelling_report: Path | None,
    features_report: Path | None,
    sft_log: Path | None,
    grpo_log: Path | None,
    filtering_report: Path | None,
    reference_report: Path | None,
    outcome: Path,
    report: Path,
    config_yaml: str,
    run_folder: Path | None = None,
    warnings: Sequence[str] = (),
) -> None:
    """Writes report.html; DataError names the input that cannot be read or what it lacks.

    `outcome` is promotion's {"promoted", "version", "uri"}. An optional input may be None: its part of the page then
    says that nothing was recorded. `run_folder` is the run's on this machine, None on a cluster;
    `warnings` are those of the check before the run.
    """
    config = _parse_config(config_yaml)
    inputs = Inputs(
        evaluation=read_object(evaluation),
        gate=read_object(gate),
        outcome=read_object(outcome),
        config_yaml=config_yaml,
        labelling=read_object(labelling_report),
        features=read_object(features_report),
        filtering=read_object(filtering_report),
        reference=read_object(reference_report),
        sft_log=read_log(sft_log),
        grpo_log=read_log(grpo_log),
        run_facts=_run_facts(config),
        serve_options=_serve_options(config, run_folder),
        warnings=warnings,
    )
    write_text(report, page(inputs))


def page(inputs: Inputs) -> str:
    """The whole page as text."""
    try:
        values = sections.values(inputs)
    except KeyError as error:
        raise DataError(f"the report cannot be written: {error} is missing from a step's output") from error
    templates = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return templates.get_template("page.html").render(values)


def _parse_config(config_yaml: str) -> Mapping[str, Any]:
    try:
        parsed: Mapping[str, Any] = yaml.safe_load(config_yaml) or {}
    except yaml.YAMLError as error:
        raise DataError(f"the configuration for the report is not valid YAML: {error}") from error
    return parsed


def _run_facts(config: Mapping[str, Any]) -> dict[str, str]:
    data = config.get("data") or {}
    given = {"data set": data.get("name"), "preset": config.get("preset"), "seed": config.get("seed")}
    return {name: str(value) for name, value in given.items() if value is not None}


def _serve_options(config: Mapping[str, Any], run_folder: Path | None) -> list[str]:
    """Where the model's store and its people's features are, as `conf-profile serve` is told."""
    endpoint = (config.get("storage") or {}).get("endpoint")
    return [*(["--endpoint", str(endpoint)] if endpoint else []), *(["--run", str(run_folder)] if run_folder else [])]
