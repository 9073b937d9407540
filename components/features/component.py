"""The KFP wrapper of the features step."""

from kfp import dsl

from components.image import IMAGE


@dsl.component(base_image=IMAGE, packages_to_install=[], install_kfp_package=False)
def build_features(
    behaviour: dsl.Input[dsl.Dataset],
    demographics: dsl.Input[dsl.Dataset],
    features: dsl.Output[dsl.Dataset],
    report: dsl.Output[dsl.Artifact],
    data_digest: str,
    as_of: str,
    config: str,
):
    """Reads features point-in-time through Feast; `data_digest` only makes the cache follow the data."""
    import tempfile
    from pathlib import Path

    from components.features.step import run
    from conf_profile.config import FeaturesConfig, parse_section

    with tempfile.TemporaryDirectory() as workspace:
        run(
            behaviour=Path(behaviour.path),
            demographics=Path(demographics.path),
            features=Path(features.path),
            report=Path(report.path),
            workspace=Path(workspace),
            as_of=as_of,
            config=parse_section(FeaturesConfig, config),
        )
