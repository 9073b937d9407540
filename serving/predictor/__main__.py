"""`python -m serving.predictor --model FOLDER`: becomes vLLM's server for a model's folder.

The process is replaced (exec), so signals reach vLLM. Arguments that are not known here, and all after `--`, are vLLM's
and go over what is chosen here: KServe puts an InferenceService's own arguments behind those of the runtime.
"""

from __future__ import annotations

import argparse
import math
import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from conf_profile.errors import ConfProfileError
from conf_profile.processes.machine import usable_cores
from serving import termination
from serving.predictor.arguments import PredictorArguments, command, environment

PRINT = "--print"
"""Shows vLLM's command and ends."""
CPU_QUOTA = Path("/sys/fs/cgroup/cpu.max")


def main(given: Sequence[str]) -> None:
    """Becomes vLLM, or ends with status 2 and one line that says why."""
    model, arguments, threads = parse([part for part in given if part != PRINT])
    try:
        program = command(model, arguments)
    except ConfProfileError as error:
        termination.report_error("predictor", error)
        sys.exit(2)
    if PRINT in given:
        print(shlex.join(program))
        return
    # What the pod sets goes over what is chosen here.
    os.execve(program[0], program, {**environment(arguments, threads), **os.environ})


def parse(given: Sequence[str]) -> tuple[Path, PredictorArguments, int]:
    """The model's folder, vLLM's arguments, and its threads on a CPU."""
    parser = argparse.ArgumentParser(prog="python -m serving.predictor", allow_abbrev=False)
    parser.add_argument("--model", type=Path, default=Path("/mnt/models"), help="the model's folder")
    parser.add_argument("--served-name", default="conf-profile", help="besides the version, which is served by name")
    parser.add_argument("--host", default="0.0.0.0")
    parser.add_argument("--port", type=int, default=8080)
    parser.add_argument("--device", choices=["cpu", "gpu"], default="cpu")
    parser.add_argument("--max-sequences", type=int, default=PredictorArguments.max_sequences)
    parser.add_argument("--threads", type=int, help="on a CPU; default: as many cores as the container may use")
    known, further = parser.parse_known_args(given)
    arguments = PredictorArguments(
        host=known.host,
        port=known.port,
        device=known.device,
        served_name=known.served_name,
        max_sequences=known.max_sequences,
        further=tuple(part for part in further if part != "--"),
    )
    return known.model, arguments, known.threads or cores(CPU_QUOTA)


def cores(quota: Path) -> int:
    """Cores that this container may use: its limit (cgroup v2's cpu.max), else those of the machine."""
    there = usable_cores()
    limit, _, period = quota.read_text(encoding="utf-8").strip().partition(" ") if quota.is_file() else ("max", "", "")
    return there if limit == "max" else max(1, min(there, math.ceil(int(limit) / int(period))))


if __name__ == "__main__":
    main(sys.argv[1:])
