"""The KFP wrapper of the evaluation, the one step that is given the address of the true labels."""

from typing import List  # noqa: UP035 - KFP's type system knows typing.List

from kfp import dsl

from components.image import IMAGE


@dsl.component(base_image=IMAGE, packages_to_install=[], install_kfp_package=False)
def evaluation(
    features: dsl.Input[dsl.Dataset],
    candidates: dsl.Input[List[dsl.Dataset]],  # noqa: UP006
    sft_student: dsl.Input[dsl.Model],
    student: dsl.Input[dsl.Model],
    evaluation: dsl.Output[dsl.Artifact],
    metrics: dsl.Output[dsl.Metrics],
    confusion: dsl.Output[dsl.ClassificationMetrics],
    task_file: str,
    labels: str,
    ceiling: str,
    config: str,
    student_config: str,
    storage: str,
    champion_version: str,
    labels_digest: str,
    seed: int,
):
    """Measures every arm on the test users' true labels; `labels_digest` only makes the cache follow them."""
    from components.evaluation import task

    task.run(
        features, candidates, sft_student, student, evaluation, metrics, confusion,
        task_file, labels, ceiling, config, student_config, storage, champion_version, seed,
    )  # fmt: skip
