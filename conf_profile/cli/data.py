"""`conf-profile data`: a data set's folder without a run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from conf_profile.cli.options import config_options

if TYPE_CHECKING:
    from conf_profile.config import RunConfig


@click.command(short_help="Generate, fetch or check a data set.")
@config_options
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder to write to.")
def data(config: RunConfig, out: Path) -> None:
    """Generate (world), fetch (movielens-100k) or check (parquet) a data set, and say what is in it."""
    from conf_profile.data.build import build

    found = build(config, out)
    click.echo(f"{found.name}: {found.users} users as of {found.as_of}")
    for name, path in found.paths.items():
        click.echo(f"  {name}: {path}")
