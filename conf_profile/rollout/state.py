"""What Kubernetes says of an InferenceService, read: which model it names, and how far its pods are with another one.

Pure functions over the API's JSON; `serving_cluster` fetches it. An InferenceService stays Ready while its Deployments
are replaced, so readiness is read off Deployments and pods, as `kubectl rollout status` does.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from conf_profile.errors import RegistryError, RolloutError
from conf_profile.registry.format import MODEL_URI_ANNOTATION, MODEL_URI_VARIABLE, ModelURI, parse_uri

STORAGE_URI = "/spec/predictor/model/storageUri"
COMPONENTS = ("predictor", "transformer")
TERMINAL_REASONS = frozenset(
    {"CreateContainerConfigError", "ErrImageNeverPull", "ImagePullBackOff", "InvalidImageName"}
)
"""Reasons for which a container waits in vain."""
OVERWRITE_ADVICE = "let it leave what a rollout changes alone (docs/gitops.md), or name the version in serving.version"
RESTARTS = 2
"""A container that has failed once may have met a store that was away; one that failed three times has a reason."""

Json = Mapping[str, Any]


@dataclass(frozen=True)
class Progress:
    """How far new pods are: what is waited for (empty: all is done), and why it is hopeless (empty: it is not)."""

    waiting: str = ""
    failed: str = ""


def find_model_references(service: Json) -> dict[str, str]:
    """JSON pointer -> value of everything in an InferenceService that names the model."""
    found = {STORAGE_URI: str(service["spec"]["predictor"].get("model", {}).get("storageUri") or "")}
    for component in COMPONENTS:
        part = service["spec"].get(component, {})
        if MODEL_URI_ANNOTATION in (notes := part.get("annotations") or {}):
            found[f"/spec/{component}/annotations/{_escape(MODEL_URI_ANNOTATION)}"] = str(notes[MODEL_URI_ANNOTATION])
        for at, container in enumerate(part.get("containers", ())):
            for row, variable in enumerate(container.get("env", ())):
                if variable["name"] == MODEL_URI_VARIABLE and "valueFrom" not in variable:
                    found[f"/spec/{component}/containers/{at}/env/{row}/value"] = str(variable.get("value", ""))
    return found


def describe_overwrite(service: Json, uri: str) -> str:
    """Says who has put another model in the place of this one; empty while it is there."""
    others = {place: value for place, value in find_model_references(service).items() if value != uri}
    if not others:
        return ""
    place, value = next(iter(others.items()))
    steps = [f"f:{step.replace('~1', '/')}" for step in place.split("/")[1:] if not step.isdigit()]
    manager = _last_manager(service, steps)
    return f"{manager or 'somebody'} has set {place} to {value or 'nothing'}; {OVERWRITE_ADVICE}"


def _last_manager(service: Json, steps: Sequence[str]) -> str:
    """The field manager that wrote a field, or the list that holds it, last; empty where none says so."""
    entries = service["metadata"].get("managedFields") or ()
    owners = [entry for entry in entries if _holds(entry.get("fieldsV1") or {}, steps)]
    last = max(owners, key=lambda entry: str(entry.get("time", "")), default=None)
    return str(last.get("manager", "")) if last else ""


def _holds(fields: Json, steps: Sequence[str]) -> bool:
    for step in steps:
        if step not in fields:
            return False
        fields = fields[step]
        if not fields:
            return True
    return True


def _escape(name: str) -> str:
    """A key as a step of a JSON pointer."""
    return name.replace("~", "~0").replace("/", "~1")


def served_model(service: Json) -> ModelURI:
    """The model that it names; RolloutError where that is none of a registry."""
    given = find_model_references(service)[STORAGE_URI]
    try:
        return parse_uri(given)
    except RegistryError as error:
        name = service["metadata"]["name"]
        raise RolloutError(f"InferenceService {name}: its model is {given or 'not named'}; {error}") from error


def make_pin_patch(service: Json, uri: str) -> list[dict[str, Any]]:
    """A JSON patch that makes it name this model; refused by the API server if somebody else changed it meanwhile."""
    found = find_model_references(service)
    tests = [{"op": "test", "path": place, "value": value} for place, value in found.items()]
    return [*tests, *({"op": "replace", "path": place, "value": uri} for place in found)]


def components(service: Json) -> list[str]:
    """The components whose pods are waited for."""
    return [component for component in COMPONENTS if component in service["spec"]]


def progress(uri: str, deployments: Sequence[Json], pods: Sequence[Json]) -> Progress:
    """How far Deployments and pods are with the model of this URI."""
    new = [pod for pod in pods if _is_of_model(pod, uri) and "deletionTimestamp" not in pod["metadata"]]
    failed = next((reason for pod in new for reason in _failures(pod)), "")
    failed = failed or next((reason for one in deployments if (reason := _describe_missed_deadline(one, uri))), "")
    waiting = next((reason for one in deployments if (reason := _describe_wait(one, uri))), "")
    unplaced = next((reason for pod in new if (reason := _unschedulable(pod))), "")
    return Progress(f"{waiting}{f' ({unplaced})' if waiting and unplaced else ''}", failed)


def _is_of_model(pod: Json, uri: str) -> bool:
    return _names({"spec": pod["spec"], "annotations": pod["metadata"].get("annotations") or {}}, uri)


def _names(part: Json, uri: str) -> bool:
    """Whether the URI stands anywhere in it as a whole value."""
    return json.dumps(uri) in json.dumps(part)


def _describe_wait(deployment: Json, uri: str) -> str:
    name, status = deployment["metadata"]["name"], deployment.get("status", {})
    wanted = deployment["spec"].get("replicas", 1)
    updated = status.get("updatedReplicas", 0)
    if not _is_current(deployment, uri):
        return f"{name}: KServe has not passed the version on yet"
    if updated < wanted:
        return f"{name}: {updated} of {wanted} new pods have been made"
    if status.get("availableReplicas", 0) < updated or status.get("readyReplicas", 0) < updated:
        return f"{name}: {status.get('availableReplicas', 0)} of {updated} new pods are ready"
    if status.get("replicas", 0) > updated:
        return f"{name}: {status['replicas'] - updated} pods of the version before have not ended"
    return ""


def _is_current(deployment: Json, uri: str) -> bool:
    """Whether its status is about the model of this URI."""
    observed = deployment.get("status", {}).get("observedGeneration", 0)
    return observed >= deployment["metadata"]["generation"] and _names(deployment["spec"]["template"], uri)


def _describe_missed_deadline(deployment: Json, uri: str) -> str:
    for condition in deployment.get("status", {}).get("conditions", ()) if _is_current(deployment, uri) else ():
        if condition["type"] == "Progressing" and condition.get("reason") == "ProgressDeadlineExceeded":
            return f"{deployment['metadata']['name']}: {condition.get('message', 'its new pods are not ready in time')}"
    return ""


def _failures(pod: Json) -> Iterator[str]:
    status = pod.get("status", {})
    for container in (*status.get("initContainerStatuses", ()), *status.get("containerStatuses", ())):
        where = f"pod {pod['metadata']['name']}, {container['name']}"
        waiting = container.get("state", {}).get("waiting", {})
        if waiting.get("reason") in TERMINAL_REASONS:
            yield f"{where}: {waiting['reason']}: {waiting.get('message', '')}"
        ended = container.get("state", {}).get("terminated") or container.get("lastState", {}).get("terminated") or {}
        if not container.get("ready") and ended.get("exitCode") and container.get("restartCount", 0) >= RESTARTS:
            said = ended.get("message") or ended.get("reason") or f"ended with status {ended['exitCode']}"
            yield f"{where}: {' '.join(said.split())}"


def _unschedulable(pod: Json) -> str:
    for condition in pod.get("status", {}).get("conditions", ()):
        if condition["type"] == "PodScheduled" and condition["status"] == "False":
            return f"pod {pod['metadata']['name']} has no node: {condition.get('message', '')}"
    return ""
