"""`conf-profile report`: a finished run's summary, once more."""

import json
from pathlib import Path

import click

from conf_profile.errors import DataError


@click.command(short_help="Show a finished run's summary again.")
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print summary.json, for programs.")
def report(folder: Path, as_json: bool) -> None:
    """Print the summary table of the run in FOLDER and where its report is."""
    path = folder / "summary.json"
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise DataError(f"{path}: no finished run here ({error.strerror}); `conf-profile run` makes one") from error
    if as_json:
        click.echo(text)
        return
    from rich.console import Console

    from conf_profile.evaluation import summary

    Console().print(summary.render(json.loads(text)))
    click.echo(f"report: {folder / 'report.html'}")
