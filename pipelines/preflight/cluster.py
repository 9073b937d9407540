"""What Kubernetes says: the objects that a run needs, and the nodes. It is only read, and only where it may be asked.

The cluster is the one of KUBECONFIG, or the one that this pod runs in. A default kubeconfig is left alone: it may name
any cluster. `ClusterState` is data; what it means for a run is judged in `declared` and `nodes`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import yaml

Kind = Literal["Secret", "ConfigMap", "ServiceAccount"]
Body = Mapping[str, Any]
"""An object as Kubernetes' API has it."""
REQUEST_SECONDS = 10
_POD_NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
_NO_CLUSTER = "neither KUBECONFIG is set nor is this a pod"
_NO_NAMESPACE = "the runs' namespace is not known: give --namespace"


@dataclass(frozen=True)
class DeclaredObject:
    """An object that the values name, the setting that names it, and the keys that it must have."""

    kind: Kind
    name: str
    setting: str
    keys: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.kind} {self.name!r}"


@dataclass(frozen=True)
class UnansweredQuestion:
    """A question that the cluster did not answer, and why."""

    reason: str


Answer = Body | UnansweredQuestion | None
"""An object; None where there is none."""


@dataclass(frozen=True)
class ClusterState:
    """What was read. `objects` holds Secrets, so it stays out of logs; `server` is the API server's address."""

    server: str
    namespace: str
    namespace_object: Answer
    objects: Mapping[tuple[Kind, str], Answer] = field(repr=False)
    nodes: tuple[Body, ...] | UnansweredQuestion

    @property
    def unanswered(self) -> dict[str, list[str]]:
        """Reason -> what was not told for it."""
        asked = {
            f"namespace {self.namespace}".strip(): self.namespace_object,
            **{f"{kind} {name!r}": answer for (kind, name), answer in self.objects.items()},
            "nodes": self.nodes,
        }
        found: dict[str, list[str]] = {}
        for name, answer in asked.items():
            if isinstance(answer, UnansweredQuestion):
                found.setdefault(answer.reason, []).append(name)
        return found


class _SilentClusterError(Exception):
    """The cluster answers nothing at all; its text says why."""


def is_in_pod() -> bool:
    """Whether this process runs in a pod of a cluster."""
    return bool(os.environ.get("KUBERNETES_SERVICE_HOST"))


def read_cluster(namespace: str, declared: Iterable[DeclaredObject]) -> ClusterState:
    """Namespace, declared objects and nodes; what the cluster does not tell is in the state as `UnansweredQuestion`."""
    wanted = list(declared)
    where = namespace or _pod_namespace()
    if not (os.environ.get("KUBECONFIG") or is_in_pod()):
        return _unanswered_state(where, wanted, _NO_CLUSTER)
    try:
        return _Reader().state(where, wanted)
    except _SilentClusterError as error:
        return _unanswered_state(where, wanted, str(error))


def _pod_namespace() -> str:
    return _POD_NAMESPACE.read_text(encoding="utf-8").strip() if is_in_pod() and _POD_NAMESPACE.is_file() else ""


def _unanswered_state(namespace: str, declared: Iterable[DeclaredObject], reason: str) -> ClusterState:
    answer = UnansweredQuestion(reason)
    return ClusterState("", namespace, answer, {(each.kind, each.name): answer for each in declared}, answer)


class _Reader:
    """Asks one API server; `_SilentClusterError` where it cannot be found, reached or does not know the account."""

    def __init__(self) -> None:
        from kubernetes import client, config

        configuration = client.Configuration()
        given = os.environ.get("KUBECONFIG")
        try:
            if given:
                config.load_kube_config(config_file=given, client_configuration=configuration)
            else:
                config.load_incluster_config(client_configuration=configuration)
        except (config.ConfigException, yaml.YAMLError) as error:
            raise _SilentClusterError(f"no cluster can be found: {error}") from error
        configuration.retries = False
        self._server = str(configuration.host)
        self._core = client.CoreV1Api(client.ApiClient(configuration))
        self._reads: Mapping[Kind, Callable[..., Any]] = {
            "Secret": self._core.read_namespaced_secret,
            "ConfigMap": self._core.read_namespaced_config_map,
            "ServiceAccount": self._core.read_namespaced_service_account,
        }

    def state(self, namespace: str, declared: Iterable[DeclaredObject]) -> ClusterState:
        nodes = self._nodes()
        if not namespace:
            there: Answer = UnansweredQuestion(_NO_NAMESPACE)
            objects: dict[tuple[Kind, str], Answer] = {(each.kind, each.name): there for each in declared}
        else:
            there = self._ask(self._core.read_namespace, namespace)
            objects = {
                (each.kind, each.name): self._ask(self._reads[each.kind], each.name, namespace) for each in declared
            }
        return ClusterState(self._server, namespace, there, objects, nodes)

    def _nodes(self) -> tuple[Body, ...] | UnansweredQuestion:
        # Version 0: from the API server's cache, since a large cluster's nodes are megabytes.
        answer = self._ask(self._core.list_node, resource_version="0")
        return answer if isinstance(answer, UnansweredQuestion) else tuple((answer or {}).get("items", ()))

    def _ask(self, question: Callable[..., Any], *arguments: str, **options: str) -> Answer:
        from kubernetes.client import ApiException
        from urllib3.exceptions import HTTPError

        try:
            answer = question(*arguments, _preload_content=False, _request_timeout=REQUEST_SECONDS, **options)
        except ApiException as error:
            return self._read_refusal(error)
        except HTTPError as error:
            raise _SilentClusterError(f"{self._server} does not answer: {type(error).__name__}") from error
        return dict(json.loads(answer.data))

    def _read_refusal(self, error: Any) -> Answer:
        if error.status == 404:
            return None
        if error.status == 401:
            raise _SilentClusterError(f"{self._server} does not know your account: log in again") from error
        if error.status == 403:
            return UnansweredQuestion("your account may not read them")
        return UnansweredQuestion(f"{self._server} answers {error.status} {error.reason}")
