"""The KFP wrapper of `components.grpo.step`."""

from kfp import dsl

from components.image import IMAGE


@dsl.component(base_image=IMAGE, packages_to_install=[], install_kfp_package=False)
def grpo(
    features: dsl.Input[dsl.Dataset],
    reference: dsl.Input[dsl.Dataset],
    support: dsl.Input[dsl.Dataset],
    filtered: dsl.Input[dsl.Dataset],
    sft_student: dsl.Input[dsl.Model],
    student: dsl.Output[dsl.Model],
    log: dsl.Output[dsl.Artifact],
    metrics: dsl.Output[dsl.Metrics],
    config: str,
    student_config: str,
    workspace: str,
    seed: int,
):
    """Confidence-guided GRPO from the SFT student, on the frozen reference."""
    from components.grpo import task

    task.run(
        features, reference, support, filtered, sft_student, student, log, metrics,
        config, student_config, workspace, seed,
    )  # fmt: skip
