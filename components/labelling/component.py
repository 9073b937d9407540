"""The KFP wrapper of the labelling step; `candidates` takes the collected shards of the synthesis step."""

from typing import List  # noqa: UP035 - KFP's type system knows typing.List

from kfp import dsl

from components.image import IMAGE


@dsl.component(base_image=IMAGE, packages_to_install=[], install_kfp_package=False)
def labelling(
    candidates: dsl.Input[List[dsl.Dataset]],  # noqa: UP006
    features: dsl.Input[dsl.Dataset],
    pseudo_labels: dsl.Output[dsl.Dataset],
    calibration: dsl.Output[dsl.Artifact],
    report: dsl.Output[dsl.Artifact],
    task_file: str,
    config: str,
    samples: int,
):
    """Votes over the teacher's samples and calibrates the confidence of the winners."""
    from components.labelling import task

    task.run(candidates, features, pseudo_labels, calibration, report, task_file, config, samples)
