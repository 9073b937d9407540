"""How long `conf-profile --help` and a second `conf-profile run` with nothing changed take.

    python -m benchmarks.command_line [--run FOLDER]

FOLDER is a finished run of the default configuration (default: runs/world-tiny). Prints JSON.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path


def seconds(command: list[str]) -> float:
    """Wall time of one process."""
    start = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    return time.perf_counter() - start


def main() -> None:
    """Five calls of --help (median), one second run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", type=Path, default=Path("runs/world-tiny"))
    folder = parser.parse_args().run
    base = [sys.executable, "-m", "conf_profile"]
    result = {"help_seconds": round(statistics.median(seconds([*base, "--help"]) for _ in range(5)), 3)}
    if (folder / "summary.json").is_file():
        result["second_run_seconds"] = round(seconds([*base, "run", f"--out={folder}"]), 1)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
