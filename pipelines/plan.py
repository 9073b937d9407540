"""Which steps a run has, decided by its configuration when the pipeline is compiled. Light: no kfp here.

A step with nothing to do would cost two pods and ten seconds: rejection sampling of no rounds is not in the pipeline,
nor is a rollout where nothing that serves is named.
"""

from __future__ import annotations

from dataclasses import dataclass

from conf_profile.config import RunConfig
from pipelines.resources import DEFAULT_STEPS, StepName


@dataclass(frozen=True)
class Plan:
    """Which of the optional steps a pipeline has."""

    rejection: bool = False
    rollout: bool = False

    @property
    def steps(self) -> tuple[StepName, ...]:
        """The steps' names, in the order of the flow."""
        absent = {"rejection_sampling": not self.rejection, "rollout": not self.rollout}
        return tuple(name for name in DEFAULT_STEPS if not absent.get(name, False))


def plan_of(config: RunConfig) -> Plan:
    """The plan of a configuration."""
    return Plan(rejection=config.rejection.rounds > 0, rollout=bool(config.rollout.inference_service))
