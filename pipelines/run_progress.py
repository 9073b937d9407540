"""Waits for a run on a KFP backend and tells how its steps do.

A backend lists every node of a run: drivers, loops and executors beside the steps. Only the steps are shown, and of a
failure the message that lies deepest below the failed step.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Any, get_args

from conf_profile.errors import PipelineError
from pipelines.kfp_backend import Backend
from pipelines.resources import StepName

SECONDS_BETWEEN_LOOKS = 5.0
LOOKS_WITHOUT_ANSWER = 12
"""In a row: a port-forward that drops or an API server that restarts is no reason to give up a run of hours."""
STEPS = frozenset(name.replace("_", "-") for name in get_args(StepName))
_FINISHED = {"SUCCEEDED": "[green]✓[/green]", "SKIPPED": "[green]✓[/green]", "FAILED": "[red]✗[/red]"}
_ENDED = ("SUCCEEDED", "FAILED", "CANCELED", "SKIPPED")


def wait(backend: Backend, run_id: str, console: Any) -> None:
    """Returns when the run has succeeded. PipelineError names the failed step, its message and the run's page."""
    shown: set[str] = set()
    with console.status("waiting for the first step") as status:
        while (run := _look(backend, run_id)).state not in _ENDED:
            _show(run, shown, console, status)
            time.sleep(SECONDS_BETWEEN_LOOKS)
        _show(run, shown, console, status)
    if run.state != "SUCCEEDED":
        raise PipelineError(f"{failure(run)}\nThe run and the logs of its steps: {backend.link(run_id)}")


def failure(run: Any) -> str:
    """Which step failed, and why, as far as the backend tells."""
    if run.state == "CANCELED":
        return "the run was cancelled"
    tasks = _tasks(run)
    failed = [task for task in tasks if _is_step(task) and task.state == "FAILED"]
    named = failed or [task for task in tasks if task.state == "FAILED"]
    by_key = {key: task for task in tasks for key in (task.task_id, task.pod_name) if key}
    reasons = [f"step {task.display_name!r} failed: {_reason(task, by_key) or 'its log says why'}" for task in named]
    whole = _message(run)
    return "; ".join(dict.fromkeys(reasons)) or f"the run ended as {run.state}: {whole or 'its page says why'}"


def _look(backend: Backend, run_id: str) -> Any:
    for _ in range(LOOKS_WITHOUT_ANSWER - 1):
        try:
            return backend.get_run(run_id)
        except PipelineError as error:
            # Refused is refused; only silence may pass.
            if "does not answer" not in str(error):
                raise
            time.sleep(SECONDS_BETWEEN_LOOKS)
    return backend.get_run(run_id)


def _show(run: Any, shown: set[str], console: Any, status: Any) -> None:
    steps = [task for task in _tasks(run) if _is_step(task)]
    for task in steps:
        if task.state in _FINISHED and task.task_id not in shown:
            shown.add(task.task_id)
            console.print(f"{_FINISHED[task.state]} {task.display_name} [dim]{_seconds(task)}[/dim]", highlight=False)
    running = sorted({str(task.display_name) for task in steps if task.state == "RUNNING"})
    status.update(", ".join(running) or "between two steps")


def _tasks(run: Any) -> list[Any]:
    details = run.run_details
    return list(details.task_details or ()) if details else []


def _is_step(task: Any) -> bool:
    return task.display_name in STEPS


def _seconds(task: Any) -> str:
    if not (task.start_time and task.end_time):
        return ""
    return f"{max(0.0, (task.end_time - task.start_time).total_seconds()):.0f} s"


def _reason(task: Any, by_key: Mapping[str, Any]) -> str:
    """The message of the deepest failed task below this one, else its own."""
    for child in _children(task, by_key):
        if child.state == "FAILED" and (found := _reason(child, by_key)):
            return found
    return _message(task)


def _children(task: Any, by_key: Mapping[str, Any]) -> Iterator[Any]:
    for child in task.child_tasks or ():
        found = by_key.get(child.task_id or "") or by_key.get(child.pod_name or "")
        if found is not None and found is not task:
            yield found


def _message(task: Any) -> str:
    return " ".join(str(task.error.message).split()) if task.error and task.error.message else ""
