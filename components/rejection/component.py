"""The KFP wrapper of `components.rejection.step`; a pipeline without rounds of it does not have this step."""

from kfp import dsl

from components.image import IMAGE


@dsl.component(base_image=IMAGE, packages_to_install=[], install_kfp_package=False)
def rejection(
    features: dsl.Input[dsl.Dataset],
    sft_student: dsl.Input[dsl.Model],
    student: dsl.Output[dsl.Model],
    log: dsl.Output[dsl.Artifact],
    metrics: dsl.Output[dsl.Metrics],
    config: str,
    sampling: str,
    student_config: str,
    workspace: str,
    seed: int,
):
    """Fine-tunes the student on those of its own samples that agree with their vote."""
    from components.rejection import task

    task.run(features, sft_student, student, log, metrics, config, sampling, student_config, workspace, seed)
