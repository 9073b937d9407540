"""The KFP wrapper of the features step."""

from kfp import dsl

from components.image import IMAGE


@dsl.component(base_image=IMAGE, packages_to_install=[], install_kfp_package=False)
def features(
    features: dsl.Output[dsl.Dataset],
    report: dsl.Output[dsl.Artifact],
    behaviour: str,
    demographics: str,
    task_file: str,
    data_digest: str,
    as_of: str,
    config: str,
):
    """Reads features point-in-time through Feast; `data_digest` makes the cache follow the data."""
    from components.features import task

    task.run(features, report, behaviour, demographics, task_file, data_digest, as_of, config)
