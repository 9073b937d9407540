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
    configuration: str,
):
    """The run's report as one self-contained HTML page."""
    from components.report import task

    task.run(
        evaluation, gate_decision, labelling_report, features_report, sft_log, grpo_log,
        filtering_report, reference_report, outcome, page, configuration,
    )  # fmt: skip
