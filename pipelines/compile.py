"""Compiles the training pipeline to YAML for a KFP backend: `python -m pipelines.compile OUT.yaml [VALUES.yaml...]`."""

from __future__ import annotations

import sys
from pathlib import Path

from conf_profile import tables
from pipelines import resources
from pipelines.resources import Resources


def compile_to(path: Path, given: Resources, image: str = "", caching: bool = True) -> None:
    """Writes the YAML whole or not at all; see `placement.on_cluster` for the arguments."""
    from kfp import compiler

    from pipelines.placement import on_cluster
    from pipelines.training import training_pipeline

    with tables.atomic_path(path) as temporary:
        # kfp looks at the suffix to choose its format.
        yaml_file = temporary.with_suffix(".yaml")
        compiler.Compiler().compile(training_pipeline(on_cluster(given, image, caching)), str(yaml_file))
        yaml_file.rename(temporary)


if __name__ == "__main__":
    compile_to(Path(sys.argv[1]), resources.load(map(Path, sys.argv[2:])))
