"""What a run has left in its pipeline root: the folders of its steps, and their logs.

KFP's driver and launcher write `ROOT/PIPELINE/RUN/STEP/SALT/ARTEFACT`, one salt for each execution; the log is the
artefact `executor-logs`. It is read with the S3 settings of whoever asks, which may be refused or lead elsewhere.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs, urlsplit

from conf_profile.errors import PipelineError
from conf_profile.storage import object_address, object_store
from conf_profile.storage.object_errors import explain_errors
from conf_profile.storage.object_store import ObjectStore
from pipelines.cluster.runs.run_steps import step_name
from pipelines.training import PIPELINE_NAME

LOG = "executor-logs"
_SCHEMES = ("s3", "minio")
"""KFP writes the store that it brings along as minio://; it speaks S3."""
_ATTEMPTS = 2


@dataclass(frozen=True)
class LogObject:
    """The log of one execution. `alone`: it has left no other artefact."""

    key: str
    size: int
    modified: float
    alone: bool


@dataclass(frozen=True)
class StepFolder:
    """What one step has left: the logs of its executions, those alone first, then the newest; `without_outputs` counts
    executions that have left nothing but a log."""

    logs: tuple[LogObject, ...]
    executions: int
    without_outputs: int

    @property
    def complete(self) -> bool:
        return self.executions > 0 and not self.without_outputs


class RunRoot:
    """One run's folder. Every method raises RegistryError where the store refuses or does not answer."""

    def __init__(self, store: ObjectStore, prefix: str) -> None:
        self._store, self.prefix = store, prefix

    @property
    def address(self) -> str:
        """s3://BUCKET/PREFIX."""
        return f"s3://{self._store.bucket}/{self.prefix}"

    def steps(self) -> dict[str, StepFolder]:
        """Step -> what lies there."""
        executions: dict[str, dict[str, list[dict[str, Any]]]] = defaultdict(lambda: defaultdict(list))
        for entry in self._entries():
            task, _, rest = str(entry["Key"]).removeprefix(self.prefix).partition("/")
            if name := step_name(task):
                salt = rest.partition("/")[0]
                # Backends before the salt have the artefacts directly below the step.
                executions[name]["" if salt == LOG or "/" not in rest else salt].append(entry)
        return {name: _folder(list(found.values())) for name, found in executions.items()}

    def read_end(self, log: LogObject, last_bytes: int) -> bytes:
        """The end of a log."""
        if not log.size:
            return b""
        wanted = f"bytes={max(0, log.size - last_bytes)}-{log.size - 1}"
        with explain_errors(f"read {log.key}", self.address):
            answer = self._store.client.get_object(Bucket=self._store.bucket, Key=log.key, Range=wanted)
            return bytes(answer["Body"].read())

    def log_address(self, log: LogObject) -> str:
        """s3://BUCKET/KEY."""
        return f"s3://{self._store.bucket}/{log.key}"

    def _entries(self) -> list[dict[str, Any]]:
        with explain_errors(f"list {self.prefix}", f"bucket {self._store.bucket!r} at {self._store.endpoint}"):
            pages = self._store.client.get_paginator("list_objects_v2").paginate(
                Bucket=self._store.bucket, Prefix=self.prefix
            )
            return [entry for page in pages for entry in page.get("Contents", ())]


def open_root(root: str, run_id: str) -> RunRoot:
    """The folder of a run below a pipeline root, such as s3://BUCKET/pipelines.

    The endpoint is that of the environment, else the one that KFP's address names. PipelineError for a root of
    another kind, RegistryError where no endpoint is known.
    """
    parts = urlsplit(root)
    if parts.scheme not in _SCHEMES or not parts.netloc:
        raise PipelineError(f"the pipeline root {root!r} is not in S3, so it cannot be read from here")
    query = {name: values[-1] for name, values in parse_qs(parts.query).items()}
    region = object_address.find_region(query.get("region"))
    client = object_store.s3_client(_endpoint(query), region, attempts=_ATTEMPTS)
    prefix = "/".join(filter(None, [parts.path.strip("/"), PIPELINE_NAME, run_id, ""]))
    return RunRoot(ObjectStore(client, parts.netloc), f"{prefix}/")


def _endpoint(query: Mapping[str, str]) -> str:
    named = query.get("endpoint", "")
    if named and "://" not in named:
        named = f"{'http' if query.get('disableSSL') == 'true' else 'https'}://{named}"
    # Whoever asks may reach the store by another address than the cluster.
    return object_address.find_endpoint(object_address.environment_endpoint() or named)


def _folder(executions: list[list[dict[str, Any]]]) -> StepFolder:
    logs = [
        LogObject(str(entry["Key"]), int(entry["Size"]), entry["LastModified"].timestamp(), all(map(_is_log, entries)))
        for entries in executions
        for entry in entries
        if _is_log(entry)
    ]
    without = sum(all(map(_is_log, entries)) for entries in executions)
    return StepFolder(tuple(sorted(logs, key=lambda log: (not log.alone, -log.modified))), len(executions), without)


def _is_log(entry: Mapping[str, Any]) -> bool:
    return str(entry["Key"]).rsplit("/", 1)[-1] == LOG
