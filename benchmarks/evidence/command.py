"""`conf-profile experiment`: many variants of the method on the same people and the same teacher's answers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from conf_profile.cli.options import config_options

if TYPE_CHECKING:
    from conf_profile.config import RunConfig

NAMES = (
    "table1",
    "table2",
    "table3",
    "table5",
    "figure3",
    "figure5",
    "regimes",
    "second_stage",
    "second_stage_regimes",
    "teachers",
    "transfer",
)


@click.command(short_help="Compare variants of the method over seeds.")
@click.argument("names", nargs=-1, required=True, type=click.Choice((*NAMES, "all")))
@config_options
@click.option("--out", type=click.Path(path_type=Path), help="Default: runs/evidence/DATASET-PRESET.")
@click.option("--seeds", type=click.IntRange(1), default=5, show_default=True, help="How many seeds.")
@click.option("--first-seed", type=click.IntRange(0), default=0, show_default=True, help="The others follow it.")
@click.option("--jobs", type=click.IntRange(1), default=1, show_default=True, help="Seeds that run at once.")
def experiment(
    config: RunConfig, names: tuple[str, ...], out: Path | None, seeds: int, first_seed: int, jobs: int
) -> None:
    """Compare arms over seeds: NAMES are tables and figures of the paper, or questions of ours; all: every one.

    What is done is not done again, so an interrupted experiment continues. Results are written to OUT/NAME.parquet
    and OUT/NAME.json after every seed; `python -m benchmarks.evidence.page.page` makes docs/evidence.md from them.
    """
    from rich.console import Console

    from benchmarks.evidence import run
    from conf_profile.processes.interruption import end_processes

    folder = (out or Path("runs") / "evidence" / f"{config.data.name}-{config.preset}").resolve()
    folder.mkdir(parents=True, exist_ok=True)
    chosen = NAMES if "all" in names else names
    with end_processes():
        for name in chosen:
            summary = run.run(name, config, range(first_seed, first_seed + seeds), folder, jobs)
            Console().print(_table(summary))
            click.echo(f"results: {folder / name}.json")


def _table(summary: dict[str, Any]) -> Any:
    from rich.table import Table

    table = Table(title=f"{summary['name']} on {summary['dataset']}, {len(summary['seeds'])} seed(s), points")
    for column in ("arm", "precision", "recall", "F1"):
        table.add_column(column, justify="left" if column == "arm" else "right")
    for arm, rates in summary["arms"].items():
        table.add_row(arm, *(_points(rates[metric]) for metric in ("precision", "recall", "f1")))
    if summary["comparisons"]:
        table.add_section()
    for found in summary["comparisons"]:
        difference = _points([found["difference"], found["low"], found["high"]], sign="+")
        shown = ["", "", ""]
        shown[("precision", "recall", "f1").index(found["metric"])] = difference
        table.add_row(f"{found['better']} - {found['worse']}", *shown)
    return table


def _points(interval: list[float | None], sign: str = "") -> str:
    mean, low, high = (None if value is None else f"{100 * value:{sign}.1f}" for value in interval)
    return f"{mean} ({low} to {high})" if low is not None else str(mean)
