"""Every pod of every accepted set of values: Pod Security `restricted`, requests and limits, probes, no token."""

import pytest

from support.chart_manifests import MATRIX, pods, render

PODS = [
    pytest.param(spec, id=f"{name}:{pod}")
    for name, layers in MATRIX.items()
    for pod, spec in pods(render(*layers)).items()
]
CONTAINERS = [
    pytest.param(pod.values[0], container, id=f"{pod.id}:{container['name']}")
    for pod in PODS
    for container in [*pod.values[0].get("initContainers", []), *pod.values[0]["containers"]]
]


@pytest.mark.parametrize("spec", PODS)
def test_a_pod_is_restricted(spec):
    context = spec["securityContext"]
    assert context["runAsNonRoot"] is True
    assert context["seccompProfile"] == {"type": "RuntimeDefault"}
    assert not {"hostNetwork", "hostPID", "hostIPC"} & set(spec)
    kinds = {key for volume in spec.get("volumes", []) for key in volume if key != "name"}
    assert kinds <= {"configMap", "secret", "emptyDir", "persistentVolumeClaim", "projected"}


@pytest.mark.parametrize("spec", PODS)
def test_a_pod_has_no_token_of_the_api_server(spec):
    assert spec["automountServiceAccountToken"] is False
    assert spec["enableServiceLinks"] is False


@pytest.mark.parametrize("spec", PODS)
def test_every_mount_has_its_volume(spec):
    volumes = [volume["name"] for volume in spec.get("volumes", [])]
    mounts = [
        mount["name"]
        for container in [*spec.get("initContainers", []), *spec["containers"]]
        for mount in container.get("volumeMounts", [])
    ]
    assert len(volumes) == len(set(volumes))
    assert set(mounts) == set(volumes)


@pytest.mark.parametrize(("spec", "container"), CONTAINERS)
def test_a_container_is_restricted(spec, container):
    context = container["securityContext"]
    assert context["allowPrivilegeEscalation"] is False
    assert context["readOnlyRootFilesystem"] is True
    assert context["runAsNonRoot"] is True
    assert context["capabilities"] == {"drop": ["ALL"]}
    assert context["seccompProfile"] == {"type": "RuntimeDefault"}


@pytest.mark.parametrize(("spec", "container"), CONTAINERS)
def test_a_container_has_requests_and_limits(spec, container):
    for kind in ("requests", "limits"):
        assert {"cpu", "memory"} <= set(container["resources"][kind])


@pytest.mark.parametrize(("spec", "container"), CONTAINERS)
def test_a_container_has_an_image_with_a_tag_and_a_last_word(spec, container):
    repository, _, tag = container["image"].rpartition(":")
    assert repository and tag != "latest"
    assert container["terminationMessagePolicy"] == "FallbackToLogsOnError"


@pytest.mark.parametrize(("spec", "container"), CONTAINERS)
def test_what_stays_has_probes(spec, container):
    stays = spec.get("restartPolicy", "Always") == "Always" and container in spec["containers"]
    probes = {"startupProbe", "readinessProbe", "livenessProbe"} & set(container)
    assert probes == ({"startupProbe", "readinessProbe", "livenessProbe"} if stays else set())


@pytest.mark.parametrize(("spec", "container"), CONTAINERS)
def test_no_secret_stands_in_a_pod(spec, container):
    given = {entry["name"]: entry for entry in container.get("env", [])}
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "REDIS_PASSWORD", "REDISCLI_AUTH"):
        assert "value" not in given.get(name, {})


def test_the_cluster_may_choose_the_user():
    for spec in pods(render({"podSecurity": {"user": None, "group": None}})).values():
        assert set(spec["securityContext"]) == {"runAsNonRoot", "seccompProfile"}


def test_the_user_is_a_number_however_large():
    for spec in pods(render({"podSecurity": {"user": 1000670000, "group": 1000670000}})).values():
        assert spec["securityContext"]["runAsUser"] == 1000670000
