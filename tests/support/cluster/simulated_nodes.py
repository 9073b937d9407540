"""Nodes that only kwok plays: pods are placed on them by the real scheduler, and count as running at once."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import pytest

from support.cluster.kube import Cluster, CommandError, until

_READY_SECONDS = 20
GPU_TAINT = {"key": "nvidia.com/gpu", "value": "present", "effect": "NoSchedule"}
# Keeps everybody else's pods away where there is any other room.
AVOIDED = {"key": "conf-profile/test", "value": "simulated", "effect": "PreferNoSchedule"}


def node(labels: Mapping[str, str], taints: Sequence[Mapping[str, str]], gpus: int = 0) -> dict[str, Any]:
    """A Node with 64 processors and 512 GiB."""
    room = {"cpu": "64", "memory": "512Gi", "pods": "110", **({"nvidia.com/gpu": str(gpus)} if gpus else {})}
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": f"conf-profile-test-{secrets.token_hex(4)}",
            "annotations": {"kwok.x-k8s.io/node": "fake"},
            "labels": dict(labels),
        },
        "spec": {"taints": [dict(taint) for taint in taints]},
        "status": {"allocatable": room, "capacity": room},
    }


@contextmanager
def simulated(cluster: Cluster, *nodes: Mapping[str, Any]) -> Iterator[list[str]]:
    """The nodes' names; skips where nobody plays them."""
    names = [each["metadata"]["name"] for each in nodes]
    cluster.apply(*nodes)
    try:
        try:
            cluster.kubectl("wait", "--for=condition=Ready", "node", *names, f"--timeout={_READY_SECONDS}s")
        except CommandError:
            pytest.skip("no kwok acts in this cluster: install it to play nodes with GPUs")
        yield names
    finally:
        # Without its node nobody ends a pod for a minute.
        until("the pods on simulated nodes are gone", lambda: not cluster.ending(), seconds=120)
        cluster.kubectl("delete", "node", *names)
