"""Runs the training pipeline on this machine with `kfp.local`, as a program of its own.

    python -m pipelines.local ARGUMENTS.json OUTPUTS.json FOLDER LAST_STEP

LAST_STEP is where the pipeline ends, empty for its own end.
The command line starts it as a child process, so that kfp's output can be shown as progress and a stop kills
everything. Steps that are cached under FOLDER are not run again. OUTPUTS.json receives where each step's
artefacts are.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from conf_profile.files import write_text
from pipelines.local import runner


def main(arguments_file: Path, outputs_file: Path, folder: Path, until: str) -> None:
    """Runs the pipeline, to its end or up to and with the step `until`; raises what kfp raises when a step fails."""
    arguments: dict[str, Any] = json.loads(arguments_file.read_text(encoding="utf-8"))
    runner.prepare()
    from components.steps import steps_of
    from conf_profile.storage import configuration_file
    from pipelines.training import training_pipeline

    steps = steps_of(configuration_file.read(arguments["configuration"]), until)
    pipeline = training_pipeline(arguments, steps)
    paths = runner.run(pipeline, arguments, folder)
    write_text(outputs_file, json.dumps(paths, indent=2))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), sys.argv[4])
