"""`conf-profile config`: what a run would do, as YAML that can be given back with --config."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from conf_profile.cli.options import config_options

if TYPE_CHECKING:
    from conf_profile.config import RunConfig


@click.command(short_help="Print the configuration as it is resolved.")
@config_options
def config(config: RunConfig) -> None:
    """Print the resolved configuration: preset, your file and --set, layered and checked."""
    click.echo(config.to_yaml(), nl=False)
