"""The KFP wrapper of the predictions; a run has this step where it ends with it."""

from kfp import dsl

from components.image import IMAGE


@dsl.component(base_image=IMAGE, packages_to_install=[], install_kfp_package=False)
def predictions(
    features: dsl.Input[dsl.Dataset],
    student: dsl.Input[dsl.Model],
    predictions: dsl.Output[dsl.Dataset],
    untrained: bool,
    config: str,
    student_config: str,
    seed: int,
):
    """What a student says of the validation and test users; `untrained`: what it said before SFT."""
    from components.predictions import task

    task.run(features, student, predictions, untrained, config, student_config, seed)
