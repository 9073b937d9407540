"""The KFP wrapper of the difficulty filter."""

from kfp import dsl

from components.image import IMAGE


@dsl.component(base_image=IMAGE, packages_to_install=[], install_kfp_package=False)
def filtering(
    reference: dsl.Input[dsl.Dataset],
    filtered: dsl.Output[dsl.Dataset],
    report: dsl.Output[dsl.Artifact],
    config: str,
    seed: int,
):
    """Chooses the users of the second stage by their frozen confidence."""
    from pathlib import Path

    from components.filtering.step import run
    from conf_profile.config import FilteringConfig, parse_section

    run(
        reference=Path(reference.path),
        filtered=Path(filtered.path),
        report=Path(report.path),
        config=parse_section(FilteringConfig, config),
        seed=int(seed),
    )
