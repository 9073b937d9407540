"""The KFP wrapper of `components.gate.step`."""

from kfp import dsl

from components.image import IMAGE


@dsl.component(base_image=IMAGE, packages_to_install=[], install_kfp_package=False)
def gate(evaluation: dsl.Input[dsl.Artifact], gate_decision: dsl.Output[dsl.Artifact], config: str):
    """Promote or reject the candidate, with a reason for every check."""
    from components.gate import task

    task.run(evaluation, gate_decision, config)
