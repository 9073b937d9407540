"""`conf-profile check`: what a run would read and cost, and what would stop it, before anything is paid."""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import click

from conf_profile.cli.options import config_options, default_folder

if TYPE_CHECKING:
    from conf_profile.config import RunConfig
    from conf_profile.teachers.cost import Price
    from pipelines.check import Inspection

ERROR_STATUS = 2


@click.command(short_help="Check data, configuration and cost of a run, and start nothing.")
@config_options
@click.option("--out", type=click.Path(path_type=Path), help="The run's folder; default: runs/DATASET-PRESET.")
@click.option("--price", type=click.FloatRange(0), help="Of a million tokens of the teacher's; default: teacher.price.")
@click.option("--answer-price", type=click.FloatRange(0), help="Of a million tokens of answers; default: --price.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
def check(config: RunConfig, out: Path | None, price: float | None, answer_price: float | None, as_json: bool) -> None:
    """Read what a run would read, and say whom, on what, with which prompt and at what cost it would work.

    Nothing is written or asked. Every `run` begins with the same check. The exit status is 2 where an error was found.
    """
    from conf_profile.teachers.cost import Price, price_of
    from pipelines.check import page

    if answer_price is not None and price is None:
        raise click.UsageError("--answer-price goes with --price")
    prices = price_of(config.teacher)
    if price is not None:
        prices = Price(price, price if answer_price is None else answer_price)
    found = _inspect(config, (out or default_folder(config)).resolve(), prices)
    if as_json:
        click.echo(json.dumps(page.to_json(found), indent=2, ensure_ascii=False))
    else:
        for line in page.lines(found):
            click.echo(line)
    if any(each.level == "error" for each in found.findings):
        sys.exit(ERROR_STATUS)


def _inspect(config: RunConfig, folder: Path, price: Price | None) -> Inspection:
    from components.steps import steps_of
    from conf_profile.data.build import build
    from conf_profile.errors import ConfProfileError
    from pipelines.check import Inspection, champion, inspect, place_findings
    from pipelines.preflight.finding import Finding

    places = place_findings(config, folder)
    steps = [step.name for step in steps_of(config)]
    try:
        with tempfile.TemporaryDirectory() as temporary, champion.open_registry(config.storage, folder) as registry:
            data = build(config, Path(temporary) / config.data.name)
            found = inspect(config, data, folder, registry, steps, not champion.uses_endpoint(config.storage), price)
    except ConfProfileError as error:
        return Inspection((*places, Finding("error", str(error), "")))
    return Inspection((*places, *found.findings), found.facts, found.prompt)
