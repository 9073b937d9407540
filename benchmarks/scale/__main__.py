"""The tables of docs/scale.md.

    python -m benchmarks.scale                            # prints them
    python -m benchmarks.scale --write docs/scale.md      # makes those of the page anew
    python -m benchmarks.scale --check docs/scale.md      # status 1 if they are not current
    python -m benchmarks.scale --inputs mine.yaml --pod-gib 256 --engines 16     # your figures, your limits

Nothing is measured here: `python -m benchmarks.scale.measure` does that.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from benchmarks.scale import inputs, page
from benchmarks.scale.model import Limits
from conf_profile.config import resolve
from conf_profile.errors import ConfProfileError
from conf_profile.files import write_text


def main() -> None:
    """Prints, writes or checks."""
    given = parser().parse_args()
    try:
        sys.exit(_run(given))
    except ConfProfileError as error:
        sys.exit(f"benchmarks.scale: {error}")


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--write", type=Path, metavar="PAGE")
    made.add_argument("--check", type=Path, metavar="PAGE")
    made.add_argument("--inputs", type=Path, default=inputs.FILE, help="figures; default: those measured here")
    made.add_argument("--preset", default="tiny", help="whose shares, samples and caps count")
    made.add_argument("--pod-gib", type=float, default=Limits.pod_gib, help="memory of the largest pod")
    made.add_argument("--hours", type=float, default=Limits.hours, help="what a stage may take")
    made.add_argument("--engines", type=int, default=Limits.engines, help="teacher engines at once")
    made.add_argument("--redis-gib", type=float, default=Limits.redis_gib, help="memory of one Redis node")
    return made


def _run(given: argparse.Namespace) -> int:
    figures, config = inputs.read(given.inputs), resolve(given.preset)
    limits = Limits(given.pod_gib, given.hours, given.engines, given.redis_gib)
    if given.write is None and given.check is None:
        print("\n\n".join(page.tables(figures, config, limits).values()))
        return 0
    place = given.write or given.check
    before = place.read_text(encoding="utf-8")
    after = page.fill(before, figures, config, limits)
    if given.write:
        write_text(place, after)
        return 0
    if before != after:
        print(f"{place}: not current; run: python -m benchmarks.scale --write {place}", file=sys.stderr)
    return int(before != after)


if __name__ == "__main__":
    main()
