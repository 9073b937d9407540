"""The KFP wrapper of `components.rollout.step`."""

from kfp import dsl

from components.image import IMAGE


@dsl.component(base_image=IMAGE, packages_to_install=[], install_kfp_package=False)
def rollout(outcome: dsl.Input[dsl.Artifact], served: dsl.Output[dsl.Artifact], config: str, storage: str):
    """Put the promoted version into service on the cluster, or leave things as they were."""
    from pathlib import Path

    from components.rollout.step import run
    from conf_profile.config import RolloutConfig, StorageConfig, parse_section

    result = run(
        Path(outcome.path),
        Path(served.path),
        parse_section(RolloutConfig, config),
        parse_section(StorageConfig, storage),
    )
    served.metadata["uri"] = result.get("uri", "")
