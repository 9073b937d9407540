"""The KFP wrapper of `components.sft.step`."""

from kfp import dsl

from components.image import IMAGE


@dsl.component(base_image=IMAGE, packages_to_install=[], install_kfp_package=False)
def sft(
    features: dsl.Input[dsl.Dataset],
    pseudo_labels: dsl.Input[dsl.Dataset],
    student: dsl.Output[dsl.Model],
    log: dsl.Output[dsl.Artifact],
    metrics: dsl.Output[dsl.Metrics],
    task_file: str,
    config: str,
    student_config: str,
    prompt: str,
    workspace: str,
    seed: int,
):
    """Supervised fine-tuning of the student on the voted and calibrated pseudo-labels."""
    from components.sft import task

    task.run(features, pseudo_labels, student, log, metrics, task_file, config, student_config, prompt, workspace, seed)
