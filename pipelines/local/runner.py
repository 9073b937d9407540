"""The pipeline under `kfp.local`, in this process; each task is a process of its own in this very environment."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ARTEFACTS, CACHE = "artefacts", "cache"
"""Folders of a run: what the tasks have written, and by which arguments it is found again."""


def prepare() -> None:
    """To be called once, before kfp is imported: what its tasks inherit of this process."""
    os.environ["PYTHONUNBUFFERED"] = "1"
    # Wherever the caller's PATH points.
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    warnings.filterwarnings("ignore", module=r"kfp(\..*)?$")


def run(pipeline: Any, arguments: Mapping[str, Any], folder: Path, process: str = "") -> dict[str, Any]:
    """Runs a pipeline; tasks that are cached under `folder` are not run again. Returns its outputs' paths by name.

    An output that is made in shards is a list of paths. `process` names this one where several work in the folder at
    once. RuntimeError, without a reason, where a task fails: what the task said of it was printed.
    """
    from kfp import local

    local.init(
        local.SubprocessRunner(use_venv=False),
        pipeline_root=str(folder / ARTEFACTS / process),
        # kfp empties this one when it ends.
        workspace_root=str(folder / "kfp" / process),
        enable_caching=True,
        cache_root=str(folder / CACHE),
    )
    return {name: _paths(output) for name, output in pipeline(**arguments).outputs.items()}


def _paths(output: Any) -> Any:
    return [str(artefact.path) for artefact in output] if isinstance(output, list) else str(output.path)
