"""The table of steps: what is derived from it holds for every row."""

import inspect

import pytest

from components import steps
from components.steps import BY_NAME, FORMER_NAMES, MODEL_SECTIONS, SECTIONS, STEPS, steps_of
from conf_profile.config import RunConfig, Section, resolve
from conf_profile.errors import ConfigError
from support.paths import ROOT

REJECTION = resolve(overrides=["rejection.rounds=1"])


@pytest.mark.parametrize("step", STEPS, ids=lambda step: step.name)
def test_a_step_has_its_name_everywhere(step):
    folder = ROOT / "components" / step.name
    assert {path.name for path in folder.glob("*")} >= {"component.py", "task.py", "step.py", "README.md"}
    component = step.component()
    assert component.component_spec.name.replace("-", "_") == step.name
    assert component.python_func.__name__ == step.name


def test_every_folder_has_a_row():
    assert {path.parent.name for path in (ROOT / "components").glob("*/component.py")} == set(BY_NAME)


def test_sections_are_the_configurations():
    fields = RunConfig.model_fields
    for section in SECTIONS:
        assert issubclass(type(getattr(RunConfig(), section)), Section), section
        assert section in fields
    # A step with a section of its own gets it.
    assert all(step.name in step.sections for step in STEPS if step.name in fields)


def test_components_ask_for_what_the_row_says():
    """A section travels as one parameter: the step's own as `config`, another under its name or a fuller one."""
    for step in STEPS:
        names = inspect.signature(step.component().python_func).parameters
        configured = [name for name in names if name in ("config", "prompt", "storage", "sampling", "student_config")]
        assert len(configured) == len(step.sections), step.name


def test_optional_steps_follow_the_configuration():
    default = [step.name for step in steps_of(RunConfig())]
    assert not {"rejection", "rollout", "predictions"} & set(default)
    assert [step.name for step in steps_of(REJECTION)] == [*default[:4], "rejection", *default[4:]]


def test_a_run_ends_after_a_named_step():
    assert [step.name for step in steps_of(RunConfig(), "labelling")] == ["features", "synthesis", "labelling"]
    with pytest.raises(ConfigError, match=r"cannot end after 'rejection': .*its steps are features, synthesis"):
        steps_of(RunConfig(), "rejection")


def test_a_step_on_request_is_part_of_a_run_that_ends_with_it():
    default = [step.name for step in steps_of(RunConfig())]
    ended = [step.name for step in steps_of(RunConfig(), "predictions")]
    assert ended == [*default[: default.index("grpo") + 1], "predictions"]


def test_what_makes_a_model_is_recorded():
    assert {"sft", "rejection", "reference", "filtering", "grpo", "student"} <= MODEL_SECTIONS
    assert not {"gate", "evaluation", "storage", "rollout"} & MODEL_SECTIONS


def test_a_former_name_is_nobodys_now():
    assert set(FORMER_NAMES.values()) <= set(BY_NAME) and not set(FORMER_NAMES) & set(BY_NAME)
    assert not set(FORMER_NAMES) & set(steps.SECTIONS)
