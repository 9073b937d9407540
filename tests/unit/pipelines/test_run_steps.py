"""What is read off a log, a task's name and a compiled pipeline."""

import pytest

from pipelines.cluster.runs.run_logs import reason
from pipelines.cluster.runs.run_steps import compiled_steps, step_name


@pytest.mark.parametrize(
    ("log", "expected"),
    [
        ("", ""),
        ("step 3 of 4\nall is well", ""),
        ("ValueError: first\nmore\nKeyError: 'second'\nlauncher: exit status 1", "KeyError: 'second'"),
        ("conf_profile.errors.DataError: a: b (row 3)\n", "conf_profile.errors.DataError: a: b (row 3)"),
        ("  [KFP Executor] x\n    MemoryError\n", "MemoryError"),
        ("no Error here: it only looks like one", ""),
        ("F0601 main.go: failed to execute component: exit status 2", "exit status 2"),
        ("exit status 137", "killed, most likely for memory: raise limits.memory of the step"),
        ("signal: killed", "killed, most likely for memory: raise limits.memory of the step"),
    ],
)
def test_the_reason_is_the_last_exception(log, expected):
    assert reason(log) == expected


@pytest.mark.parametrize(
    ("task", "expected"),
    [
        ("sft", "sft"),
        ("features-2", "features"),
        ("sft-driver", None),
        ("executor", None),
        ("sft-x", None),
        # Of a run of release 0.1.0.
        ("build-features", "features"),
        ("evaluate-2", "evaluation"),
    ],
)
def test_a_task_is_a_step_by_its_name(task, expected):
    assert step_name(task) == expected


def test_a_compiled_pipeline_tells_which_steps_are_certain():
    def task(component, condition=None):
        return {"componentRef": {"name": component}} | ({"triggerPolicy": condition} if condition else {})

    leaf, with_artefacts = {"executorLabel": "x"}, {"outputDefinitions": {"artifacts": {"student": {}}}}
    spec = {
        "root": {"dag": {"tasks": {
            "sft": task("comp-sft"), "for-loop-1": task("comp-loop"),
            "condition-1": task("comp-condition", {"condition": "x"}),
        }}},
        "components": {
            "comp-sft": with_artefacts, "comp-synthesis": with_artefacts, "comp-rollout": leaf,
            "comp-loop": {"dag": {"tasks": {"synthesis": task("comp-synthesis")}}},
            "comp-condition": {"dag": {"tasks": {"rollout": task("comp-rollout")}}},
        },
    }  # fmt: skip
    found = compiled_steps(spec)
    assert found.names == {"sft", "synthesis", "rollout"}
    assert found.certain == found.with_artefacts == {"sft", "synthesis"}
    assert compiled_steps({}).names == set()
