"""The default run over several seeds: is the student above its teacher, and does GRPO help?

    python -m benchmarks.seeds [--seeds 5] [--first-seed 0] [--out runs/seeds] [--set KEY=VALUE ...]

Each seed draws new people, new teacher answers and new weights. All arms of a seed are measured on the same
test users, so differences are paired; the interval over seeds is Student's t on the per-seed differences.
Finished seeds are not run again. Writes OUT/seeds.json and prints Markdown.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

ARMS = ("base", "majority_tag", "teacher_single", "teacher_majority", "teacher_weighted", "sft", "sft_grpo", "ceiling")
PAIRS = (("sft", "teacher_single"), ("sft", "base"), ("sft_grpo", "sft"), ("teacher_weighted", "teacher_majority"))
T_975 = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 6: 2.447, 7: 2.365, 8: 2.306, 9: 2.262}
"""97.5% quantiles of Student's t by degrees of freedom."""


def run_seed(seed: int, out: Path, overrides: list[str]) -> dict[str, Any]:
    """One run's summary; a finished one is read, not repeated."""
    folder = out / f"seed-{seed}"
    if not (folder / "summary.json").is_file():
        sets = [f"--set={override}" for override in overrides]
        command = [sys.executable, "-m", "conf_profile", "run", f"--seed={seed}", f"--out={folder}", *sets]
        subprocess.run(command, check=True)
    summary: dict[str, Any] = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    return summary


def interval(values: list[float]) -> tuple[float, float, float]:
    """Mean and 95% interval over seeds."""
    mean, spread = float(np.mean(values)), float(np.std(values, ddof=1))
    half = T_975[len(values) - 1] * spread / len(values) ** 0.5
    return mean, mean - half, mean + half


def main() -> None:
    """Runs the seeds and prints two tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("runs/seeds"))
    parser.add_argument("--set", action="append", default=[], dest="overrides")
    given = parser.parse_args()
    seeds = range(given.first_seed, given.first_seed + given.seeds)
    found = [run_seed(seed, given.out, given.overrides)["metrics"] for seed in seeds]
    arms = {arm: interval([metrics[arm]["f1"] for metrics in found]) for arm in ARMS}
    pairs = {
        f"{better} - {worse}": interval([metrics[better]["f1"] - metrics[worse]["f1"] for metrics in found])
        for better, worse in PAIRS
    }
    (given.out / "seeds.json").write_text(
        json.dumps({"seeds": list(seeds), "f1": arms, "differences": pairs}, indent=2)
    )
    for title, rows in (("F1", arms), ("difference of F1", pairs)):
        print(f"\n| {title} | mean | 95% interval over {given.seeds} seeds |\n|---|--:|--:|")
        for name, (mean, low, high) in rows.items():
            print(f"| {name} | {100 * mean:.1f} | {100 * low:.1f} to {100 * high:.1f} |")


if __name__ == "__main__":
    main()
