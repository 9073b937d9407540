"""How large the status of a run's nodes becomes on Argo, from the compiled pipeline and the run's arguments.

Argo keeps what each node was given in the Workflow object. Above 1 MiB it compresses that (KFP's API then shows no
node of the run any more), and above 1 MiB compressed it ends the run. The rule was fitted to runs on KFP 2.17 with
Argo 4.0, whose status it meets within 5%:

    1.16 x 6 x patch + 2 x (component + container + task)    for each task that runs a container
    2 kB                                                     for each node

The patch is that of the executor's pod: 3.3 kB of KFP's own, the component's spec, its source code, and the executor's
input with all arguments and artefacts.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from conf_profile.errors import ConfigError

API_LIMIT = 1 << 20
"""Bytes above which Argo compresses the status, and KFP's API shows no node."""
AIM = 850_000
"""Bytes of the default run: room for arguments that are longer than the default's."""
COMPRESSION = 25
"""How much smaller Argo's compression makes a status, roughly; it repeats itself a lot."""
ARGO_LIMIT = COMPRESSION * API_LIMIT
_COPIES = 1.16 * 6
_PATCH_OF_KFP = 3_300
_NODE = 2_000
# Nodes: driver, executor and their retries of a task; those of an iteration beside its tasks, and so on.
_NODES_OF_TASK, _NODES_OF_ITERATION, _NODES_OF_LOOP, _NODES_OF_CONDITION, _NODES_OF_ROOT = 7, 5, 3, 2, 4
_RUN = "6f1c0a52-93c8-4a51-8d0a-8f6f6c9d1c11"
_ROOT = "s3://mlpipeline/v2/artifacts"

Spec = Mapping[str, Any]


@dataclass(frozen=True)
class NodeStatus:
    """An estimate: nodes, and bytes of their status before any compression."""

    nodes: int
    bytes: int


@dataclass(frozen=True)
class _Execution:
    """A task that runs a container, and the iteration of its loop (None outside of one)."""

    name: str
    task: Spec
    iteration: int | None


def estimate(package: Path, arguments: Mapping[str, Any]) -> NodeStatus:
    """The status of a run of this compiled pipeline with these arguments, all of its steps run."""
    pipeline = next(yaml.safe_load_all(package.read_text(encoding="utf-8")))
    executions = list(_executions(pipeline, arguments))
    nodes = _nodes(pipeline, arguments)
    return NodeStatus(nodes, round(_NODE * nodes + sum(_bytes(pipeline, each, arguments) for each in executions)))


def count_pods(package: Path, arguments: Mapping[str, Any], cached: Collection[str] = ()) -> int:
    """Pods of a run: a driver for the run, each task, loop and iteration, and an executor for what is not `cached`.

    `cached` holds names of steps, with dashes.
    """
    pipeline = next(yaml.safe_load_all(package.read_text(encoding="utf-8")))
    executors = [each.name for each in _executions(pipeline, arguments)]
    others = 0
    for task in pipeline["root"]["dag"]["tasks"].values():
        if "parameterIterator" in task:
            others += 1 + _iterations(task, arguments)
        elif "dag" in pipeline["components"][task["componentRef"]["name"]] or not _container(pipeline, task):
            others += 1
    return 1 + others + len(executors) + sum(name not in cached for name in executors)


def require_fits(package: Path, arguments: Mapping[str, Any]) -> NodeStatus:
    """The estimate; ConfigError names the most shards that fit where there are too many for Argo."""
    found = estimate(package, arguments)
    if found.bytes <= ARGO_LIMIT:
        return found
    shards = len(arguments["shards"])
    least = [estimate(package, {**arguments, "shards": list(range(number))}).bytes for number in (1, 2)]
    most = 1 + (ARGO_LIMIT - least[0]) // (least[1] - least[0])
    raise ConfigError(
        f"teacher.shards is {shards}: the run's node status would have {found.bytes / 1e6:.1f} MB, and Argo ends a run "
        f"above {ARGO_LIMIT / 1e6:.1f} MB (1 MiB compressed); set teacher.shards to {most} at most"
    )


