"""The chart as the tests see it: rendered objects, every pod that comes of them, and the message of a refusal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import helm_python
import yaml

from charts.chart import CHART, EVERY_OPTION, EXAMPLE
from conf_profile.config_layers import merge

RELEASE, NAMESPACE = "prod", "profiles"
NAME = f"{RELEASE}-conf-profile"
PRESETS: Mapping[str, Mapping[str, Any]] = {
    preset: yaml.safe_load((CHART / f"values-{preset}.yaml").read_text(encoding="utf-8"))
    for preset in ("cpu", "gpu", "production")
}
OWN_REDIS = {"features": {"onlineStore": {"address": "redis.data:6380", "tls": True, "inside": {"enabled": False}}}}
NO_POLICY = {"networkPolicy": {"enabled": False}}
INGRESS = [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "ingress"}}}]
EXTERNAL = {"serving": {"external": True}, "networkPolicy": {"callers": INGRESS}}
MATRIX: Mapping[str, Sequence[Mapping[str, Any]]] = {
    "default": [],
    "cpu": [PRESETS["cpu"]],
    "gpu": [PRESETS["gpu"]],
    "everything-gpu": [PRESETS["gpu"], EVERY_OPTION],
    "everything-cpu": [
        PRESETS["cpu"],
        EVERY_OPTION,
        {"serving": {"predictor": {"autoscaling": {"type": "hpa"}}}, "pipelines": {"namespace": ""}},
        {"pipelines": {"retention": {"cronJob": {"enabled": True}}}},
    ],
    "production": [PRESETS["gpu"], PRESETS["production"], EVERY_OPTION],
    "serving-alone": [{"features": {"enabled": False}}, NO_POLICY],
    "features-alone": [{"serving": {"enabled": False}}],
    "pipelines-alone": [
        {"serving": {"enabled": False}, "features": {"enabled": False}},
        {"pipelines": {"enabled": True, "s3Secret": {"name": "s3"}}},
    ],
    "own-redis": [OWN_REDIS],
    "own-password": [{"features": {"onlineStore": {"existingSecret": "online-store"}}, "prepare": {"enabled": False}}],
    "volatile-store": [
        {"features": {"onlineStore": {"inside": {"persistence": {"enabled": False}, "program": "redis"}}}}
    ],
    "workload-identity": [
        {"s3": {"existingSecret": "", "workloadIdentity": True, "caConfigMap": "company-ca"}},
        {"serving": {"serviceAccount": {"annotations": {"eks.amazonaws.com/role-arn": "arn:aws:iam::1:role/r"}}}},
    ],
    "users-of-the-clusters-choice": [{"podSecurity": {"user": None, "group": None}}],
    "shaped": [
        EXTERNAL,
        {
            "commonLabels": {"team": "ml"},
            "imagePullSecrets": [{"name": "registry"}],
            "networkPolicy": {"s3Ports": [8333], "s3Peers": [{"ipBlock": {"cidr": "10.0.0.0/8"}}]},
            "serving": {
                "version": "20260101-000000-abcdef12",
                "thresholds": {"age": 4},
                "transformer": {
                    "affinity": {"nodeAffinity": {}},
                    "podLabels": {"sidecar.istio.io/inject": "false"},
                    "podAnnotations": {"note": "x"},
                    "extraEnv": [{"name": "LOG", "value": "1"}],
                },
                "predictor": {"extraArgs": ["--seed=1"], "maxModelLength": 512, "dtype": "float32"},
            },
        },
    ],
}
"""Sets of values that must be accepted, each laid over the example's."""
_KSERVES_OWN = {"model", "annotations", "labels", "minReplicas", "maxReplicas", "deploymentStrategy"}


@cache
def chart() -> helm_python.Chart:
    return helm_python.Chart.load(CHART)


def render(*layers: Mapping[str, Any], example: Mapping[str, Any] = EXAMPLE) -> list[dict[str, Any]]:
    """The objects of these values over the example's."""
    rendered = chart().render(merge(example, *layers), name=RELEASE, namespace=NAMESPACE)
    texts = [text for path, text in sorted(rendered.items()) if path.endswith(".yaml")]
    return [document for text in texts for document in yaml.safe_load_all(text) if document]


def notes(*layers: Mapping[str, Any]) -> str:
    """What Helm prints after an installation."""
    return chart().render(merge(EXAMPLE, *layers), name=RELEASE, namespace=NAMESPACE)[
        "conf-profile/templates/NOTES.txt"
    ]


def refusal(*layers: Mapping[str, Any], example: Mapping[str, Any] = EXAMPLE) -> str:
    """The message with which Helm refuses these values."""
    try:
        render(*layers, example=example)
    except helm_python.HelmError as error:
        return str(error)
    raise AssertionError("these values were accepted")


def of_kind(documents: Sequence[Mapping[str, Any]], kind: str) -> dict[str, Any]:
    """The objects of a kind by their names."""
    return {document["metadata"]["name"]: document for document in documents if document["kind"] == kind}


def one(documents: Sequence[Mapping[str, Any]], kind: str) -> Any:
    """The only object of a kind."""
    (found,) = of_kind(documents, kind).values()
    return found


def pods(documents: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """The spec of every pod that comes of the objects, those that KServe makes included."""
    found: dict[str, dict[str, Any]] = {}
    for document in documents:
        name = f"{document['kind']}/{document['metadata']['name']}"
        if document["kind"] == "Pod":
            found[name] = document["spec"]
        elif document["kind"] in ("Deployment", "Job"):
            found[name] = document["spec"]["template"]["spec"]
        elif document["kind"] == "CronJob":
            found[name] = document["spec"]["jobTemplate"]["spec"]["template"]["spec"]
        elif document["kind"] == "InferenceService":
            found[f"{name}/predictor"] = predictor_pod(documents)
            found[f"{name}/transformer"] = _without_kserves_own(document["spec"]["transformer"])
    return found


def predictor_pod(documents: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """InferenceService, ServingRuntime and ClusterStorageContainer put together as KServe does it."""
    service = one(documents, "InferenceService")["spec"]["predictor"]
    runtime = one(documents, "ServingRuntime")["spec"]
    initialisers = [
        {**container["spec"]["container"], "volumeMounts": _models(container["spec"]["container"], False)}
        for container in of_kind(documents, "ClusterStorageContainer").values()
    ]
    containers = [{**container, "volumeMounts": _models(container, True)} for container in runtime["containers"]]
    return {
        **_without_kserves_own(service),
        "initContainers": initialisers,
        "containers": containers,
        "volumes": [*service["volumes"], {"name": "models", "emptyDir": {}}],
    }


def _models(container: Mapping[str, Any], read_only: bool) -> list[dict[str, Any]]:
    return [*container.get("volumeMounts", []), {"name": "models", "mountPath": "/mnt/models", "readOnly": read_only}]


def _without_kserves_own(component: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in component.items() if key not in _KSERVES_OWN}


def environment(container: Mapping[str, Any]) -> dict[str, Any]:
    """Variable -> its value, or where it comes from."""
    return {entry["name"]: entry.get("value", entry.get("valueFrom")) for entry in container.get("env", [])}
