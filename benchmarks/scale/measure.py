"""Measures the figures behind docs/scale.md that are cheap enough for a laptop.

    python -m benchmarks.scale.measure [NAME ...] [--run FOLDER] [--write]

NAME is one of those listed by --help; without any, all but `backfill`, which needs a finished run (--run), and
`balances`, which hashes 10^8 ids. Prints JSON; --write also puts the values into inputs.yaml.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable
from pathlib import Path

from benchmarks.scale import answers, inputs, sharding, steps, stores
from benchmarks.teacher_vllm import machine

Measure = Callable[[Path], dict[str, float]]
MEASURES: dict[str, Measure] = {
    "promotion": stores.promotion,
    "online": stores.online,
    "sharding": sharding.rates,
    "features": steps.features,
    "synthesis": steps.synthesis,
    "students": steps.students,
    "evaluation": steps.evaluation,
}
BACKFILL, BALANCES = "backfill", "balances"


def main() -> None:
    """Measures what is named, one after the other."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join([*MEASURES, BACKFILL, BALANCES]))
    parser.add_argument("--run", type=Path, default=Path("runs/world-tiny"), help="a finished run, for backfill")
    parser.add_argument("--write", action="store_true", help="into inputs.yaml")
    arguments = parser.parse_args()
    unknown = set(arguments.names) - {*MEASURES, BACKFILL, BALANCES}
    if unknown:
        parser.error(f"unknown: {', '.join(sorted(unknown))}")
    names = arguments.names or list(MEASURES)
    values: dict[str, float] = {}
    for name in names:
        if name != BALANCES:
            values |= _run_measure(answers.backfill_of(arguments.run) if name == BACKFILL else MEASURES[name])
    balances = sharding.simulate() if BALANCES in names else []
    print(json.dumps({"machine": machine(), "values": values, "balances": balances}, indent=2))
    if arguments.write:
        inputs.update(values, balances, machine())


def _run_measure(measure: Measure) -> dict[str, float]:
    with tempfile.TemporaryDirectory(prefix="scale-") as folder:
        return measure(Path(folder))


if __name__ == "__main__":
    main()
