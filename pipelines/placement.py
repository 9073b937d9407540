"""Puts on the pipeline's tasks what values declare of them; used when compiling for a cluster, never locally.

What the compiled YAML cannot say stays out: loops and drivers are pods of the backend's own, with the backend's own
requests, and the SDK gives them no node pool.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from components.steps import BY_NAME
from conf_profile.config import DEFAULTS, defaults_digest
from conf_profile.data import inputs
from conf_profile.students.processes import PROCESSES
from conf_profile.teachers.endpoint.advice import KEYS_SECRET
from pipelines.resources import CA_FOLDER, S3, NodePool, Resources, S3Secret, Step

if TYPE_CHECKING:
    from kfp.dsl import PipelineTask

# Containers have no home of their own and their root may be read-only; only /tmp is sure to be writable.
WRITABLE = {
    "HOME": "/tmp",
    "XDG_CACHE_HOME": "/tmp/cache",
    "XDG_CONFIG_HOME": "/tmp/config",
    "HF_HOME": "/tmp/huggingface",
    "MPLCONFIGDIR": "/tmp/matplotlib",
    "TORCHINDUCTOR_CACHE_DIR": "/tmp/torchinductor",
    "TRITON_CACHE_DIR": "/tmp/triton",
    "VLLM_CACHE_ROOT": "/tmp/vllm",
    # A numeric user without an entry in /etc/passwd has no name, and torch asks for one.
    "USER": "conf-profile",
    "LOGNAME": "conf-profile",
}
SHARED_MEMORY = "shared-memory"
RETRY_SECONDS = "CONF_PROFILE_RETRY_SECONDS"


@dataclass(frozen=True)
class Placement:
    """What `training_pipeline` is told: where tasks run, and how many shards at once (0: no limit)."""

    place: Callable[[PipelineTask], None]
    shard_parallelism: int


def step_name(task: PipelineTask) -> str:
    """The step of a task; KFP writes dashes where a component's name has none."""
    return str(task.component_spec.name).replace("-", "_")


NO_PLACEMENT = Placement(lambda task: None, 0)
"""For `kfp.local`: tasks run as they are."""


def make_cluster_placement(resources: Resources, image: str = "", caching: bool = True) -> Placement:
    """A placement that decorates each task as `resources` says.

    An empty `image` is the release's; without `caching` no step is taken from the cache.
    """

    def place(task: PipelineTask) -> None:
        name = step_name(task)
        step, pool = resources.pipelines.steps[name], resources.pool_of(name)
        if image:
            task.set_container_image(image)
        _compute(task, step, pool)
        _scheduling(task, pool)
        _environment(task, name, step, resources)
        _lifecycle(task, step)
        if not caching or not BY_NAME[name].cached:
            task.set_caching_options(False)

    return Placement(place, resources.pipelines.shard_parallelism)


def _compute(task: PipelineTask, step: Step, pool: NodePool) -> None:
    task.set_cpu_request(step.requests.cpu).set_cpu_limit(step.limits.cpu)
    task.set_memory_request(step.requests.memory).set_memory_limit(step.limits.memory)
    if step.gpus:
        task.set_accelerator_type(pool.gpu.resource).set_accelerator_limit(step.gpus)


def _scheduling(task: PipelineTask, pool: NodePool) -> None:
    from kfp import kubernetes

    for label, value in pool.node_selector.items():
        kubernetes.add_node_selector(task, label, value)
    for toleration in pool.tolerations:
        kubernetes.add_toleration(task, **toleration.model_dump())
    if pool.shared_memory:
        kubernetes.empty_dir_mount(task, SHARED_MEMORY, "/dev/shm", medium="Memory", size_limit=pool.shared_memory)


def _environment(task: PipelineTask, name: str, step: Step, resources: Resources) -> None:
    from kfp import kubernetes

    plain = {
        **WRITABLE,
        "OMP_NUM_THREADS": str(step.threads),
        DEFAULTS: defaults_digest(),
        RETRY_SECONDS: str(resources.pipelines.retry_seconds),
    }
    for variable, value in plain.items():
        task.set_env_variable(variable, value)
    if step.gpus > 1:
        task.set_env_variable(PROCESSES, str(step.gpus))
    declared, secret, teacher = BY_NAME[name], resources.pipelines.s3_secret, resources.pipelines.teacher_secret
    if declared.uses_store:
        _object_store(task, resources.s3, secret)
    if declared.reads_truth and resources.pipelines.labels_secret.name:
        labels = resources.pipelines.labels_secret
        keys = {labels.access_key_key: inputs.LABELS_ACCESS_KEY, labels.secret_key_key: inputs.LABELS_SECRET_KEY}
        kubernetes.use_secret_as_env(task, labels.name, keys)
    if teacher.name and declared.asks_teacher:
        kubernetes.use_secret_as_env(task, teacher.name, {teacher.key: teacher.env})
        task.set_env_variable(KEYS_SECRET, f"key {teacher.key!r} of the secret {teacher.name!r}")


def _object_store(task: PipelineTask, s3: S3, secret: S3Secret) -> None:
    from kfp import kubernetes

    for variable, value in s3.plain_environment(secret).items():
        task.set_env_variable(variable, value)
    if s3.ca_config_map:
        kubernetes.use_config_map_as_volume(task, s3.ca_config_map, CA_FOLDER)
    if secret.name:
        kubernetes.use_secret_as_env(task, secret.name, {key: name for name, key in secret.environment().items()})


def _lifecycle(task: PipelineTask, step: Step) -> None:
    from kfp import kubernetes

    kubernetes.set_timeout(task, step.timeout_seconds)
    kubernetes.set_security_context(task, run_as_non_root=True)
    if step.retries.count:
        pause, longest = f"{step.retries.backoff_seconds}s", f"{step.retry_seconds}s"
        task.set_retry(step.retries.count, pause, step.retries.factor, longest)
