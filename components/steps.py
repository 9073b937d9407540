"""The pipeline's steps, each declared once. What else knows about a step is derived from its row here.

A row's name is the name of the step's folder, of its component and of its task, and of its section of the configuration
where it has one. The rows stand in the order in which the data go through them.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from conf_profile.config import RunConfig
from conf_profile.errors import ConfigError

Machine = Literal["light", "teacher", "model"]
"""What a step asks for unless values say otherwise: little, little for a long time, or what a model needs."""


def _in_every_run(config: RunConfig) -> bool:
    return True


@dataclass(frozen=True)
class StepDeclaration:
    """One step.

    `sections` of the configuration shape what it makes, and are its parameters. Of the environment it needs a machine,
    `uses_store` the keys of the object store, `reads_truth` those of the labels, `asks_teacher` the teacher's. `cached`
    is False where the result depends on more than the arguments say. `wanted` tells which configurations have it: a
    step with nothing to do would cost two pods and ten seconds. A step `on_request` is part of runs that end with it.
    """

    name: str
    sections: tuple[str, ...] = ()
    machine: Machine = "light"
    uses_store: bool = False
    reads_truth: bool = False
    asks_teacher: bool = False
    cached: bool = True
    makes_model: bool = False
    wanted: Callable[[RunConfig], bool] = _in_every_run
    on_request: bool = False

    @property
    def module(self) -> str:
        """Where its KFP component is, under the step's own name."""
        return f"components.{self.name}.component"

    def component(self) -> Any:
        """The KFP component; imports kfp."""
        return getattr(importlib.import_module(self.module), self.name)


STEPS: tuple[StepDeclaration, ...] = (
    StepDeclaration("features", ("features",), uses_store=True, makes_model=True),
    StepDeclaration(
        "synthesis", ("teacher", "prompt"), "teacher", uses_store=True, asks_teacher=True, makes_model=True
    ),
    StepDeclaration("labelling", ("labelling",), uses_store=True, makes_model=True),
    StepDeclaration("sft", ("sft", "student", "prompt"), "model", uses_store=True, makes_model=True),
    StepDeclaration(
        "rejection",
        ("rejection", "reference", "student"),
        "model",
        uses_store=True,
        makes_model=True,
        wanted=lambda config: config.rejection.rounds > 0,
    ),
    StepDeclaration("reference", ("reference",), "model", makes_model=True),
    StepDeclaration("filtering", ("filtering",), makes_model=True),
    StepDeclaration("grpo", ("grpo", "student"), "model", uses_store=True, makes_model=True),
    StepDeclaration("predictions", ("evaluation", "student"), "model", on_request=True),
    # The evaluation and what follows depend on the champion of the moment, which the cache's key does not hold.
    StepDeclaration(
        "evaluation",
        ("evaluation", "student", "storage"),
        "model",
        uses_store=True,
        reads_truth=True,
        cached=False,
    ),
    StepDeclaration("gate", ("gate",)),
    StepDeclaration("promotion", ("storage",), uses_store=True, cached=False),
    StepDeclaration(
        "rollout",
        ("rollout", "storage"),
        uses_store=True,
        cached=False,
        wanted=lambda config: bool(config.rollout.inference_service),
    ),
    StepDeclaration("report", uses_store=True),
)
BY_NAME: Mapping[str, StepDeclaration] = {step.name: step for step in STEPS}
SECTIONS: tuple[str, ...] = tuple(dict.fromkeys(section for step in STEPS for section in step.sections))
"""Every section that some step gets."""
MODEL_SECTIONS: frozenset[str] = frozenset(section for step in STEPS if step.makes_model for section in step.sections)
"""The sections that a model is made with."""
FORMER_NAMES: Mapping[str, str] = {
    "build_features": "features",
    "rejection_sampling": "rejection",
    "freeze_reference": "reference",
    "evaluate": "evaluation",
}
"""Names of steps up to release 0.1.0, which its values files and its runs on a backend still have."""


def steps_of(config: RunConfig, until: str = "") -> tuple[StepDeclaration, ...]:
    """The steps of a configuration's run, up to and with `until`; ConfigError where it has no such step."""
    wanted = tuple(step for step in STEPS if (step.name == until if step.on_request else step.wanted(config)))
    names = [step.name for step in wanted]
    if until and until not in names:
        raise ConfigError(f"the run cannot end after {until!r}: it has no such step; its steps are {', '.join(names)}")
    return wanted[: names.index(until) + 1] if until else wanted
