"""The KFP wrapper of `components.promotion.step`."""

from kfp import dsl

from components.image import IMAGE


@dsl.component(base_image=IMAGE, packages_to_install=[], install_kfp_package=False)
def promotion(
    model: dsl.Input[dsl.Model],
    evaluation: dsl.Input[dsl.Artifact],
    gate: dsl.Input[dsl.Artifact],
    reference: dsl.Input[dsl.Dataset],
    outcome: dsl.Output[dsl.Artifact],
    config: str,
    run_config: str,
    expected_champion: str,
):
    """Publish the model that the gate let pass, and make it the champion."""
    from pathlib import Path

    from components.promotion.step import file_hash, run
    from conf_profile.config import StorageConfig, parse_section

    result = run(
        Path(model.path),
        Path(evaluation.path),
        Path(gate.path),
        file_hash(Path(reference.path)),
        Path(outcome.path),
        parse_section(StorageConfig, config),
        run_config,
        expected_champion,
    )
    outcome.metadata["promoted"] = result["promoted"]
    outcome.metadata["uri"] = result.get("uri", "")
