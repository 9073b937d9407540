"""The KFP wrapper of `components.gate.step`."""

from kfp import dsl

from components.image import IMAGE


@dsl.component(base_image=IMAGE, packages_to_install=[], install_kfp_package=False)
def gate(evaluation: dsl.Input[dsl.Artifact], gate_decision: dsl.Output[dsl.Artifact], config: str):
    """Promote or reject the candidate, with a reason for every check."""
    from pathlib import Path

    from components.gate.step import run
    from conf_profile.config import GateConfig, parse_section

    result = run(Path(evaluation.path), Path(gate_decision.path), parse_section(GateConfig, config))
    gate_decision.metadata["decision"] = result["decision"]
