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

from components.steps import steps_of
from conf_profile.config import RunConfig, StorageConfig
from conf_profile.data.build import build_in_run_folder
from conf_profile.erasure import retention
from conf_profile.errors import ConfigError
from conf_profile.registry.registry import ANY_CHAMPION
from conf_profile.storage import conditional_writes, configuration_file, object_store
from conf_profile.storage.object_store import ObjectStore
from pipelines import arguments, cluster_data, node_status
from pipelines.cluster.kfp_backend import Backend, RunSettings, Version
from pipelines.compile import compile_to
from pipelines.preflight import PreflightRequest
from pipelines.resources import Resources

PIPELINE = "conf-profile-training"
LARGEST_ARGUMENTS = 60_000
"""Bytes of all arguments together. A step's inputs are one argument of a command line; 64 KiB pass, 200 KiB do not."""


@dataclass(frozen=True)
class Submission:
    """What is to run, and where. `data_uri` empty: the configured data set is uploaded first.

    `labels_uri` is the folder of labels and ceiling, empty where it is `data_uri` too.
    """

    config: RunConfig
    resources: Resources
    image: str
    folder: Path
    data_uri: str
    schedule: str
    labels_uri: str = ""
    namespace: str | None = None
    service_account: str | None = None

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
    uses_vllm: Mapping[str, tuple[str, bool]] = {
        "synthesis": ("teacher.kind vllm", teacher.kind == "vllm"),
        "rejection": ("reference.use_vllm", config.reference.use_vllm and config.rejection.rounds > 0),
        "reference": ("reference.use_vllm", config.reference.use_vllm),
        "grpo": ("grpo.use_vllm", config.grpo.use_vllm and config.grpo.steps > 0),
    }
    for step, (key, wanted) in uses_vllm.items():
        if wanted and not resources.pipelines.steps[step].gpus:
            raise ConfigError(f"{key} needs a GPU: pipelines.steps.{step}.gpus is 0; give it a pool with GPUs")


def upload_pipeline(backend: Backend, submission: Submission, run: Mapping[str, Any] | None = None) -> Version:
    """Compiles and uploads the pipeline; a version is named by the hash of its YAML.

    `run` holds the arguments of the run that follows; ConfigError where it would not fit into Argo's object. A run
    that is scheduled, or started from KFP's own page, reads data that may have changed under the same addresses, so a
    version for these takes nothing from the cache.
    """
    caching = run is not None and not submission.schedule
    defaults = cluster_data.default_arguments(submission.config, submission.data_uri, submission.labels_uri, caching)
    with tempfile.TemporaryDirectory() as folder:
        package = Path(folder) / "pipeline.yaml"
        compile_to(package, submission.config, submission.resources, submission.image, caching, defaults)
        if run is not None:
            node_status.require_fits(package, run)
        version = hashlib.sha256(package.read_bytes()).hexdigest()[:16]
        return backend.upload(package, PIPELINE, version)


def run_arguments(submission: Submission) -> dict[str, Any]:
    """Every argument of the pipeline; uploads the configuration, and the data set where no place is given."""
    config = submission.config
    storage, store = config.storage, _store(config.storage)
    if submission.schedule and not submission.data_uri and submission.resources.pipelines.retention_days:
        raise ConfigError(
            "--schedule without --data-uri would go on reading a data set that is uploaded now, and "
            "pipelines.retentionDays lets that expire; name the place of your tables with --data-uri"
        )
    period = retention.period(submission.resources.pipelines.retention_days, datetime.now(UTC))
    if submission.data_uri:
        inputs = cluster_data.read_inputs(
            submission.data_uri,
            submission.labels_uri,
            config,
            scheduled=bool(submission.schedule),
            guarded=bool(submission.resources.pipelines.labels_secret.name),
            period=period,
        )
    else:
        inputs = cluster_data.upload(build_in_run_folder(submission.folder, config), config, store, period)
    key = configuration_file.upload(config, store)
    configuration = cluster_data.address_of(storage, key)
    values = arguments.pipeline_arguments(config, inputs, ANY_CHAMPION, cluster_data.places_of(storage, configuration))
    size = len(json.dumps(values).encode())
    if size > LARGEST_ARGUMENTS:
        raise ConfigError(
            f"the configuration takes {size} bytes as arguments of the pipeline, and KFP passes {LARGEST_ARGUMENTS} "
            "at most; shorten what is long in it (teacher.engine_arguments, addresses)"
        )
    return values


def preflight_request(
    submission: Submission, values: Mapping[str, Any], kfp_endpoint: str, has_steps_keys: bool
) -> PreflightRequest:
    """What the checks before a run are asked; `values` are the run's arguments, empty where no run is started."""
    declared = submission.resources

    def addresses(*names: str) -> dict[str, str]:
        return {name: values.get(f"{name}_uri", "") for name in names}

    return PreflightRequest(
        image=submission.image,
        namespace=submission.namespace,
        service_account=submission.service_account,
        resources=declared,
        steps=tuple(step.name for step in steps_of(submission.config)),
        addresses=addresses("behaviour", "demographics", "task", "lexicon"),
        labels_addresses=addresses("labels", "ceiling"),
        storage=submission.config.storage,
        labels_secret=declared.pipelines.labels_secret,
        kfp_endpoint=kfp_endpoint,
        makes_bucket=True,
        starts_run=bool(values),
        allows_unjudged=submission.config.gate.unjudged == "allow",
        has_steps_keys=has_steps_keys,
    )


def start(backend: Backend, submission: Submission, values: Mapping[str, Any], settings: RunSettings) -> str:
    """Uploads the pipeline and starts a run with these arguments; its id."""
    version = upload_pipeline(backend, submission, values)
    name = f"{submission.name} {datetime.now(UTC):%Y-%m-%d %H:%M:%S}"
    return backend.run(version, name, values, settings)


def _store(storage: StorageConfig) -> ObjectStore:
    store = object_store.connect(storage.bucket, storage.endpoint, storage.region, storage.encryption)
    store.ensure_bucket(create=True)
    # Before anything is paid for: else the promotion would find it out.
    conditional_writes.require(store, configuration_file.FOLDER)
    return store
