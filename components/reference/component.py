"""The KFP wrapper of `components.reference.step`."""

from kfp import dsl

from components.image import IMAGE


@dsl.component(base_image=IMAGE, packages_to_install=[], install_kfp_package=False)
def freeze_reference(
    features: dsl.Input[dsl.Dataset],
    student: dsl.Input[dsl.Model],
    reference: dsl.Output[dsl.Dataset],
    support: dsl.Output[dsl.Dataset],
    report: dsl.Output[dsl.Artifact],
    config: str,
    dtype: str,
    seed: int,
):
    """Samples the SFT student M times once; its vote and confidence are frozen from here on."""
    from pathlib import Path

    from components.reference.step import run
    from conf_profile.config import ReferenceConfig, parse_section

    summary = run(
        features=Path(features.path),
        student=Path(student.path),
        reference=Path(reference.path),
        support=Path(support.path),
        report=Path(report.path),
        config=parse_section(ReferenceConfig, config),
        dtype=dtype,
        seed=int(seed),
    )
    reference.metadata["sha256"] = summary["sha256"]
    reference.metadata["users"] = summary["users"]
