"""Waits for a run on a KFP backend and tells how its steps do, what waits and why, and how a failed step ended."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from conf_profile.errors import BackendUnreachableError, PipelineError
from pipelines.cluster.kfp_backend import ENDED_STATES, Backend
from pipelines.cluster.runs.run_report import LINES_OF_LOG, Failure, RunReader
from pipelines.cluster.runs.run_steps import FINAL_STATES, Step, pending_names, step_name, steps_of

SECONDS_BETWEEN_LOOKS = 5.0
LOOKS_WITHOUT_ANSWER = 12
"""In a row: a port-forward that drops or an API server that restarts is no reason to give up a run of hours."""
LOOKS_AFTER_THE_END = 3
"""The nodes lag behind the run: a failed run may show its failed step some seconds later."""
PENDING_SECONDS = 60.0
SECONDS_BETWEEN_QUESTIONS = 30.0
"""To the cluster, while something waits."""
_MARKS = {"FAILED": "[red]✗[/red]", "CANCELED": "[red]✗[/red]"}
_DONE_MARK = "[green]✓[/green]"


@dataclass
class _ShownProgress:
    """What has been shown: steps by their key, their names, what waits since when, and with which reasons."""

    keys: set[str] = field(default_factory=set)
    names: set[str] = field(default_factory=set)
    pending: dict[str, float] = field(default_factory=dict)
    reasons: set[tuple[str, str]] = field(default_factory=set)
    asked: float | None = None
    nodes: bool = False


def wait(reader: RunReader, console: Any) -> None:
    """Returns when the run has succeeded. Else shows the end of the failed steps' logs and raises PipelineError."""
    told = _ShownProgress()
    with console.status("waiting for the first step") as status:
        while (run := _look(reader)).state not in ENDED_STATES:
            _show(reader, run, told, console, status)
            time.sleep(SECONDS_BETWEEN_LOOKS)
        report = reader.report(_wait_until_settled(reader, run))
        _show_steps(list(report.steps), told, console)
    unread = any(not failure.log.text for failure in report.failures)
    for note in report.notes if report.state == "SUCCEEDED" or unread else ():
        _print(console, note)
    if report.state != "SUCCEEDED":
        for failure in report.failures:
            show_log(failure, console)
        raise PipelineError(f"{report.why}\nThe run and the logs of its steps: {report.link}")


def show_log(failure: Failure, console: Any) -> None:
    """The last lines of a failed step's log, or why they cannot be shown."""
    lines = failure.log.last_lines(LINES_OF_LOG)
    if lines:
        _print(console, f"the end of the log of {failure.step} ({failure.log.source}):")
    for line in lines:
        _print(console, f"    {line}")
    for note in () if lines else failure.log.notes:
        _print(console, f"the log of {failure.step} could not be read: {note}")


def handle_interrupt(backend: Backend, run_id: str, cancel: bool) -> str:
    """What is said after Ctrl-C; with `cancel` the run is stopped first."""
    where = f"--endpoint {backend.endpoint}" + (f" --namespace {backend.namespace}" if backend.namespace else "")
    show = f"conf-profile runs show {run_id} {where}"
    if cancel:
        backend.terminate(run_id)
        return f"interrupted: KFP is stopping run {run_id}; its state: {show}"
    stop = f"conf-profile runs stop {run_id} {where}"
    return f"interrupted: run {run_id} goes on. Its state: {show}\nTo stop it: {stop}"


def _look(reader: RunReader) -> Any:
    for _ in range(LOOKS_WITHOUT_ANSWER - 1):
        try:
            return reader.backend.get_run(reader.run_id)
        except BackendUnreachableError:
            # Refused is refused; only silence may pass.
            time.sleep(SECONDS_BETWEEN_LOOKS)
    return reader.backend.get_run(reader.run_id)


def _wait_until_settled(reader: RunReader, run: Any) -> Any:
    for _ in range(LOOKS_AFTER_THE_END):
        steps = steps_of(run)
        if run.state != "FAILED" or not steps or any(step.state == "FAILED" for step in steps):
            return run
        time.sleep(SECONDS_BETWEEN_LOOKS)
        run = _look(reader)
    return run


def _show(reader: RunReader, run: Any, told: _ShownProgress, console: Any, status: Any) -> None:
    steps = reader.steps(run, vanished=told.nodes)
    told.nodes = told.nodes or bool(steps)
    _show_steps(steps, told, console)
    running = sorted({step.name for step in steps if step.state == "RUNNING"})
    vanished = told.nodes and not any(step.key for step in steps)
    status.update(", ".join(running) or ("KFP shows no nodes any more" if vanished else "between two steps"))
    _show_pending(reader, run, told, console)


def _show_steps(steps: list[Step], told: _ShownProgress, console: Any) -> None:
    before = frozenset(told.names)
    for step in steps:
        # A step without a node may have been shown by its node, and the other way round.
        if (
            step.state not in FINAL_STATES
            or (step.key or step.name) in told.keys
            or (not step.key and step.name in before)
        ):
            continue
        told.keys.add(step.key or step.name)
        told.names.add(step.name)
        console.print(f"{_MARKS.get(step.state, _DONE_MARK)} {step.name}[dim]{_detail(step)}[/dim]", highlight=False)


def _detail(step: Step) -> str:
    seconds = "" if step.seconds is None else f" {step.seconds:.0f} s"
    return f"{seconds} (from the cache)" if step.state == "CACHED" else seconds


def _show_pending(reader: RunReader, run: Any, told: _ShownProgress, console: Any) -> None:
    names = pending_names(run)
    now = time.monotonic()
    told.pending = {name: told.pending.get(name, now) for name in names}
    overdue = sorted(name for name, since in told.pending.items() if now - since >= PENDING_SECONDS)
    if not overdue or (told.asked is not None and now - told.asked < SECONDS_BETWEEN_QUESTIONS):
        return
    told.asked = now
    reasons, missing = _pending_reasons(reader)
    for name in overdue:
        reason = reasons.get(name) or _reason_of_another(name, reasons) or missing
        if (name, reason) not in told.reasons:
            told.reasons.add((name, reason))
            _print(console, f"{name}: pending for {now - told.pending[name]:.0f} s: {reason}")


def _pending_reasons(reader: RunReader) -> tuple[dict[str, str], str]:
    """The reasons that the cluster gives, and what to say of the rest."""
    try:
        return reader.cluster.pending_reasons(reader.run_id), "the cluster gives no reason"
    except PipelineError as error:
        return {}, f"the cluster was not asked: {error}"


def _reason_of_another(name: str, reasons: Mapping[str, str]) -> str:
    """Pods that belong to no step are known by their own names, which KFP does not tell."""
    return "" if step_name(name) else next((text for pod, text in reasons.items() if not step_name(pod)), "")


def _print(console: Any, text: str) -> None:
    """A log is text: brackets in it are no markup."""
    console.print(text, markup=False, highlight=False, soft_wrap=True)
