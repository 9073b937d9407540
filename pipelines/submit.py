"""From a run's configuration to a run on a KFP backend; data and package are uploaded under their contents' names."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from conf_profile import object_store
from conf_profile.config import RunConfig, StorageConfig
from conf_profile.data.build import build_in
from conf_profile.errors import ConfigError
from conf_profile.object_store import ObjectStore
from conf_profile.registry import ANY_CHAMPION
from pipelines import arguments, cluster_data
from pipelines.compile import compile_to
from pipelines.kfp_backend import Backend, RunSettings, Version
from pipelines.resources import Resources, StepName

PIPELINE = "conf-profile-training"
ANSWERS = "answers"
LARGEST_ARGUMENTS = 60_000
"""Bytes of all arguments together. A step's inputs are one argument of a command line; 64 KiB pass, 200 KiB do not."""


@dataclass(frozen=True)
class Submission:
    """What is to run, and where. `data_uri` empty: the configured data set is uploaded first."""

    config: RunConfig
    resources: Resources
    image: str
    folder: Path
    data_uri: str
    schedule: str

    @property
    def name(self) -> str:
        storage = self.config.storage
        return f"{storage.bucket}/{storage.model} {self.config.data.name} {self.config.preset}"


def check(config: RunConfig, resources: Resources) -> None:
    """ConfigError where the configuration and the values do not fit each other."""
    teacher, secret = config.teacher, resources.pipelines.teacher_secret
    if teacher.kind == "openai" and secret.name and secret.env != teacher.api_key_env:
        raise ConfigError(
            f"the teacher's key is read from {teacher.api_key_env} (teacher.api_key_env), but "
            f"pipelines.teacherSecret.env is {secret.env}; make them the same"
        )
    uses_vllm: Mapping[StepName, tuple[str, bool]] = {
        "synthesis": ("teacher.kind vllm", teacher.kind == "vllm"),
        "rejection_sampling": ("reference.use_vllm", config.reference.use_vllm and config.rejection.rounds > 0),
        "freeze_reference": ("reference.use_vllm", config.reference.use_vllm),
        "grpo": ("grpo.use_vllm", config.grpo.use_vllm and config.grpo.steps > 0),
    }
    for step, (key, wanted) in uses_vllm.items():
        if wanted and not resources.pipelines.steps[step].gpus:
            raise ConfigError(f"{key} needs a GPU: pipelines.steps.{step}.gpus is 0; give it a pool with GPUs")


def upload_pipeline(backend: Backend, submission: Submission) -> Version:
    """Compiles and uploads the pipeline; a version is named by the hash of its YAML.

    A scheduled run reads data that may have changed under the same addresses, so its version takes nothing from the
    cache.
    """
    with tempfile.TemporaryDirectory() as folder:
        package = Path(folder) / "pipeline.yaml"
        compile_to(package, submission.resources, submission.image, caching=not submission.schedule)
        version = hashlib.sha256(package.read_bytes()).hexdigest()[:16]
        return backend.upload(package, PIPELINE, version)


def run_arguments(submission: Submission) -> dict[str, Any]:
    """Every argument of the pipeline; uploads the data set where no place is given."""
    config = submission.config
    store = _store(config.storage)
    if submission.data_uri:
        inputs = cluster_data.existing(submission.data_uri, config, bool(submission.schedule), store)
    else:
        inputs = cluster_data.upload(build_in(submission.folder, config), config, store)
    values = arguments.with_inputs(config, inputs, ANY_CHAMPION, "", answers_place(config.storage))
    size = len(json.dumps(values).encode())
    if size > LARGEST_ARGUMENTS:
        raise ConfigError(
            f"the configuration takes {size} bytes as arguments of the pipeline, and KFP passes {LARGEST_ARGUMENTS} "
            "at most; shorten what is long in it (teacher.engine_arguments, addresses)"
        )
    return values


def answers_place(storage: StorageConfig) -> str:
    """Where the teacher's answers are kept on a cluster: beside the models."""
    query = {"endpoint": storage.endpoint or "", "region": storage.region}
    wanted = {key: value for key, value in query.items() if value and value != object_store.REGION}
    place = f"s3://{storage.bucket}/{ANSWERS}/{storage.model}"
    return f"{place}?{urlencode(wanted)}" if wanted else place


def start(backend: Backend, submission: Submission, settings: RunSettings) -> str:
    """Uploads what is missing and starts the run; its id."""
    values = run_arguments(submission)
    version = upload_pipeline(backend, submission)
    name = f"{submission.name} {datetime.now(UTC):%Y-%m-%d %H:%M:%S}"
    return backend.run(version, name, values, settings)


def _store(storage: StorageConfig) -> ObjectStore:
    client = object_store.s3_client(object_store.find_endpoint(storage.endpoint), storage.region)
    store = ObjectStore(client, storage.bucket)
    store.ensure_bucket(create=True)
    return store
