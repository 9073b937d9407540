"""`conf-profile config`: what a run would do, as YAML that can be given back with --config."""

import click

from conf_profile.cli.options import config_options
from conf_profile.config import RunConfig


@click.command()
@config_options
def config(config: RunConfig) -> None:
    """Print the resolved configuration: preset, your file and --set, layered and checked."""
    click.echo(config.to_yaml(), nl=False)
