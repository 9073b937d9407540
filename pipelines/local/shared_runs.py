"""Runs of the pipeline in this process that share a folder with other runs, of other processes too.

kfp's local cache knows a task by its component, image and arguments, an artefact among them by its address. Two
processes that want the same task at once both miss it, and both do it; and what was made from the copy that the cache
then forgets is never found again. So a run goes through its steps one by one, each under a lock that is named by all
that the pipeline up to that step is given: who comes second waits, and finds the step done.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from components.steps import StepDeclaration
from conf_profile.errors import PipelineError
from conf_profile.students import checkpoint_folders
from pipelines.local import runner
from pipelines.local.pipeline_process import COLOUR, local_image
from pipelines.local.step_failure import StepFailure

LOG = "steps.log"


@dataclass(frozen=True)
class SharedRuns:
    """The runs of this process in a folder; `finished` names what it has seen done there."""

    folder: Path
    finished: set[str] = field(default_factory=set)

    def run(
        self,
        arguments: Mapping[str, Any],
        steps: Sequence[StepDeclaration],
        outputs: Mapping[str, Any],
        untrained: bool = False,
    ) -> dict[str, Any]:
        """Runs the pipeline of these steps; see `training_pipeline` for what is given and `runner.run` for the result.

        PipelineError carries the failed step's own message.
        """
        self._prepare()
        from pipelines.placement import Placement
        from pipelines.training import training_pipeline

        image = local_image()
        placement = Placement(lambda task: task.set_container_image(image), 0)
        found: dict[str, Any] = {}
        for end, last in enumerate(steps, 1):
            pipeline = training_pipeline(arguments, steps[:end], placement, outputs, untrained)
            name = f"{last.name}-{identity(pipeline, arguments)}"
            if name not in self.finished or end == len(steps):
                found = self._run_alone(name, last, pipeline, arguments)
                self.finished.add(name)
        return found

    def _prepare(self) -> None:
        if self.finished:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        os.environ[checkpoint_folders.DISCARD] = "1"
        if sys.dont_write_bytecode:
            # Every task would compile all that it imports anew, which takes longer than many a task.
            os.environ["PYTHONPYCACHEPREFIX"] = str(self.folder / "bytecode")
            os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
        runner.prepare()

    def _run_alone(
        self, name: str, step: StepDeclaration, pipeline: Any, arguments: Mapping[str, Any]
    ) -> dict[str, Any]:
        from filelock import FileLock

        locks = self.folder / "locks"
        locks.mkdir(exist_ok=True)
        with FileLock(locks / f"{name}.lock"), _log_output(self.folder / LOG) as failure:
            try:
                # kfp names a run by the time at which it starts, and two can start at once.
                return runner.run(pipeline, arguments, self.folder, str(os.getpid()))
            except RuntimeError as error:
                raise PipelineError(
                    f"step {step.name!r} failed: {failure.reason}\nThe whole output is in {self.folder / LOG}; "
                    "run again to continue."
                ) from error


def identity(pipeline: Any, arguments: Mapping[str, Any]) -> str:
    """A hash of all that the pipeline's tasks are given: the parameters' values, and whose outputs they read."""
    tasks = pipeline.pipeline_spec.root.dag.tasks.items()
    given = [
        (task, name, arguments.get(source.component_input_parameter, str(source)))
        for task, spec in tasks
        for name, source in spec.inputs.parameters.items()
    ]
    read = [(task, name, str(source)) for task, spec in tasks for name, source in spec.inputs.artifacts.items()]
    return hashlib.sha256(json.dumps([sorted(given, key=str), sorted(read)]).encode()).hexdigest()[:16]


class _Tee(io.TextIOBase):
    """Writes to the log, and looks for a failure in it."""

    def __init__(self, log: IO[str]) -> None:
        self.failure = StepFailure()
        self._log, self._line = log, ""

    def write(self, text: str) -> int:
        self._log.write(text)
        self._log.flush()
        *lines, self._line = (self._line + text).split("\n")
        for line in lines:
            self.failure.read(COLOUR.sub("", line.rstrip()))
        return len(text)


@contextmanager
def _log_output(path: Path) -> Iterator[StepFailure]:
    """What kfp and the tasks print goes to a file: an experiment has hundreds of trainings."""
    with path.open("a", encoding="utf-8") as log:
        tee = _Tee(log)
        with redirect_stdout(tee), redirect_stderr(tee):
            yield tee.failure
