"""The KFP wrapper of the labelling step; `candidates` takes the collected shards of the synthesis step."""

from typing import List  # noqa: UP035 - KFP's type system knows typing.List

from kfp import dsl

from components.image import IMAGE


@dsl.component(base_image=IMAGE, packages_to_install=[], install_kfp_package=False)
def labelling(
    candidates: dsl.Input[List[dsl.Dataset]],  # noqa: UP006
    taxonomy: dsl.Input[dsl.Artifact],
    features: dsl.Input[dsl.Dataset],
    pseudo_labels: dsl.Output[dsl.Dataset],
    calibration: dsl.Output[dsl.Artifact],
    report: dsl.Output[dsl.Artifact],
    config: str,
    samples: int,
):
    """Votes over the teacher's samples and calibrates the confidence of the winners."""
    from pathlib import Path

    from components.labelling.step import run
    from conf_profile.config import LabellingConfig, parse_section

    run(
        candidates=[Path(shard.path) for shard in candidates],
        taxonomy=Path(taxonomy.path),
        features=Path(features.path),
        pseudo_labels=Path(pseudo_labels.path),
        calibration=Path(calibration.path),
        report=Path(report.path),
        config=parse_section(LabellingConfig, config),
        samples=int(samples),
    )
