"""What each step of the pipeline asks of a cluster: node pool, requests and limits, time, retries, secrets.

The same values files configure the Helm chart and the compiled pipeline: `load` reads the sections `nodePools`,
`pipelines` and `s3` of any number of them, later over earlier as Helm does, over the defaults that stand here and in
the chart's values.yaml. What else is in them belongs to the chart. Nothing of kfp is known here; `placement` puts what
is declared on the tasks.
"""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator, model_validator
from pydantic.alias_generators import to_camel

from components.steps import FORMER_NAMES, STEPS, Machine
from conf_profile.config_layers import merge
from conf_profile.errors import ConfigError
from conf_profile.storage import encryption
from conf_profile.storage.object_address import AWS, ENDPOINT_VARIABLE, REGION
from conf_profile.strict_model import StrictModel, explain

DEFAULT_POOL = "cpu"
SECTIONS = ("nodePools", "pipelines", "s3")
CA_FOLDER = "/etc/s3-ca"
"""Where a pod has the certificates of `s3.caConfigMap`."""
CHART_KEYS = ("enabled", "namespace", "serviceAccount", "launcher", "upload", "schedule", "retention")
"""Keys of `pipelines` that the chart alone reads."""
_log = logging.getLogger(__name__)
_MEMORY_UNITS: dict[str, int] = {"": 1} | {
    unit + suffix: base**power
    for power, unit in enumerate("KMGTPE", start=1)
    for suffix, base in (("", 1000), ("i", 1024))
}


def _text(value: object) -> object:
    """YAML reads `cpu: 2` as a number; Kubernetes takes both."""
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value


_CORES = Annotated[str, Field(pattern=r"^([0-9]*\.)?[0-9]+m?$")]
_BYTES = Annotated[str, Field(pattern=r"^[0-9]+([KMGTPE]i?)?$")]
Cpu = Annotated[_CORES, BeforeValidator(_text, json_schema_input_type=_CORES | Annotated[float, Field(gt=0)])]
"""Cores: '2', '0.5' or '500m'; the chart's schema, which is made of these models, takes the number 2 as well."""
Memory = Annotated[_BYTES, BeforeValidator(_text, json_schema_input_type=_BYTES)]
"""Bytes: '512Mi', '16Gi'."""


class _Part(StrictModel):
    """Keys are camelCase in files, as everywhere in Kubernetes."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True)


class Toleration(_Part):
    """A taint that a pool's pods put up with; the fields are Kubernetes' own."""

    key: str | None = None
    operator: Literal["Equal", "Exists"] | None = None
    value: str | None = None
    effect: Literal["NoExecute", "NoSchedule", "PreferNoSchedule"] | None = None
    toleration_seconds: int | None = None


class Gpu(_Part):
    """The GPUs of one node of a pool; count 0: the pool has none."""

    resource: str = Field("nvidia.com/gpu", min_length=1)
    count: int = Field(0, ge=0)


class NodePool(_Part):
    """Nodes of one kind, and how pods get onto them. An empty selector means any node."""

    node_selector: dict[str, str] = Field({})
    tolerations: tuple[Toleration, ...] = ()
    gpu: Gpu = Gpu()
    shared_memory: Memory | Literal[""] = Field("", description="size of /dev/shm, in memory; empty: the runtime's own")


NodePools = Annotated[dict[str, NodePool], Field(min_length=1)]


class Quantities(_Part):
    """An amount of processor and memory."""

    cpu: Cpu
    memory: Memory

    @property
    def cores(self) -> float:
        return float(self.cpu[:-1]) / 1000 if self.cpu.endswith("m") else float(self.cpu)

    @property
    def bytes(self) -> int:
        number, unit = re.fullmatch(r"(\d+)(\w*)", self.memory).groups()  # type: ignore[union-attr]
        return int(number) * _MEMORY_UNITS[unit]


class Retries(_Part):
    """How often a failed task starts again; the pause before it grows by `factor`, a whole number for Argo."""

    count: int = Field(2, ge=0)
    backoff_seconds: int = Field(30, ge=1)
    factor: int = Field(2, ge=1)
    max_seconds: int = Field(
        0, ge=0, description="since the first start, all tries together; 0: as long as they may take by their timeouts"
    )


class Step(_Part):
    """What one step asks for. `timeout_seconds` counts the start of its pod, too."""

    pool: str = Field(DEFAULT_POOL, min_length=1)
    requests: Quantities
    limits: Quantities
    timeout_seconds: int = Field(gt=0)
    retries: Retries = Retries()
    gpus: int = Field(0, ge=0, description="more than one: the training step runs one process on each")

    @model_validator(mode="after")
    def _requests_within_limits(self) -> Step:
        if self.requests.cores > self.limits.cores or self.requests.bytes > self.limits.bytes:
            raise ValueError("requests are larger than limits")
        return self

    @property
    def retry_seconds(self) -> int:
        """From the first start to the end of the last try. Argo stops what runs longer, the first try included."""
        pauses = sum(self.retries.backoff_seconds * self.retries.factor**tried for tried in range(self.retries.count))
        return self.retries.max_seconds or (self.retries.count + 1) * self.timeout_seconds + pauses

    @property
    def threads(self) -> int:
        """Threads of one process: a library that sees the node's cores instead of the limit starves itself."""
        return max(1, math.floor(self.limits.cores / max(1, self.gpus)))


