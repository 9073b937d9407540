"""The KFP wrapper of the difficulty filter."""

from kfp import dsl

from components.image import IMAGE


@dsl.component(base_image=IMAGE, packages_to_install=[], install_kfp_package=False)
def filtering(
    reference: dsl.Input[dsl.Dataset],
    filtered: dsl.Output[dsl.Dataset],
    report: dsl.Output[dsl.Artifact],
    config: str,
    seed: int,
):
    """Chooses the users of the second stage by their frozen confidence."""
    from components.filtering import task

    task.run(reference, filtered, report, config, seed)
