"""Compiles the training pipeline to YAML for a KFP backend."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from components.steps import steps_of
from conf_profile.config import RunConfig
from conf_profile.files import atomic_path
from pipelines import cluster_data, node_status
from pipelines.resources import Resources


def compile_to(
    path: Path,
    config: RunConfig,
    given: Resources,
    image: str = "",
    caching: bool = False,
    defaults: Mapping[str, Any] | None = None,
    until: str = "",
) -> None:
    """Writes the YAML whole or not at all; see `placement.make_cluster_placement` for `given`, `image` and `caching`.

    The steps are those that the configuration needs, up to and with `until`. `defaults` holds every parameter's
    default, so that KFP's own page can start a run: by default those of the configuration, with the tables where the
    project's bucket has them. `caching` is for runs whose arguments name the content of their data. ConfigError where
    such a run would not fit into Argo's object.
    """
    from kfp import compiler

    from pipelines.placement import make_cluster_placement
    from pipelines.training import training_pipeline

    values = dict(defaults or cluster_data.default_arguments(config, caching=caching))
    with atomic_path(path) as temporary:
        # kfp looks at the suffix to choose its format.
        yaml_file = temporary.with_suffix(".yaml")
        pipeline = training_pipeline(values, steps_of(config, until), make_cluster_placement(given, image, caching))
        compiler.Compiler().compile(pipeline, str(yaml_file))
        try:
            node_status.require_fits(yaml_file, values)
            yaml_file.rename(temporary)
        finally:
            yaml_file.unlink(missing_ok=True)
