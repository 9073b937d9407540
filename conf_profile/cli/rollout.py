"""`conf-profile rollout`: a version of the registry into service on a cluster."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

from conf_profile.cli.models import Storage, open_registry, storage_options
from conf_profile.cli.options import serving_options

if TYPE_CHECKING:
    from conf_profile.rollout.rollout import Serving


@click.command(short_help="Put a version into service on a cluster.")
@click.argument("version", required=False)
@serving_options(required=True)
@storage_options
def rollout(storage: Storage, serving: Serving, version: str | None, as_json: bool) -> None:
    """Put VERSION into service, by default the champion.

    Pins the InferenceService to it, waits for the new pods, and compares their answers to smoke profiles with those of
    the evaluation. On any failure InferenceService and champion pointer are put back, and the status is 2.
    """
    from conf_profile.rollout.rollout import roll_out

    with open_registry(storage) as registry:
        found = roll_out(registry, serving, version, lambda line: click.echo(line, err=True))
        uri = registry.uri(found.name)
    click.echo(json.dumps({"version": found.name, "uri": uri}) if as_json else f"{uri} is in service")
