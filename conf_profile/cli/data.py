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
    """Generate (world) or fetch (movielens-100k) a data set, or check and copy your own (parquet); say what is in it.

    In the copy the tables have the exact types that Feast reads; your own folder is not changed.
    """
    from conf_profile.data.build import build

    found = build(config, out)
    if config.data.name == "parquet":
        from conf_profile.data.exact import copy_dataset

        found = copy_dataset(found, out)
    click.echo(f"{found.name}: {found.users} users as of {found.as_of}")
    for name, path in found.paths.items():
        click.echo(f"  {name}: {path}")
