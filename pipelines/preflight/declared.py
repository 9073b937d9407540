"""The objects of Kubernetes that the values name, and whether they are there with their keys. Pure: no cluster here."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from components.steps import BY_NAME
from pipelines.preflight.cluster import Body, ClusterState, DeclaredObject, UnansweredQuestion
from pipelines.preflight.finding import Finding
from pipelines.preflight.request import PreflightRequest
from pipelines.resources import S3Secret

LABELS_SECRET = "pipelines.labelsSecret"
STEPS_SECRET = "pipelines.s3Secret"


def declared_objects(request: PreflightRequest) -> list[DeclaredObject]:
    """Secrets, ConfigMap and service account of the run, as far as the values name any."""
    pipelines, s3 = request.resources.pipelines, request.resources.s3
    teacher = pipelines.teacher_secret if any(BY_NAME[step].asks_teacher for step in request.steps) else None
    objects = [
        _secret(pipelines.s3_secret, STEPS_SECRET),
        _secret(request.labels_secret, LABELS_SECRET),
        DeclaredObject(
            "Secret", teacher.name if teacher else "", "pipelines.teacherSecret", (teacher.key,) if teacher else ()
        ),
        DeclaredObject("ConfigMap", s3.ca_config_map, "s3.caConfigMap", (s3.ca_key,)),
        DeclaredObject("ServiceAccount", request.service_account or "", "--service-account"),
    ]
    return [each for each in objects if each.name]


def _secret(secret: S3Secret, setting: str) -> DeclaredObject:
    return DeclaredObject("Secret", secret.name, setting, tuple(secret.environment().values()))


def object_findings(declared: Iterable[DeclaredObject], state: ClusterState) -> list[Finding]:
    """An error for whatever is not there; nothing for what the cluster did not tell."""
    if state.namespace_object is None:
        return [
            Finding(
                "error",
                f"namespace {state.namespace!r} does not exist {_describe_place(state)}",
                "create it, or correct it (--namespace); where KFP runs in another cluster, set KUBECONFIG to it",
            )
        ]
    return [found for each in declared for found in _findings(each, state)]


def _findings(declared: DeclaredObject, state: ClusterState) -> Iterator[Finding]:
    body = state.objects.get((declared.kind, declared.name))
    if isinstance(body, UnansweredQuestion):
        return
    if body is None:
        yield Finding(
            "error",
            f"{declared} is not in namespace {state.namespace!r} {_describe_place(state)}",
            f"create it{_example(declared, state.namespace)}, or correct {declared.setting}",
        )
        return
    missing = [key for key in declared.keys if not _value(body, key)]
    if missing:
        yield Finding(
            "error",
            f"{declared} in namespace {state.namespace!r} lacks {', '.join(missing)}, or has it empty",
            f"add the key, or correct the names of the keys at {declared.setting}",
        )


def _value(body: Body, key: str) -> object:
    return (body.get("data") or {}).get(key) or (body.get("binaryData") or {}).get(key)


def _example(declared: DeclaredObject, namespace: str) -> str:
    flags = {"Secret": "secret generic", "ConfigMap": "configmap", "ServiceAccount": "serviceaccount"}
    option = "--from-file" if declared.kind == "ConfigMap" else "--from-literal"
    keys = "".join(f" {option}={key}=..." for key in declared.keys)
    return f" (kubectl -n {namespace} create {flags[declared.kind]} {declared.name}{keys})"


def _describe_place(state: ClusterState) -> str:
    return f"in the cluster at {state.server}"
