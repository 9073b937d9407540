"""The state of one run on KFP: its steps, why it failed, and what could not be found out.

KFP's nodes come first. Where there are none any more, the compiled pipeline and the run's pipeline root tell which
steps have ended; a report never fails because nodes have vanished.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from conf_profile.errors import ConfProfileError, PipelineError
from pipelines.cluster.kfp_backend import ENDED_STATES, Backend
from pipelines.cluster.runs import run_logs
from pipelines.cluster.runs.run_cluster import RunCluster
from pipelines.cluster.runs.run_logs import StepLog
from pipelines.cluster.runs.run_root import RunRoot, StepFolder, open_root
from pipelines.cluster.runs.run_steps import (
    FINAL_STATES,
    STEPS,
    CompiledSteps,
    Step,
    compiled_steps,
    other_failures,
    steps_of,
)

LINES_OF_LOG = 20
"""That are shown of a failed step."""
NO_NODES = "KFP shows no nodes of this run any more, which it does when their status exceeds 1 MiB"
_LOST_RUN = (
    "its recurring run was deleted, and the run with it: KFP lists it as it was, and nothing of it runs any more"
)


@dataclass(frozen=True)
class Failure:
    """A failed step (or another node), the reason in one line, and the end of its log."""

    step: str
    reason: str
    log: StepLog

    def describe(self) -> dict[str, Any]:
        """The failure as JSON has it."""
        log = {
            "source": self.log.source,
            "last_lines": self.log.last_lines(LINES_OF_LOG),
            "notes": list(self.log.notes),
        }
        return {"step": self.step, "reason": self.reason, "log": log}


@dataclass(frozen=True)
class RunReport:
    """A run as it is now. `notes` say what is not known, and why."""

    run_id: str
    name: str
    state: str
    created_at: str
    seconds: float | None
    steps: tuple[Step, ...]
    failures: tuple[Failure, ...]
    notes: tuple[str, ...]
    link: str

    @property
    def why(self) -> str:
        """Why it has not succeeded, in one line for each failed step; empty for a run that goes well."""
        if self.state == "CANCELED":
            return "the run was cancelled"
        if self.state in ("FAILED", "SKIPPED"):
            told = [f"step {each.step!r} failed: {each.reason}" for each in self.failures]
            return "; ".join(dict.fromkeys(told)) or f"the run ended as {self.state}: {'; '.join(self.notes)}"
        return ""

    def describe(self) -> dict[str, Any]:
        """The report as JSON has it."""
        return {
            "run_id": self.run_id, "name": self.name, "state": self.state, "created_at": self.created_at,
            "seconds": self.seconds, "link": self.link, "reason": self.why, "notes": list(self.notes),
            "steps": [{"name": step.name, "state": step.state, "seconds": step.seconds} for step in self.steps],
            "failures": [each.describe() for each in self.failures],
        }  # fmt: skip


class RunReader:
    """Reads one run again and again. `pipeline_root`: where its artefacts are, if neither run nor cluster tells."""

    def __init__(self, backend: Backend, cluster: RunCluster, run_id: str, pipeline_root: str = "") -> None:
        self.backend, self.cluster, self.run_id = backend, cluster, run_id
        self._given_root = pipeline_root
        self._root: RunRoot | None = None
        self._root_tried = False
        self._compiled: CompiledSteps | None = None
        self._notes: dict[str, None] = {}

    def steps(self, run: Any, vanished: bool) -> list[Step]:
        """The run's steps; `vanished`: KFP had shown nodes, or the run has ended, so that none means no more."""
        found = steps_of(run)
        if found or not vanished:
            # The nodes lag behind the run.
            ended = run.state == "SUCCEEDED"
            return [
                replace(step, state="SUCCEEDED") if ended and step.state not in FINAL_STATES else step for step in found
            ]
        self._note(NO_NODES)
        return self._steps_of_root(run)

    def report(self, run: Any) -> RunReport:
        """The run with its failures; reads logs of a failed run alone."""
        # A run that has just begun has no nodes either, but it has left nothing in its root.
        vanished = run.state in ENDED_STATES or bool(
            not steps_of(run) and run.state == "RUNNING" and self._folders(run)
        )
        steps = self.steps(run, vanished)
        failures = self._failures(run, steps) if run.state == "FAILED" else []
        if run.state == "FAILED" and not failures:
            self._note(_own_message(run) or "which step failed cannot be told from here; the run's page may show it")
        self._note_lost_run(run)
        return RunReport(
            self.run_id, str(run.display_name), str(run.state), run.created_at.isoformat() if run.created_at else "",
            _seconds(run), tuple(steps), tuple(failures), tuple(self._notes), self.backend.link(self.run_id),
        )  # fmt: skip

    def log(self, run: Any, name: str) -> StepLog:
        """The end of the log of the step of this name. PipelineError where the run has no such step."""
        steps = [step for step in self.steps(run, vanished=run.state in ENDED_STATES) if step.name == name]
        folder = self._folders(run).get(name)
        if not steps and folder is None:
            known = sorted({step.name for step in self.steps(run, vanished=True)})
            raise PipelineError(f"run {self.run_id} has no step {name!r} so far; it has {', '.join(known) or 'none'}")
        # Of a loop's steps the one that failed is asked for, else the last.
        step = next((step for step in steps if step.state == "FAILED"), steps[-1] if steps else Step(name, ""))
        return run_logs.read_log(self.backend, self.run_id, step, self._root_of(run), folder)

    def _failures(self, run: Any, steps: list[Step]) -> list[Failure]:
        failed = [step for step in steps if step.state == "FAILED"] or other_failures(run)
        folders = self._folders(run) if failed else {}
        return [self._failure(run, step, folders.get(step.name)) for step in failed]

    def _failure(self, run: Any, step: Step, folder: StepFolder | None) -> Failure:
        log = run_logs.read_log(self.backend, self.run_id, step, self._root_of(run), folder)
        unknown = "its log does not say why" if log.text else "its log could not be read"
        return Failure(step.name, run_logs.reason(log.text) or step.message or unknown, log)

    def _steps_of_root(self, run: Any) -> list[Step]:
        folders, compiled = self._folders(run), self._compiled_steps(run)
        if run.state == "SUCCEEDED":
            done = compiled.certain | folders.keys()
            return [Step(name, "SUCCEEDED") for name in STEPS if name in done]
        failed = self._failed_steps(run, folders, compiled) if run.state == "FAILED" else set()
        begun = [name for name in STEPS if name in folders]
        # More shards of the last step may be under way.
        open_end = set() if run.state in ENDED_STATES else set(begun[-1:])
        states = {
            name: "FAILED" if name in failed else "RUNNING" if name in open_end else "SUCCEEDED" for name in begun
        }
        return [Step(name, state) for name, state in states.items()]

    def _failed_steps(self, run: Any, folders: Mapping[str, StepFolder], compiled: CompiledSteps) -> set[str]:
        """Steps that have left a log without the artefacts that they owe, or a log that ends in an exception."""
        suspects = {name: folder for name, folder in folders.items() if not folder.complete}
        return {
            name
            for name, folder in suspects.items()
            if name in compiled.with_artefacts
            or run_logs.reason(
                run_logs.read_log(self.backend, self.run_id, Step(name, "FAILED"), self._root_of(run), folder).text
            )
        }

    def _folders(self, run: Any) -> dict[str, StepFolder]:
        root = self._root_of(run)
        if root is None:
            return {}
        try:
            return root.steps()
        except ConfProfileError as error:
            # Not asked again: a store that does not answer would hold up every look.
            self._root = None
            self._note(f"the run's artefacts cannot be listed from here: {error}")
            return {}

    def _root_of(self, run: Any) -> RunRoot | None:
        if not self._root_tried:
            self._root_tried = True
            try:
                self._root = open_root(self._root_address(run), self.run_id)
            except ConfProfileError as error:
                self._note(f"the run's artefacts cannot be listed from here: {error}")
        return self._root

    def _root_address(self, run: Any) -> str:
        settings = run.runtime_config
        if found := self._given_root or (settings.pipeline_root if settings else ""):
            return str(found)
        try:
            found = self.cluster.pipeline_root()
        except PipelineError as error:
            raise PipelineError(
                f"KFP does not tell its pipeline root; give it with --pipeline-root ({error})"
            ) from error
        if not found:
            raise PipelineError("KFP does not tell its pipeline root; give it with --pipeline-root")
        return found

    def _compiled_steps(self, run: Any) -> CompiledSteps:
        if self._compiled is None:
            try:
                self._compiled = compiled_steps(self.backend.pipeline_spec(run))
            except PipelineError as error:
                self._note(f"the compiled pipeline cannot be read: {error}")
                self._compiled = compiled_steps({})
        return self._compiled

    def _note_lost_run(self, run: Any) -> None:
        if (
            run.recurring_run_id
            and run.state not in ENDED_STATES
            and not self.backend.has_recurring_run(run.recurring_run_id)
        ):
            self._note(_LOST_RUN)

    def _note(self, text: str) -> None:
        self._notes.setdefault(text)


def _seconds(run: Any) -> float | None:
    if not (run.created_at and run.finished_at) or run.state not in ENDED_STATES:
        return None
    return max(0.0, float((run.finished_at - run.created_at).total_seconds()))


def _own_message(run: Any) -> str:
    return " ".join(str(run.error.message).split()) if run.error and run.error.message else ""