DEFAULT_POOLS: Mapping[str, NodePool] = {
    DEFAULT_POOL: NodePool(),
    "gpu": NodePool(
        tolerations=(Toleration(key="nvidia.com/gpu", operator="Exists", effect="NoSchedule"),),
        gpu=Gpu(count=1),
        shared_memory="8Gi",
    ),
}
MACHINES: Mapping[Machine, Step] = {
    "light": Step(
        requests=Quantities(cpu="250m", memory="512Mi"), limits=Quantities(cpu="1", memory="2Gi"), timeout_seconds=3600
    ),
    "teacher": Step(
        requests=Quantities(cpu="250m", memory="512Mi"), limits=Quantities(cpu="1", memory="2Gi"), timeout_seconds=86400
    ),
    "model": Step(
        requests=Quantities(cpu="500m", memory="2Gi"), limits=Quantities(cpu="2", memory="4Gi"), timeout_seconds=21600
    ),
}
DEFAULT_STEPS: Mapping[str, Step] = {step.name: MACHINES[step.machine] for step in STEPS}


class TeacherSecret(_Part):
    """Where the teacher's key is; no name: the teacher needs none."""

    name: str = ""
    key: str = "api-key"
    env: str = Field("OPENAI_API_KEY", pattern=r"^[A-Za-z_][A-Za-z0-9_]*$", description="as in teacher.api_key_env")


class S3(BaseModel):
    """The object store as the chart declares it; its other keys are the chart's."""

    model_config = ConfigDict(frozen=True, alias_generator=to_camel, populate_by_name=True)

    endpoint: str = Field("", description="empty: Amazon's own S3, unless the environment of a pod names another")
    region: str = Field("", description="empty: us-east-1, at Amazon that of a pod's environment")
    encryption: str = Field("", description="as storage.encryption")
    checksums: Literal["", "when_supported", "when_required"] = ""
    ca_config_map: str = Field("", description="ConfigMap of the runs' namespace with the certificate authority")
    ca_key: str = Field("ca.crt", description="key of the certificates in it")

    def plain_environment(self, secret: S3Secret) -> dict[str, str]:
        """Environment variable -> value, of all that is not in the secret."""
        # AWS_ENDPOINT_URL would send STS's AssumeRoleWithWebIdentity to the object store, too.
        endpoint = {"AWS_ENDPOINT_URL_S3": self.endpoint} if self.endpoint else {ENDPOINT_VARIABLE: AWS}
        is_amazon = not (self.endpoint or secret.endpoint_key)
        plain = {
            **({} if secret.endpoint_key else endpoint),
            "AWS_DEFAULT_REGION": "" if secret.region_key else self.region or ("" if is_amazon else REGION),
            encryption.VARIABLE: self.encryption,
            "AWS_REQUEST_CHECKSUM_CALCULATION": self.checksums,
            "AWS_CA_BUNDLE": f"{CA_FOLDER}/{self.ca_key}" if self.ca_config_map else "",
        }
        return {name: value for name, value in plain.items() if value}


class S3Secret(_Part):
    """Where the steps find the keys of the model registry: the names of the secret's keys. An empty one is not read.

    No name: boto3 finds keys by itself (a role of the pod's service account).
    """

    name: str = ""
    endpoint_key: str = Field("", description="instead of s3.endpoint")
    access_key_key: str = "AWS_ACCESS_KEY_ID"
    secret_key_key: str = "AWS_SECRET_ACCESS_KEY"
    region_key: str = Field("", description="instead of s3.region")

    def environment(self) -> dict[str, str]:
        """Environment variable -> key of the secret."""
        given = {
            "AWS_ENDPOINT_URL_S3": self.endpoint_key,
            "AWS_ACCESS_KEY_ID": self.access_key_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key_key,
            "AWS_DEFAULT_REGION": self.region_key,
        }
        return {variable: key for variable, key in given.items() if key}


