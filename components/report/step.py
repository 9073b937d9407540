"""One self-contained HTML page about a run: for the data scientist, and for whoever asks whether it worked.

Everything is inline: no script, no font, no picture from elsewhere. It computes no metric; evaluation did.
"""

from __future__ import annotations

from pathlib import Path
from string import Template

import yaml

from components.report import sections
from components.report.inputs import Inputs, read_log, read_object
from components.report.markup import Html, join
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
) -> None:
    """Writes report.html; DataError names the input that cannot be read or what it lacks.

    `outcome` is promotion's {"promoted", "version", "uri"} (and "command", where it knows a better one to
    serve it with). An optional input may be None: its part of the page then says that nothing was recorded.
    """
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
    )
    write_text(report, page(inputs))


def page(inputs: Inputs) -> str:
    """The whole page as text."""
    try:
        body = _body(inputs)
    except KeyError as error:
        raise DataError(f"the report cannot be written: {error} is missing from a step's output") from error
    template = Template((Path(__file__).parent / "page.html").read_text(encoding="utf-8"))
    return template.substitute(title="Conf-Profile report", body=body)


def _body(inputs: Inputs) -> Html:
    return join(
        sections.header(inputs, _run_facts(inputs.config_yaml)),
        sections.results(inputs),
        sections.gate(inputs),
        sections.confidence(inputs),
        sections.training(inputs),
        sections.slices(inputs),
        sections.confusion(inputs),
        sections.data(inputs),
        sections.model(inputs),
        sections.configuration(inputs),
    )


def _run_facts(config_yaml: str) -> dict[str, str]:
    try:
        config = yaml.safe_load(config_yaml) or {}
    except yaml.YAMLError as error:
        raise DataError(f"the configuration for the report is not valid YAML: {error}") from error
    data = config.get("data") or {}
    given = {"data set": data.get("name"), "preset": config.get("preset"), "seed": config.get("seed")}
    return {name: str(value) for name, value in given.items() if value is not None}
