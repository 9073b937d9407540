"""The KFP wrapper of `components.reference.step`."""

from kfp import dsl

from components.image import IMAGE


@dsl.component(base_image=IMAGE, packages_to_install=[], install_kfp_package=False)
def reference(
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
    from components.reference import task

    task.run(features, student, reference, support, report, config, dtype, seed)
