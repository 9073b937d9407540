"""All checks, in the order in which a user would put things right."""

from __future__ import annotations

from pipelines.preflight.cluster import ClusterState, read_cluster
from pipelines.preflight.declared import declared_objects, object_findings
from pipelines.preflight.endpoint import endpoint_findings
from pipelines.preflight.finding import Finding
from pipelines.preflight.image import image_findings
from pipelines.preflight.labels import labels_findings
from pipelines.preflight.nodes import node_findings
from pipelines.preflight.request import PreflightRequest
from pipelines.preflight.stores.store import store_findings


def findings(request: PreflightRequest) -> list[Finding]:
    """Everything that is found, also what could not be checked; empty where all is well."""
    state = read_cluster(request.namespace or "", declared_objects(request))
    return [
        *image_findings(request.image),
        *endpoint_findings(request),
        *labels_findings(request),
        *cluster_findings(request, state),
        *store_findings(request, state),
    ]


def cluster_findings(request: PreflightRequest, state: ClusterState) -> list[Finding]:
    """What the cluster's state says about the run, and one note of what it did not tell."""
    found = object_findings(declared_objects(request), state)
    if isinstance(state.nodes, tuple):
        found += node_findings(request.resources, request.steps, state.nodes)
    if state.unanswered:
        what = "; ".join(f"{', '.join(names)} ({reason})" for reason, names in state.unanswered.items())
        found.append(
            Finding(
                "note",
                f"not checked in the cluster: {what}",
                "set KUBECONFIG to KFP's cluster and use an account that may read these, or look yourself",
            )
        )
    return found
