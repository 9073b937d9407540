"""The KFP wrapper of `components.report.step`."""

from kfp import dsl

from components.image import IMAGE


@dsl.component(base_image=IMAGE, packages_to_install=[], install_kfp_package=False)
def report(
    evaluation: dsl.Input[dsl.Artifact],
    gate_decision: dsl.Input[dsl.Artifact],
    labelling_report: dsl.Input[dsl.Artifact],
    features_report: dsl.Input[dsl.Artifact],
    sft_log: dsl.Input[dsl.Artifact],
    grpo_log: dsl.Input[dsl.Artifact],
    filtering_report: dsl.Input[dsl.Artifact],
    reference_report: dsl.Input[dsl.Artifact],
    outcome: dsl.Input[dsl.Artifact],
    page: dsl.Output[dsl.HTML],
    config_yaml: str,
):
    """The run's report as one self-contained HTML page."""
    from pathlib import Path

    from components.report.step import run

    run(
        evaluation=Path(evaluation.path),
        gate=Path(gate_decision.path),
        labelling_report=Path(labelling_report.path),
        features_report=Path(features_report.path),
        sft_log=Path(sft_log.path),
        grpo_log=Path(grpo_log.path),
        filtering_report=Path(filtering_report.path),
        reference_report=Path(reference_report.path),
        outcome=Path(outcome.path),
        report=Path(page.path),
        config_yaml=config_yaml,
    )