class Pipelines(_Part):
    """The pipeline's part of the values."""

    steps: dict[str, Step] = Field(dict(DEFAULT_STEPS))
    shard_parallelism: int = Field(4, ge=1, description="shards of the synthesis that run at once")
    teacher_secret: TeacherSecret = TeacherSecret()
    s3_secret: S3Secret = S3Secret()
    labels_secret: S3Secret = Field(
        S3Secret(), description="keys that may read the labels, for the evaluation alone; no name: the steps' own do"
    )
    retry_seconds: int = Field(
        900, ge=0, description="how long a step goes on trying what does not answer (store, endpoint); 0: not at all"
    )
    retention_days: int = Field(0, ge=0, description="days that personal data of runs are kept in S3; 0: for ever")

    @model_validator(mode="before")
    @classmethod
    def _without_the_charts_keys(cls, values: Any) -> Any:
        return {k: v for k, v in values.items() if k not in CHART_KEYS} if isinstance(values, dict) else values

    @field_validator("steps", mode="before")
    @classmethod
    def _only_steps_that_exist(cls, steps: Any) -> Any:
        unknown = [name for name in steps if name not in DEFAULT_STEPS] if isinstance(steps, dict) else []
        if unknown:
            raise ValueError(f"no such step: {', '.join(unknown)}; the steps are {', '.join(DEFAULT_STEPS)}")
        return steps

    @field_validator("steps")
    @classmethod
    def _every_step(cls, steps: dict[str, Step]) -> dict[str, Step]:
        return {**DEFAULT_STEPS, **steps}


class Resources(_Part):
    """Everything that compiling reads of the values."""

    node_pools: NodePools = Field(dict(DEFAULT_POOLS))
    pipelines: Pipelines = Pipelines()
    s3: S3 = S3()

    @model_validator(mode="after")
    def _steps_fit_their_pools(self) -> Resources:
        for name, step in self.pipelines.steps.items():
            key = f"pipelines.steps.{name}"
            if step.pool not in self.node_pools:
                known = ", ".join(sorted(self.node_pools))
                raise ValueError(f"{key}.pool: there is no node pool {step.pool!r} in nodePools; it has {known}")
            there = self.node_pools[step.pool].gpu.count
            if step.gpus > there:
                raise ValueError(f"{key}.gpus: {step.gpus} are asked for, nodePools.{step.pool}.gpu.count is {there}")
        return self

    def pool_of(self, step: str) -> NodePool:
        """The node pool of a step."""
        return self.node_pools[self.pipelines.steps[step].pool]

    def values(self) -> dict[str, Any]:
        """The sections as they stand in a values file."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)


def load(files: Iterable[Path] = ()) -> Resources:
    """The defaults with the files laid over them in their order; ConfigError names the key that is wrong.

    Steps' names of release 0.1.0 are still read, with a warning.
    """
    names = [str(file) for file in files]
    layers = (Resources().values(), *(_sections(Path(name)) for name in names))
    values = merge(*layers, null_removes=True)
    try:
        return Resources.model_validate(values)
    except ValidationError as error:
        raise ConfigError(f"{', '.join(names)}: {explain(error)}") from error


def _sections(file: Path) -> dict[str, Any]:
    try:
        values = yaml.safe_load(file.read_text(encoding="utf-8")) or {}
    except OSError as error:
        raise ConfigError(f"{file}: cannot read the values: {error.strerror}") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{file}: not a valid YAML file: {error}") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{file}: expected a mapping, found {type(values).__name__}")
    sections = {name: values[name] for name in SECTIONS if values.get(name) is not None}
    pipelines = sections.get("pipelines")
    if isinstance(pipelines, dict) and isinstance(pipelines.get("steps"), dict):
        sections["pipelines"] = {**pipelines, "steps": _with_new_names(pipelines["steps"], file)}
    return sections


def _with_new_names(steps: dict[str, Any], file: Path) -> dict[str, Any]:
    """Values of the release before override, as Helm has merged them with the chart's own, which have the new names."""
    renames = {former: name for former, name in FORMER_NAMES.items() if former in steps}
    for former, name in renames.items():
        _log.warning("%s: pipelines.steps.%s is called pipelines.steps.%s now; rename the key", file, former, name)
    current = {name: step for name, step in steps.items() if name not in renames}
    return merge(current, *({name: steps[former]} for former, name in renames.items()))
