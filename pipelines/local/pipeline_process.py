"""Runs the pipeline in a child process and shows its output as progress.

The whole output goes to FOLDER/run.log. Nothing is interpreted but the lines in which kfp says that a task
begins or ends, and the steps' own progress lines ('grpo 12/40 reward 0.61').
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from conf_profile.errors import (
    LostPromotionError,
    MalformedAnswersError,
    PipelineError,
    RegistryConflictError,
    UnreadableTeacherError,
)
from conf_profile.files import write_text
from conf_profile.processes import process_family
from conf_profile.processes.process_family import ProcessFamily
from conf_profile.source import source_hash
from pipelines.local.step_failure import StepFailure

COLOUR = re.compile(r"\x1b\[\d+m")
_BEGIN = re.compile(r"Executing task '([\w-]+)'")
_END = re.compile(r"Task '([\w-]+)' finished with status (\w+)$")
_PROGRESS = re.compile(r"^\s*(?P<task>[a-z]+(?: \d+)?) (?P<done>\d+)/(?P<total>\d+).*$")
_KINDS = {RegistryConflictError.__name__: LostPromotionError, MalformedAnswersError.__name__: UnreadableTeacherError}
"""Errors of steps that whoever starts the pipeline deals with, and what they are there."""

STEPS_CODE = "pipelines.training"
"""The module that imports every step."""


@dataclass(frozen=True)
class FinishedPipeline:
    """A pipeline that ended well."""

    artefacts: Mapping[str, str]
    seconds: Mapping[str, float]
    peak_rss_mib: float


@dataclass
class _OutputReader:
    """What the output has told so far."""

    seconds_file: Path
    seconds: dict[str, float]
    finished: set[str] = field(default_factory=set)
    begun: dict[str, float] = field(default_factory=dict)
    failure: StepFailure = field(default_factory=StepFailure)
    current: str = ""
    shown: dict[str, int] = field(default_factory=dict)


def run(
    arguments: Mapping[str, Any], folder: Path, console: Any, steps: Sequence[str], until: str = ""
) -> FinishedPipeline:
    """Runs the pipeline, which has these steps, to its end or up to and with the step `until`.

    PipelineError carries the failed step's own message; LostPromotionError and UnreadableTeacherError are such.
    """
    workspace = folder / "workspace"
    arguments_file, outputs_file = workspace / "arguments.json", workspace / "outputs.json"
    write_text(arguments_file, json.dumps(arguments))
    outputs_file.unlink(missing_ok=True)
    environment = {**os.environ, "CONF_PROFILE_IMAGE": local_image(), "PYTHONUNBUFFERED": "1"}
    command = [sys.executable, "-m", "pipelines.local", str(arguments_file), str(outputs_file), str(folder), until]
    process = process_family.start_guarded(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment, cwd=folder
    ).process
    family = ProcessFamily(process.pid)
    memory = _MemoryWatch(family)
    threading.Thread(target=_end_orphans, args=(process, family), daemon=True).start()
    try:
        watch = _follow(process, folder / "run.log", workspace / "seconds.json", console, len(steps))
        status = process.wait()
    finally:
        # Steps are grandchildren: whatever is left of them ends with us.
        process_family.end([family])
        process.wait()
        memory.stop()
    if status or not outputs_file.is_file():
        raise _failure(watch, folder)
    artefacts: dict[str, str] = json.loads(outputs_file.read_text(encoding="utf-8"))
    return FinishedPipeline(artefacts, watch.seconds, memory.peak_mib)


def local_image() -> str:
    """The image name that local runs put into KFP's cache key. kfp wants the word 'python' in it."""
    return f"conf-profile/python:local-{source_hash(STEPS_CODE)}"


def _end_orphans(process: subprocess.Popen[str], family: ProcessFamily) -> None:
    """A step that outlives the guard would hold our end of the output, and go on asking the teacher."""
    process.wait()
    process_family.end([family])


def _read_seconds(path: Path) -> dict[str, float]:
    """Seconds of each step when it last ran: one that is cached now keeps its figure."""
    remembered: dict[str, float] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return remembered


def _follow(process: subprocess.Popen[str], log: Path, seconds: Path, console: Any, steps: int) -> _OutputReader:
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    watch = _OutputReader(seconds, _read_seconds(seconds))
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[detail]}", markup=False),
    )
    with log.open("w", encoding="utf-8") as out, Progress(*columns, console=console) as bar:
        task = bar.add_task("starting", total=steps, detail="")
        assert process.stdout is not None
        for line in process.stdout:
            out.write(line)
            out.flush()
            _read(COLOUR.sub("", line.rstrip()), watch, bar, task, console)
    return watch


def _read(line: str, watch: _OutputReader, bar: Any, task: Any, console: Any) -> None:
    watch.failure.read(line)
    if match := _BEGIN.search(line):
        watch.current, watch.shown = match[1], {}
        watch.begun.setdefault(match[1], time.monotonic())
        bar.update(task, description=match[1], detail="")
    elif match := _END.search(line):
        _end(match[1], match[2] == "SUCCESS", watch, bar, task, console)
    elif match := _PROGRESS.match(line):
        bar.update(task, detail=match[0].strip())
        if not console.is_terminal:
            _print_every_tenth(match, watch, console)


def _end(step: str, succeeded: bool, watch: _OutputReader, bar: Any, task: Any, console: Any) -> None:
    if step not in watch.begun:
        return
    seconds = time.monotonic() - watch.begun[step]
    if succeeded:
        bar.update(task, advance=int(step not in watch.finished))
        watch.finished.add(step)
        watch.seconds[step] = round(seconds, 2)
        write_text(watch.seconds_file, json.dumps(watch.seconds))
    mark = "[green]✓[/green]" if succeeded else "[red]✗[/red]"
    console.print(f"{mark} {step} [dim]{seconds:.1f} s[/dim]", highlight=False)


def _print_every_tenth(match: re.Match[str], watch: _OutputReader, console: Any) -> None:
    tenth = 10 * int(match["done"]) // max(1, int(match["total"]))
    if tenth > watch.shown.get(match["task"], -1):
        watch.shown[match["task"]] = tenth
        console.print(f"  {match[0].strip()}", highlight=False, soft_wrap=True)


def _failure(watch: _OutputReader, folder: Path) -> PipelineError:
    where = f"The whole output is in {folder / 'run.log'}; run again to continue."
    kind = _KINDS.get(watch.failure.kind, PipelineError)
    return kind(f"step {watch.current or 'start'!r} failed: {watch.failure.reason}\n{where}")


class _MemoryWatch:
    """Samples the resident memory of a process and all that it started, once a second."""

    def __init__(self, family: ProcessFamily) -> None:
        self.peak_mib = 0.0
        self._family = family
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._stopped.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stopped.wait(1.0):
            self.peak_mib = max(self.peak_mib, self._family.resident_mib())
