"""The KFP wrapper of `components.rollout.step`; a pipeline that names nothing that serves does not have this step."""

from kfp import dsl

from components.image import IMAGE


@dsl.component(base_image=IMAGE, packages_to_install=[], install_kfp_package=False)
def rollout(outcome: dsl.Input[dsl.Artifact], served: dsl.Output[dsl.Artifact], config: str, storage: str):
    """Put the promoted version into service on the cluster, or leave things as they were."""
    from components.rollout import task

    task.run(outcome, served, config, storage)
