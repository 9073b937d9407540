"""The KFP wrapper of `components.promotion.step`."""

from kfp import dsl

from components.image import IMAGE


@dsl.component(base_image=IMAGE, packages_to_install=[], install_kfp_package=False)
def promotion(
    model: dsl.Input[dsl.Model],
    evaluation: dsl.Input[dsl.Artifact],
    gate: dsl.Input[dsl.Artifact],
    reference: dsl.Input[dsl.Dataset],
    outcome: dsl.Output[dsl.Artifact],
    config: str,
    configuration: str,
    expected_champion: str,
):
    """Publish the model that the gate let pass, and make it the champion."""
    from components.promotion import task

    task.run(model, evaluation, gate, reference, outcome, config, configuration, expected_champion)
