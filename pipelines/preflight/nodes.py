"""Whether the node pools fit the nodes that there are. Pure: nodes are dicts as Kubernetes' API has them.

The scheduler's rules as far as the values speak of them: labels, taints, and what a node can give to pods. What runs
on a node already is left out, since it may be gone when the step comes. A pool without any node may be one that an
autoscaler fills: that is a warning; nodes that are there and can never take the step are an error.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipelines.preflight.finding import Finding
from pipelines.resources import NodePool, Quantities, Resources, Toleration

_BLOCKING_EFFECTS = ("NoSchedule", "NoExecute")
_TRANSIENT_TAINTS = "node.kubernetes.io/"
"""Taints that Kubernetes itself sets, and takes away: not ready, unreachable, cordoned, under pressure."""


@dataclass(frozen=True)
class Demand:
    """What pods of one or more steps ask of a node of their pool."""

    steps: tuple[str, ...]
    pool_name: str
    pool: NodePool
    requests: Quantities
    gpus: int

    def __str__(self) -> str:
        wanted = [f"cpu {self.requests.cpu}", f"memory {self.requests.memory}"]
        if self.gpus:
            wanted.append(f"{self.pool.gpu.resource} {self.gpus}")
        return f"{', '.join(self.steps)} (pool {self.pool_name}; {', '.join(wanted)})"


def node_findings(resources: Resources, steps: Sequence[str], nodes: Sequence[Mapping[str, Any]]) -> list[Finding]:
    """What stands against scheduling these steps on these nodes."""
    judged = (judge(demand, nodes) for demand in demands(resources, steps))
    return [found for found in judged if found is not None]


def demands(resources: Resources, steps: Sequence[str]) -> list[Demand]:
    """The steps' demands, equal ones together."""
    together: dict[tuple[str, Quantities, int], list[str]] = {}
    for name in steps:
        step = resources.pipelines.steps[name]
        together.setdefault((step.pool, step.requests, step.gpus), []).append(name)
    return [
        Demand(tuple(names), pool, resources.node_pools[pool], requests, gpus)
        for (pool, requests, gpus), names in together.items()
    ]


def judge(demand: Demand, nodes: Sequence[Mapping[str, Any]]) -> Finding | None:
    """The first of the scheduler's rules that no node passes; None where one passes all."""
    pool, key = demand.pool, f"nodePools.{demand.pool_name}"
    of_pool = [node for node in nodes if _is_of_pool(node, demand)]
    if not of_pool:
        what = f"with the labels {_labels(pool)}" if pool.node_selector else "of the cluster"
        with_gpus = f" and {pool.gpu.resource}" if demand.gpus else ""
        return Finding(
            "warning",
            f"{demand}: there is no node {what}{with_gpus} now",
            f"add one, or correct {key}.nodeSelector and {key}.gpu.resource; an autoscaler may still make one",
        )
    tolerated = [node for node in of_pool if not blocking_taints(node, pool.tolerations)]
    if not tolerated:
        return _taint_finding(demand, of_pool)
    if not any(shortages(node, demand) == [] for node in tolerated):
        return _size_finding(demand, tolerated)
    return None


def blocking_taints(node: Mapping[str, Any], tolerations: Iterable[Toleration]) -> list[str]:
    """The taints, as KEY=VALUE:EFFECT, that keep pods with these tolerations off a node."""
    spec = node.get("spec") or {}
    taints = list(spec.get("taints") or ())
    if spec.get("unschedulable") and not any(taint["key"] == f"{_TRANSIENT_TAINTS}unschedulable" for taint in taints):
        taints.append({"key": f"{_TRANSIENT_TAINTS}unschedulable", "effect": "NoSchedule"})
    return [
        f"{taint['key']}={taint.get('value') or ''}:{taint['effect']}"
        for taint in taints
        if taint["effect"] in _BLOCKING_EFFECTS and not any(_tolerates(each, taint) for each in tolerations)
    ]


def shortages(node: Mapping[str, Any], demand: Demand) -> list[str]:
    """What a node can give too little of to the demand's pods: 'cpu 2', 'memory 1Gi' and the like."""
    room = (node.get("status") or {}).get("allocatable") or {}
    wanted = {"cpu": demand.requests.cores, "memory": demand.requests.bytes}
    if demand.gpus:
        wanted[demand.pool.gpu.resource] = demand.gpus
    return [
        f"{resource} {room.get(resource, '0')}"
        for resource, amount in wanted.items()
        if _amount(room.get(resource, "0")) < amount
    ]


def _is_of_pool(node: Mapping[str, Any], demand: Demand) -> bool:
    """A node without GPUs is none of a pool that a step asks GPUs of, whatever its labels."""
    labels = node["metadata"].get("labels") or {}
    room = (node.get("status") or {}).get("allocatable") or {}
    has_gpus = not demand.gpus or _amount(room.get(demand.pool.gpu.resource, "0")) > 0
    return has_gpus and demand.pool.node_selector.items() <= labels.items()


def _tolerates(toleration: Toleration, taint: Mapping[str, Any]) -> bool:
    if toleration.effect and toleration.effect != taint["effect"]:
        return False
    if toleration.operator == "Exists":
        return toleration.key in (None, "", taint["key"])
    return toleration.key == taint["key"] and (toleration.value or "") == (taint.get("value") or "")


def _taint_finding(demand: Demand, nodes: Sequence[Mapping[str, Any]]) -> Finding:
    blocking = [blocking_taints(node, demand.pool.tolerations) for node in nodes]
    lasting = [[taint for taint in taints if not taint.startswith(_TRANSIENT_TAINTS)] for taints in blocking]
    named = ", ".join(sorted({taint for taints in blocking for taint in taints}))
    what = f"{demand}: every node of the pool has a taint that the pool does not tolerate: {named}"
    if all(lasting):
        return Finding("error", what, f"add it to nodePools.{demand.pool_name}.tolerations, or choose another pool")
    return Finding("warning", what, "wait until a node is ready, or uncordon one (kubectl get nodes)")


def _size_finding(demand: Demand, nodes: Sequence[Mapping[str, Any]]) -> Finding:
    node = min(nodes, key=lambda each: len(shortages(each, demand)))
    return Finding(
        "error",
        f"{demand}: no node of the pool is large enough; {node['metadata']['name']} has "
        f"{', '.join(shortages(node, demand))}",
        f"lower pipelines.steps.{demand.steps[0]}.requests or gpus, choose another pool, or add larger nodes",
    )


def _labels(pool: NodePool) -> str:
    return ", ".join(f"{label}={value}" for label, value in pool.node_selector.items())


def _amount(quantity: str) -> float:
    from kubernetes.utils.quantity import parse_quantity

    return float(parse_quantity(quantity))
