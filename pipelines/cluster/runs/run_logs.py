"""The end of a step's log, from the run's root or from KFP's API, and the reason of a failure in it.

Nothing that a terminal would take for a command is passed on, and no secret that this process knows.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial

from conf_profile.errors import ConfProfileError
from pipelines.cluster.kfp_backend import Backend
from pipelines.cluster.kfp_connection import token
from pipelines.cluster.runs.run_root import LogObject, RunRoot, StepFolder
from pipelines.cluster.runs.run_steps import Step

LAST_BYTES = 64 << 10
_SECRET_NAME = re.compile(r"(?i)(?:secret|token|password|api_?key)(?!.*(?:file|path|dir)$)")
"""Of an environment variable; the path of a secret is none."""
_LEAST_SECRET = 8
"""A shorter value would blot out words."""
_CONTROL = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]|[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_CREDENTIAL = re.compile(
    r"(?i)\b(?:bearer|basic)\s+[\w.~+/=-]{8,}|(?<=://)[^/\s:@]+:[^/\s@]+(?=@)|\bsk-[\w-]{16,}"
    r"|(?<=api_key=)[^\s,&]{8,}|(?<=password=)[^\s,&]{8,}|(?<=access_key=)[^\s,&]{8,}"
)
_EXCEPTION = re.compile(r"^\s*((?:\w+\.)*\w*(?:Error|Exception|Interrupt|SystemExit)\w*(?:: .*)?)$")
_EXIT_STATUS = re.compile(r"exit status (\d+)|signal: (killed)")


@dataclass(frozen=True)
class StepLog:
    """The end of a log and where it is; `text` is empty where it could not be read, and `notes` say why."""

    text: str
    source: str
    notes: tuple[str, ...] = ()

    def last_lines(self, count: int) -> list[str]:
        """The last lines that are not empty."""
        return [line for line in self.text.splitlines() if line.strip()][-count:]


def read_log(backend: Backend, run_id: str, step: Step, root: RunRoot | None, folder: StepFolder | None) -> StepLog:
    """The log of a step's last execution: the artefact, else what KFP's API gives for one of the step's nodes."""
    log = folder.logs[0] if folder and folder.logs else None
    sources: list[Callable[[], StepLog]] = [partial(_artefact, root, log)] if root and log else []
    sources += [partial(_node, backend, run_id, node) for node in step.nodes]
    if root and log and not log.alone and step.state == "FAILED":
        # That is the log of another shard, or of an earlier try, which went well.
        sources.append(sources.pop(0))
    notes: list[str] = []
    for source in sources:
        try:
            found = source()
        except ConfProfileError as error:
            notes.append(str(error))
            continue
        if found.text.strip():
            return replace(found, notes=tuple(notes))
    return StepLog("", "", tuple(dict.fromkeys(notes)))


def reason(text: str) -> str:
    """The last exception that a log tells of, in one line; else what the launcher says of the exit; else empty."""
    lines = text.splitlines()
    for line in reversed(lines):
        if match := _EXCEPTION.match(line):
            return match[1]
    for line in reversed(lines):
        if match := _EXIT_STATUS.search(line):
            killed = match[2] or match[1] == "137"
            return "killed, most likely for memory: raise limits.memory of the step" if killed else match[0]
    return ""


def _artefact(root: RunRoot, log: LogObject) -> StepLog:
    return StepLog(_clean(root.read_end(log, LAST_BYTES)), root.log_address(log))


def _node(backend: Backend, run_id: str, node: str) -> StepLog:
    text = _clean(backend.node_log(run_id, node, LAST_BYTES))
    return StepLog(text, f"{backend.endpoint}/apis/v1alpha1/runs/{run_id}/nodes/{node}/log")


def _clean(raw: bytes) -> str:
    text = _CONTROL.sub("", raw.decode("utf-8", errors="replace"))
    for secret in _known_secrets(os.environ):
        text = text.replace(secret, "***")
    return _CREDENTIAL.sub("***", text)


def _known_secrets(environment: Mapping[str, str]) -> list[str]:
    named = [value for name, value in environment.items() if _SECRET_NAME.search(name)]
    return [secret for secret in (*named, token()) if len(secret) >= _LEAST_SECRET]