def _executions(pipeline: Spec, arguments: Mapping[str, Any]) -> Iterator[_Execution]:
    for task in pipeline["root"]["dag"]["tasks"].values():
        component = pipeline["components"][task["componentRef"]["name"]]
        if "iteratorPolicy" in task or "parameterIterator" in task:
            for iteration in range(_iterations(task, arguments)):
                for inner in component["dag"]["tasks"].values():
                    yield _Execution(inner["taskInfo"]["name"], inner, iteration)
        elif "executorLabel" in component and _container(pipeline, task):
            yield _Execution(task["taskInfo"]["name"], task, None)


def _nodes(pipeline: Spec, arguments: Mapping[str, Any]) -> int:
    nodes = _NODES_OF_ROOT
    for task in pipeline["root"]["dag"]["tasks"].values():
        component = pipeline["components"][task["componentRef"]["name"]]
        if "parameterIterator" in task:
            inner = len(component["dag"]["tasks"]) * _NODES_OF_TASK
            nodes += _NODES_OF_LOOP + _iterations(task, arguments) * (_NODES_OF_ITERATION + inner)
        elif "dag" in component:
            nodes += _NODES_OF_CONDITION
        else:
            nodes += _NODES_OF_TASK if _container(pipeline, task) else 1
    return nodes


def _iterations(task: Spec, arguments: Mapping[str, Any]) -> int:
    items = task["parameterIterator"]["items"]
    if "raw" in items:
        return len(json.loads(items["raw"]))
    given = task["inputs"]["parameters"][items["inputParameter"]]
    return len(arguments[given["componentInputParameter"]])


def _container(pipeline: Spec, task: Spec) -> Spec:
    """Empty for an importer."""
    component = pipeline["components"][task["componentRef"]["name"]]
    executor: Spec = pipeline["deploymentSpec"]["executors"][component["executorLabel"]]
    container: Spec = executor.get("container", {})
    return container


def _bytes(pipeline: Spec, execution: _Execution, arguments: Mapping[str, Any]) -> float:
    component = pipeline["components"][execution.task["componentRef"]["name"]]
    container = _container(pipeline, execution.task)
    source = _size([*container["command"], *container["args"]])
    patch = _PATCH_OF_KFP + _size(component) + source + _size(_executor_input(execution, component, arguments))
    return _COPIES * patch + 2 * (_size(component) + _size(container) + _size(execution.task))


def _executor_input(execution: _Execution, component: Spec, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """As KFP's driver renders it: every argument in full, an entry with type and address for every artefact."""
    inputs = execution.task.get("inputs", {})
    parameters = {
        name: _argument(given, arguments, execution.iteration) for name, given in inputs.get("parameters", {}).items()
    }
    taken = component.get("inputDefinitions", {}).get("artifacts", {})
    shards = len(arguments["shards"])
    artifacts = {
        name: {"artifacts": [_artifact(name, "producer", kind)] * (shards if kind.get("isArtifactList") else 1)}
        for name, kind in taken.items()
    }
    made = component.get("outputDefinitions", {}).get("artifacts", {})
    return {
        "inputs": {"parameterValues": parameters, "artifacts": artifacts},
        "outputs": {
            "artifacts": {name: {"artifacts": [_artifact(name, execution.name, kind)]} for name, kind in made.items()},
            "outputFile": "/tmp/kfp_outputs/output_metadata.json",
        },
    }


def _argument(given: Spec, arguments: Mapping[str, Any], iteration: int | None) -> Any:
    if "runtimeValue" in given:
        return given["runtimeValue"].get("constant")
    # The driver of a loop passes parameters on under names of its own; the last part is the pipeline's.
    name = given.get("componentInputParameter", "").removeprefix("pipelinechannel--")
    return iteration if name.startswith("shards-loop-item") else arguments.get(name, "")


def _artifact(name: str, task: str, kind: Spec) -> dict[str, Any]:
    place = f"{_ROOT}/conf-profile-training/{_RUN}/{task}/{_RUN}/{name}"
    return {"name": name, "type": kind["artifactType"], "uri": place, "metadata": {}}


def _size(value: Any) -> int:
    return len(json.dumps(value, separators=(",", ":")).encode())
