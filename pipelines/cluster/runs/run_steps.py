"""The pipeline's steps among the nodes of a run on KFP, and what the compiled pipeline says of them.

A backend lists every node: drivers, loops and executors beside the steps. Above 1 MiB of node status it lists none, and
then `run_root` tells more.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from components import steps

STEPS = tuple(step.name for step in steps.STEPS)
"""In the order in which the data go through them."""
DONE_STATES = frozenset({"SUCCEEDED", "SKIPPED", "CACHED"})
FINAL_STATES = DONE_STATES | {"FAILED", "CANCELED"}
_FORMER_NAMES = {former.replace("_", "-"): name for former, name in steps.FORMER_NAMES.items()}
_STEP = re.compile(rf"({'|'.join([*STEPS, *_FORMER_NAMES])})(-\d+)?")
_EXECUTOR = "executor"
WHOLE_RUN = "the run"
"""Stands for a run of which no node has begun."""


@dataclass(frozen=True)
class Step:
    """One step of a run, or one of a loop's. `key` is empty where no node was seen.

    `state` is KFP's, or CACHED. `nodes` are Argo's ids of its pods, the last try first.
    """

    name: str
    state: str
    key: str = ""
    seconds: float | None = None
    nodes: tuple[str, ...] = ()
    message: str = ""


@dataclass(frozen=True)
class CompiledSteps:
    """Of a compiled pipeline: its steps, those that no condition can leave out, and those that leave artefacts."""

    names: frozenset[str]
    certain: frozenset[str]
    with_artefacts: frozenset[str]


def step_name(task: str) -> str | None:
    """The step of this task, or None for a driver, a loop and the like. KFP numbers a task that comes again.

    Runs of release 0.1.0 have former names of steps.
    """
    match = _STEP.fullmatch(task)
    return _FORMER_NAMES.get(match[1], match[1]) if match else None


def steps_of(run: Any) -> list[Step]:
    """The steps that KFP shows of a run; none where its node status is too large."""
    tasks = _tasks(run)
    by_key = _index_by_key(tasks)
    return [_step(task, name, by_key) for task in tasks if (name := step_name(task.display_name or ""))]


def pending_names(run: Any) -> set[str]:
    """The steps of a run whose pods have not begun, a driver's for its step; other nodes by their own names."""
    tasks = _tasks(run)
    if run.state == "PENDING" and not tasks:
        return {WHOLE_RUN}
    owners = {node: step.name for step in steps_of(run) for node in step.nodes}
    waiting = [task for task in tasks if task.state == "PENDING"]
    return {owners.get(task.task_id) or owners.get(task.pod_name) or _bare_name(task) for task in waiting}


def _bare_name(task: Any) -> str:
    name = str(task.display_name)
    return step_name(name.removesuffix("-driver")) or name


def other_failures(run: Any) -> list[Step]:
    """The failed nodes that are no steps and have no failed node below them, such as a driver."""
    tasks = [task for task in _tasks(run) if task.state == "FAILED"]
    failed = {key for task in tasks for key in (task.task_id, task.pod_name) if key}
    return [
        Step(str(task.display_name), "FAILED", str(task.task_id), None, (str(task.pod_name),), _own_message(task))
        for task in tasks
        if not step_name(task.display_name or "") and not failed & set(_children(task))
    ]


def compiled_steps(spec: Mapping[str, Any]) -> CompiledSteps:
    """What a pipeline's specification says of its steps."""
    found = list(_leaves(spec.get("root", {}), spec.get("components", {}), certain=True))
    return CompiledSteps(
        frozenset(name for name, _, _ in found),
        frozenset(name for name, certain, _ in found if certain),
        frozenset(name for name, _, artefacts in found if artefacts),
    )


def _leaves(
    component: Mapping[str, Any], components: Mapping[str, Any], certain: bool
) -> Iterator[tuple[str, bool, bool]]:
    for key, task in component.get("dag", {}).get("tasks", {}).items():
        inner = components.get(task.get("componentRef", {}).get("name"), {})
        surely = certain and "condition" not in task.get("triggerPolicy", {})
        if "dag" in inner:
            yield from _leaves(inner, components, surely)
        elif name := step_name(key):
            yield name, surely, bool(inner.get("outputDefinitions", {}).get("artifacts"))


def _step(task: Any, name: str, by_key: Mapping[str, Any]) -> Step:
    executors = list(_executors(task, by_key))
    states = {by_key[node].state for node in executors if node in by_key}
    state = str(task.state)
    if state in DONE_STATES and states == {"SKIPPED"}:
        state = "CACHED"
    elif state not in FINAL_STATES and "PENDING" in states and "RUNNING" not in states:
        state = "PENDING"
    nodes = tuple(reversed(executors)) or tuple(filter(None, [task.pod_name]))
    return Step(name, state, str(task.task_id), _seconds(task), nodes, _message(task, by_key, frozenset()))


def _executors(task: Any, by_key: Mapping[str, Any]) -> Iterator[str]:
    """The ids of a step's own pods. Argo lists the tasks that come after it among its descendants, too."""
    for node in _children(task):
        child = by_key.get(node)
        if child is None:
            yield node
        elif str(child.display_name).startswith(_EXECUTOR):
            # A retried executor has its tries as children, and is no pod itself.
            tries = [key for key in _children(child) if _is_try(by_key.get(key))]
            yield from tries or [node]


def _is_try(task: Any) -> bool:
    return task is not None and str(task.display_name).startswith(_EXECUTOR)


def _children(task: Any) -> list[str]:
    return [key for child in task.child_tasks or () if (key := child.task_id or child.pod_name)]


def _message(task: Any, by_key: Mapping[str, Any], above: frozenset[int]) -> str:
    """The message of the deepest failed node below this one, else its own."""
    for key in _children(task):
        child = by_key.get(key)
        if child is None or child.state != "FAILED" or id(child) in above:
            continue
        if found := _message(child, by_key, above | {id(task)}):
            return found
    return _own_message(task)


def _own_message(task: Any) -> str:
    return " ".join(str(task.error.message).split()) if task.error and task.error.message else ""


def _seconds(task: Any) -> float | None:
    if not (task.start_time and task.end_time):
        return None
    # A node that runs has the year 1 as its end.
    seconds = (task.end_time - task.start_time).total_seconds()
    return seconds if seconds >= 0 else None


def _tasks(run: Any) -> list[Any]:
    details = run.run_details
    return list(details.task_details or ()) if details else []


def _index_by_key(tasks: list[Any]) -> dict[str, Any]:
    return {key: task for task in tasks for key in (task.task_id, task.pod_name) if key}
