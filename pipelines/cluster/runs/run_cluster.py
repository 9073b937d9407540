"""What the cluster itself tells of a run: why its pods wait, and the pipeline root where KFP's API gives none.

The cluster is the one of KUBECONFIG, or the one that this pod runs in. It is only read, and nothing depends on it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from conf_profile.errors import PipelineError
from pipelines.cluster.runs.run_steps import step_name

KFP_NAMESPACE = "kubeflow"
"""Where the runs of a KFP are that does not keep users apart."""
LAUNCHER = "kfp-launcher"
"""KFP's name of the ConfigMap with the namespace's pipeline root."""
_TIMEOUT_SECONDS = (5, 15)
_NODE_NAME = "workflows.argoproj.io/node-name"
_ORDINARY_REASONS = frozenset({"ContainerCreating", "PodInitializing"})


class RunCluster:
    """The namespace of a run. Every method raises PipelineError with what kept it from an answer."""

    def __init__(self, namespace: str | None) -> None:
        self._namespace = namespace or KFP_NAMESPACE
        self._core: Any = None

    def pending_reasons(self, run_id: str) -> dict[str, str]:
        """Step -> why its pod has not begun; a pod of something else stands under its own name."""
        found = self._read(
            "list the run's pods", "list_namespaced_pod", self._namespace, label_selector=f"pipeline/runid={run_id}"
        )
        told = ((_owner(pod), next(_reasons(pod), "")) for pod in found.get("items", ()))
        return {owner: reason for owner, reason in told if reason}

    def pipeline_root(self) -> str:
        """What KFP's launcher has as its default there; empty where it has none."""
        found = self._read(f"read the ConfigMap {LAUNCHER}", "read_namespaced_config_map", LAUNCHER, self._namespace)
        return str((found.get("data") or {}).get("defaultPipelineRoot", ""))

    def _read(self, what: str, method: str, *arguments: str, **options: str) -> dict[str, Any]:
        with _explain_errors(what, self._namespace):
            call = getattr(self._client(), method)
            answer = call(*arguments, **options, _preload_content=False, _request_timeout=_TIMEOUT_SECONDS)
            return dict(json.loads(answer.data))

    def _client(self) -> Any:
        from kubernetes import client, config

        if self._core is None:
            configuration = client.Configuration()
            # The client itself reads the variable when it is imported, and not again. A default kubeconfig is left
            # alone: it may name any cluster.
            if given := os.environ.get("KUBECONFIG"):
                config.load_kube_config(given, client_configuration=configuration)
            else:
                config.load_incluster_config(client_configuration=configuration)
            configuration.retries = False
            self._core = client.CoreV1Api(client.ApiClient(configuration))
        return self._core


@contextmanager
def _explain_errors(what: str, namespace: str) -> Iterator[None]:
    from kubernetes.client import ApiException
    from kubernetes.config import ConfigException
    from urllib3.exceptions import HTTPError

    try:
        yield
    except ApiException as error:
        raise PipelineError(f"may not {what} in namespace {namespace}: {error.status} {error.reason}") from error
    except (HTTPError, ValueError) as error:
        raise PipelineError(f"the API server does not answer ({type(error).__name__})") from error
    except ConfigException as error:
        raise PipelineError("no cluster: set KUBECONFIG, or run in a pod") from error


def _owner(pod: Mapping[str, Any]) -> str:
    """Argo names a node by the way to it, such as `WORKFLOW.root.labelling.executor`."""
    path = (pod["metadata"].get("annotations") or {}).get(_NODE_NAME, "").split(".")
    named = [part.removesuffix("-driver") for part in path]
    return next((name for part in reversed(named) if (name := step_name(part))), str(pod["metadata"]["name"]))


def _reasons(pod: Mapping[str, Any]) -> Iterator[str]:
    status = pod.get("status") or {}
    if status.get("phase") != "Pending":
        return
    for condition in status.get("conditions") or ():
        if condition["type"] == "PodScheduled" and condition["status"] == "False":
            yield f"{condition.get('reason', 'Unschedulable')}: {condition.get('message', 'it has no node')}"
    for container in (*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())):
        waiting = (container.get("state") or {}).get("waiting") or {}
        if waiting.get("reason") and waiting["reason"] not in _ORDINARY_REASONS:
            yield ": ".join(filter(None, [waiting["reason"], waiting.get("message", "")]))
