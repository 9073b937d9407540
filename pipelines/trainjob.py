"""A training step over several machines: the manifest of a Kubeflow Trainer TrainJob (trainer.kubeflow.org/v1alpha1).

KFP gives a step one pod. For a student that one machine trains too slowly, the step's own function runs in a TrainJob
instead, on the artefacts of an earlier run and with the same resources a node. `runtimePatches` needs Trainer 2.2.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast, get_args

import yaml

from components.image import IMAGE
from conf_profile.config import DEFAULTS, RunConfig, Section, defaults_digest
from conf_profile.errors import ConfigError
from conf_profile.files import write_text
from conf_profile.storage.object_address import is_remote
from conf_profile.students.remote_job import JOB
from pipelines.placement import SHARED_MEMORY, WRITABLE
from pipelines.resources import CA_FOLDER, S3, NodePool, Resources, S3Secret, Step

StepName = Literal["sft", "grpo"]
RUNTIME = "torch-distributed"
MANAGER = "conf-profile.io/compile"
OUTPUTS = ("student", "log")
INPUTS: Mapping[StepName, tuple[str, ...]] = {
    "sft": ("features", "pseudo_labels", "task_file"),
    "grpo": ("features", "reference", "support", "filtered", "sft_student"),
}


@dataclass(frozen=True)
class TrainJob:
    """What to train where: `inputs` names each input's artefact, `output` a place below which the outputs go."""

    step: StepName
    nodes: int
    inputs: Mapping[str, str]
    output: str


def write(path: Path, job: TrainJob, config: RunConfig, resources: Resources, image: str) -> None:
    """Writes the manifest as YAML, whole or not at all; an empty `image` is the release's."""
    write_text(path, yaml.safe_dump(manifest(job, config, resources, image or IMAGE), sort_keys=False))


def manifest(job: TrainJob, config: RunConfig, resources: Resources, image: str) -> dict[str, Any]:
    """The TrainJob; ConfigError for an input that is missing, or a place that is not in S3."""
    _check(job)
    step, pool = resources.pipelines.steps[job.step], resources.pool_of(job.step)
    environment = [
        *({"name": name, "value": value} for name, value in _plain_environment(job, config, resources, step).items()),
        *_secret_environment(resources.pipelines.s3_secret),
    ]
    return {
        "apiVersion": "trainer.kubeflow.org/v1alpha1",
        "kind": "TrainJob",
        "metadata": {
            "name": f"conf-profile-{job.step}",
            "labels": {"app.kubernetes.io/name": "conf-profile", "app.kubernetes.io/component": job.step},
        },
        "spec": {
            "runtimeRef": {"apiGroup": "trainer.kubeflow.org", "kind": "ClusterTrainingRuntime", "name": RUNTIME},
            "trainer": {
                "image": image,
                # The runtime tells torch's launcher by PET_* variables how many nodes there are, and which this is.
                "command": ["python3", "-m", "torch.distributed.run", "-m", "conf_profile.students.remote_job"],
                "numNodes": job.nodes,
                "numProcPerNode": max(1, step.gpus),
                "resourcesPerNode": _resources(step, pool),
                "env": environment,
            },
            "runtimePatches": [
                {"manager": MANAGER, "trainingRuntimeSpec": {"template": _template(pool, resources.s3)}}
            ],
        },
    }


def parse_options(step: str, nodes: int, pairs: Sequence[str], output: str) -> TrainJob:
    """A TrainJob from a command line's options; `pairs` are NAME=URI. ConfigError for another form."""
    split = [pair.partition("=") for pair in pairs]
    wrong = [name for name, equals, uri in split if not (equals and uri)]
    if wrong:
        raise ConfigError(f"--artefact {wrong[0]!r}: expected NAME=s3://BUCKET/KEY")
    return TrainJob(cast(StepName, step), nodes, {name: uri for name, _, uri in split}, output)


def _check(job: TrainJob) -> None:
    if job.step not in get_args(StepName):
        raise ConfigError(f"--trainjob {job.step!r}: only {' and '.join(get_args(StepName))} run over several nodes")
    wanted = INPUTS[job.step]
    if set(job.inputs) != set(wanted):
        raise ConfigError(f"--trainjob {job.step} needs --artefact for {', '.join(wanted)}, and no others")
    for name, place in {**job.inputs, "--output": job.output}.items():
        if not is_remote(place):
            raise ConfigError(f"{name}: {place!r} is not an s3:// address; every node must reach it")


def _plain_environment(job: TrainJob, config: RunConfig, resources: Resources, step: Step) -> dict[str, str]:
    store = resources.s3.plain_environment(resources.pipelines.s3_secret)
    plain = {"OMP_NUM_THREADS": str(step.threads), DEFAULTS: defaults_digest()}
    return {**WRITABLE, **plain, **store, JOB: _job(job, config)}


def _job(job: TrainJob, config: RunConfig) -> str:
    sections: dict[str, Section] = {"config": getattr(config, job.step), "student_config": config.student}
    if job.step == "sft":
        sections["prompt"] = config.prompt
    places = {**job.inputs, **{name: f"{job.output.rstrip('/')}/{name}" for name in OUTPUTS}}
    arguments = {**places, **{name: section.for_step() for name, section in sections.items()}, "seed": config.seed}
    return json.dumps({"function": f"components.{job.step}.step:run", "arguments": arguments, "outputs": OUTPUTS})


def _secret_environment(secret: S3Secret) -> list[dict[str, Any]]:
    if not secret.name:
        return []
    return [
        {"name": variable, "valueFrom": {"secretKeyRef": {"name": secret.name, "key": key}}}
        for variable, key in secret.environment().items()
    ]


def _resources(step: Step, pool: NodePool) -> dict[str, Any]:
    gpus = {pool.gpu.resource: step.gpus} if step.gpus else {}
    return {"requests": step.requests.model_dump(), "limits": {**step.limits.model_dump(), **gpus}}


def _template(pool: NodePool, s3: S3) -> dict[str, Any]:
    """The patch of the runtime's pods: where they go, their volumes, and what Pod Security `restricted` asks for."""
    restricted = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
    container: dict[str, Any] = {"name": "node", "securityContext": restricted}
    pod: dict[str, Any] = {
        "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [container],
    }
    if pool.node_selector:
        pod["nodeSelector"] = pool.node_selector
    if pool.tolerations:
        pod["tolerations"] = [each.model_dump(by_alias=True, exclude_none=True) for each in pool.tolerations]
    volumes = list(_volumes(pool, s3))
    if volumes:
        container["volumeMounts"] = [mount for _, mount in volumes]
        pod["volumes"] = [volume for volume, _ in volumes]
    node = {"name": "node", "template": {"spec": {"template": {"spec": pod}}}}
    return {"spec": {"replicatedJobs": [node]}}


def _volumes(pool: NodePool, s3: S3) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Each volume with its mount."""
    if pool.shared_memory:
        size = {"medium": "Memory", "sizeLimit": pool.shared_memory}
        yield {"name": SHARED_MEMORY, "emptyDir": size}, {"name": SHARED_MEMORY, "mountPath": "/dev/shm"}
    if s3.ca_config_map:
        mount = {"name": "s3-ca", "mountPath": CA_FOLDER, "readOnly": True}
        yield {"name": "s3-ca", "configMap": {"name": s3.ca_config_map}}, mount
