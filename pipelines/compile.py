"""Compiles the training pipeline to YAML for a KFP backend."""

from __future__ import annotations

import sys
from pathlib import Path

from conf_profile import tables


def compile_to(path: Path) -> None:
    """Writes the YAML whole or not at all."""
    from kfp import compiler

    from pipelines.training import training_pipeline

    with tables.atomic_path(path) as temporary:
        # kfp looks at the suffix to choose its format.
        yaml_file = temporary.with_suffix(".yaml")
        compiler.Compiler().compile(training_pipeline, str(yaml_file))
        yaml_file.rename(temporary)


if __name__ == "__main__":
    compile_to(Path(sys.argv[1]))
