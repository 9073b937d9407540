"""Runs the training pipeline on this machine with `kfp.local`, as a program of its own.

    python -m pipelines.local ARGUMENTS.json OUTPUTS.json FOLDER LAST_STEP

LAST_STEP is where the pipeline ends, empty for its own end.
The command line starts it as a child process, so that kfp's output can be shown as progress and a stop kills
everything. Steps that are cached under FOLDER are not run again. OUTPUTS.json receives where each step's
artefacts are.
"""

from __future__ import annotations

import json
import os
import sys
import warnings
from pathlib import Path
from typing import Any

from conf_profile.files import write_text


def main(arguments_file: Path, outputs_file: Path, folder: Path, until: str) -> None:
    """Runs the pipeline, to its end or up to and with the step `until`; raises what kfp raises when a step fails."""
    arguments: dict[str, Any] = json.loads(arguments_file.read_text(encoding="utf-8"))
    os.environ["PYTHONUNBUFFERED"] = "1"
    # Steps run in this very environment, wherever the caller's PATH points.
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    warnings.filterwarnings("ignore", module=r"kfp(\..*)?$")
    from kfp import local

    from components.steps import steps_of
    from conf_profile.storage import configuration_file
    from pipelines.training import training_pipeline

    local.init(
        local.SubprocessRunner(use_venv=False),
        pipeline_root=str(folder / "artefacts"),
        # kfp empties this one when it ends; what must outlive a run lies in FOLDER/workspace.
        workspace_root=str(folder / "kfp"),
        enable_caching=True,
        cache_root=str(folder / "cache"),
    )
    steps = steps_of(configuration_file.read(arguments["configuration"]), until)
    task = training_pipeline(arguments, steps)(**arguments)
    paths = {name: artefact.path for name, artefact in task.outputs.items()}
    write_text(outputs_file, json.dumps(paths, indent=2))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), sys.argv[4])
