"""What the checks before a run say of images, endpoints, declared objects and nodes; literals, and no server."""

import base64
import io

import pytest
from rich.console import Console

from conf_profile.config import StorageConfig
from conf_profile.errors import PreflightError
from pipelines import images, preflight
from pipelines.chart import merged
from pipelines.preflight import Finding, PreflightRequest
from pipelines.preflight.cluster import ClusterState, Unanswered, read_cluster
from pipelines.preflight.declared import declared_objects, object_findings
from pipelines.preflight.endpoint import endpoint_findings
from pipelines.preflight.image import image_findings
from pipelines.preflight.keys import find_keys
from pipelines.preflight.nodes import node_findings
from pipelines.preflight.request import Address, parse_address
from pipelines.resources import DEFAULT_STEPS, Resources, S3Secret

DIGEST = "sha256:" + "0" * 64
GPU = "nvidia.com/gpu"
GPU_TAINT = {"key": GPU, "value": "present", "effect": "NoSchedule"}


@pytest.fixture(autouse=True)
def nothing_of_this_machine(monkeypatch):
    for name in ("KUBECONFIG", "KUBERNETES_SERVICE_HOST", "AWS_CA_BUNDLE", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"):
        monkeypatch.delenv(name, raising=False)


def values(**sections):
    return Resources.model_validate(merged(Resources().values(), sections))


def request(resources=None, endpoint=None, **changes):
    return PreflightRequest(
        **{
            "image": f"registry.example/training@{DIGEST}",
            "namespace": "runs",
            "service_account": None,
            "resources": resources or values(),
            "steps": tuple(DEFAULT_STEPS),
            "addresses": {},
            "labels_addresses": {},
            "storage": StorageConfig(endpoint=endpoint),
            **changes,
        }
    )


# Image


@pytest.mark.parametrize(
    "name",
    [
        images.reference(images.IMAGES["training"], images.Settings(registry="registry.example/team")),
        "registry.example:5000/conf-profile/training:0.1.0-0123456789ab",
        f"registry.example/training@{DIGEST}",
        f"registry.example/training:latest@{DIGEST}",
    ],
)
def test_a_content_made_name_is_fine(name):
    assert image_findings(name) == []


@pytest.mark.parametrize(
    "name",
    [
        "registry.example:5000/conf-profile/training",
        "training:latest",
        "training:dev",
        "training:0.1.0",
        "training:0.1.0-0123456789abc",
        "training:0.1.0-0123456789ag",
        "training@sha256:0123",
        # The port of a registry is no tag.
        "registry.example:1-0123456789ab/training",
    ],
)
def test_a_name_that_can_stay_while_its_content_changes_is_a_warning(name):
    (found,) = image_findings(name)
    assert (found.level, "python -m pipelines.images names training" in found.remedy) == ("warning", True)
    assert found.what.startswith(f"image {name}: ")


def test_an_image_of_this_machine_alone_is_a_note():
    (found,) = image_findings("localhost/conf-profile/training:0.1.0-0123456789ab")
    assert (found.level, found.what.endswith("the nodes cannot pull it")) == ("note", True)


def test_no_image_is_the_releases_own():
    (found,) = image_findings("")
    assert (found.level, "conf-profile/training:0.1.0" in found.what) == ("note", True)


# Addresses and endpoints


@pytest.mark.parametrize(
    ("uri", "address"),
    [
        ("s3://bucket/data/x.parquet", Address("bucket", "data/x.parquet")),
        ("s3://b/k?endpoint=http%3A%2F%2Fs%3A8333&region=eu", Address("b", "k", "http://s:8333", "eu")),
        ("s3://bucket", None),
        ("/data/x.parquet", None),
        ("", None),
    ],
)
def test_an_address_has_bucket_key_endpoint_and_region(uri, address):
    assert parse_address(uri) == address


@pytest.mark.parametrize(
    ("kfp", "level"),
    [("https://kfp.example", "error"), ("http://127.0.0.1:8080", "warning"), ("", "warning")],
)
def test_an_endpoint_of_this_machine_is_none_for_pods(kfp, level):
    (found,) = endpoint_findings(request(endpoint="http://127.0.0.1:8333", kfp_endpoint=kfp))
    assert found.level == level
    assert found.what.startswith("storage.endpoint: http://127.0.0.1:8333 is this machine")
    assert "AWS_ENDPOINT_URL" in found.remedy and "s3.endpoint" in found.remedy


def test_one_local_endpoint_is_one_finding_however_often_it_is_named():
    local, there = "http://localhost:8333", values(s3={"endpoint": "http://localhost:8333"})
    addresses = {"behaviour": f"s3://b/x?endpoint={local}", "lexicon": "", "demographics": "s3://b/y"}
    (found,) = endpoint_findings(request(there, addresses=addresses, kfp_endpoint="http://kfp"))
    assert found.what.startswith(f"s3.endpoint, the address of behaviour: {local} is this machine")


def test_an_endpoint_that_pods_reach_is_fine_and_none_is_a_warning():
    assert endpoint_findings(request(values(s3={"endpoint": "http://seaweedfs.kubeflow:8333"}))) == []
    in_secret = values(pipelines={"s3Secret": {"name": "store", "endpointKey": "url"}})
    assert endpoint_findings(request(in_secret)) == []
    (found,) = endpoint_findings(request())
    assert (found.level, "set s3.endpoint" in found.remedy) == ("warning", True)


def test_certificates_that_only_this_machine_has_are_a_note(monkeypatch):
    monkeypatch.setenv("AWS_CA_BUNDLE", "/ca.pem")
    there = {"endpoint": "https://store.example"}
    (found,) = endpoint_findings(request(values(s3=there)))
    assert (found.level, "s3.caConfigMap" in found.remedy) == ("note", True)
    assert endpoint_findings(request(values(s3={**there, "caConfigMap": "authority"}))) == []


# Objects of Kubernetes

DECLARED = values(
    s3={"caConfigMap": "authority", "caKey": "ca.pem"},
    pipelines={"s3Secret": {"name": "store", "regionKey": "region"}, "teacherSecret": {"name": "teacher"}},
)
STORE = {"AWS_ACCESS_KEY_ID": "YQ==", "AWS_SECRET_ACCESS_KEY": "Yg==", "region": "Yw=="}


def state(objects, namespace=None, nodes=()):
    there = {"metadata": {"name": "runs"}} if namespace is None else namespace[0]
    return ClusterState("https://cluster", "runs", there, objects, nodes)


def test_what_the_values_name_is_what_the_cluster_is_asked_for():
    declared = declared_objects(request(DECLARED, service_account="runner", labels_secret=S3Secret(name="labels")))
    assert {(each.kind, each.name): each.keys for each in declared} == {
        ("Secret", "store"): ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "region"),
        ("Secret", "labels"): ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"),
        ("Secret", "teacher"): ("api-key",),
        ("ConfigMap", "authority"): ("ca.pem",),
        ("ServiceAccount", "runner"): (),
    }


def test_a_teachers_secret_matters_only_where_the_teacher_is_asked():
    declared = declared_objects(request(DECLARED, steps=("sft", "evaluate")))
    assert "teacher" not in {each.name for each in declared}


def test_objects_that_are_there_with_their_keys_are_fine():
    objects = {
        ("Secret", "store"): {"data": STORE},
        ("Secret", "teacher"): {"data": {"api-key": "YQ=="}},
        ("ConfigMap", "authority"): {"data": {"ca.pem": "-----"}},
    }
    assert object_findings(declared_objects(request(DECLARED)), state(objects)) == []


def test_each_missing_object_and_key_is_an_error_that_names_its_setting():
    objects = {
        ("Secret", "store"): {"data": {**STORE, "region": ""}},
        ("Secret", "teacher"): None,
        ("ConfigMap", "authority"): {"data": {"ca.crt": "-----"}},
    }
    found = object_findings(declared_objects(request(DECLARED)), state(objects))
    assert [each.level for each in found] == ["error"] * 3
    lacks, missing, authority = map(str, found)
    assert "Secret 'store' in namespace 'runs' lacks region" in lacks and "pipelines.s3Secret" in lacks
    assert "Secret 'teacher' is not in namespace 'runs' in the cluster at https://cluster" in missing
    assert "kubectl -n runs create secret generic teacher --from-literal=api-key=..." in missing
    assert "ConfigMap 'authority' in namespace 'runs' lacks ca.pem" in authority and "s3.caConfigMap" in authority


def test_a_namespace_that_is_not_there_is_one_error():
    (found,) = object_findings(declared_objects(request(DECLARED)), state({("Secret", "store"): None}, [None]))
    assert found.what == "namespace 'runs' does not exist in the cluster at https://cluster"


def test_what_the_cluster_does_not_tell_is_no_error():
    refused = Unanswered("your account may not read them")
    objects = {(each.kind, each.name): refused for each in declared_objects(request(DECLARED))}
    there = state(objects, [refused], refused)
    assert object_findings(declared_objects(request(DECLARED)), there) == []
    names = ["namespace runs", "Secret 'store'", "Secret 'teacher'", "ConfigMap 'authority'", "nodes"]
    assert there.unanswered == {refused.reason: names}


def test_without_kubeconfig_no_cluster_is_asked():
    assert set(read_cluster("runs", []).unanswered) == {"neither KUBECONFIG is set nor is this a pod"}


def test_the_steps_keys_are_the_secrets_and_stay_out_of_texts():
    encoded = base64.b64encode(b"very-secret").decode()
    body = {"data": {"AWS_ACCESS_KEY_ID": encoded, "AWS_SECRET_ACCESS_KEY": encoded}}
    there = state({("Secret", "store"): body})
    keys = find_keys(S3Secret(name="store"), "pipelines.s3Secret", there)
    assert (keys.access_key, keys.secret_key, keys.are_steps) == ("very-secret", "very-secret", True)
    assert "very-secret" not in repr(keys) and encoded not in repr(there)


@pytest.mark.parametrize(
    ("secret", "body", "why"),
    [
        (S3Secret(), None, "a role of their service account"),
        (S3Secret(name="store"), None, "there is no Secret 'store'"),
        (S3Secret(name="store"), Unanswered("forbidden"), "Secret 'store' cannot be read here: forbidden"),
        (S3Secret(name="store"), {"data": {"AWS_ACCESS_KEY_ID": "YQ=="}}, "holds no keys"),
        (S3Secret(name="store"), {"data": {**STORE, "AWS_SECRET_ACCESS_KEY": "/w=="}}, "holds no keys"),
    ],
)
def test_for_want_of_the_steps_keys_the_callers_are_used_and_it_is_said_why(secret, body, why):
    keys = find_keys(secret, "pipelines.s3Secret", state({("Secret", "store"): body}))
    assert (keys.access_key, keys.are_steps, why in keys.why_own) == (None, False, True)


# Nodes

ON_GPUS = values(
    nodePools={
        "gpu": {
            "nodeSelector": {"pool": "gpu"},
            "tolerations": [{"key": GPU, "operator": "Exists"}],
            "gpu": {"count": 4},
        }
    },
    pipelines={"steps": {"grpo": {"pool": "gpu", "gpus": 2, "requests": {"cpu": 4, "memory": "16Gi"},
                                  "limits": {"cpu": 8, "memory": "32Gi"}}}},
)  # fmt: skip


def node(cpu="8", memory="32Gi", gpus=0, labels=None, taints=(), **spec):
    room = {"cpu": cpu, "memory": memory, **({GPU: str(gpus)} if gpus else {})}
    return {
        "metadata": {"name": "node-1", "labels": labels or {}},
        "spec": {"taints": list(taints), **spec},
        "status": {"allocatable": room},
    }


def gpu_node(**changes):
    return node(**{"gpus": 4, "labels": {"pool": "gpu"}, "taints": [GPU_TAINT], **changes})


def test_pools_that_fit_are_fine():
    assert node_findings(ON_GPUS, ("sft", "grpo"), [node(), gpu_node()]) == []


def test_steps_that_ask_for_the_same_are_one_finding():
    (found,) = node_findings(values(), ("sft", "grpo", "evaluate"), [node(memory="1Gi")])
    assert found.what == (
        "sft, grpo, evaluate (pool cpu; cpu 500m, memory 2Gi): no node of the pool is large enough; "
        "node-1 has memory 1Gi"
    )


@pytest.mark.parametrize(
    ("nodes", "level", "what"),
    [
        ([], "warning", "there is no node with the labels pool=gpu and nvidia.com/gpu now"),
        ([node(gpus=4)], "warning", "there is no node with the labels pool=gpu"),
        # Its driver is not there yet, or the labels are those of another pool.
        ([gpu_node(gpus=0)], "warning", "there is no node with the labels pool=gpu"),
        ([gpu_node(gpus=1)], "error", "node-1 has nvidia.com/gpu 1"),
        ([gpu_node(cpu="3920m")], "error", "node-1 has cpu 3920m"),
        ([gpu_node(memory="16777215Ki")], "error", "node-1 has memory 16777215Ki"),
        ([gpu_node(cpu="1", gpus=1), gpu_node(cpu="1")], "error", "node-1 has cpu 1"),
        ([gpu_node(taints=[{"key": "spot", "effect": "NoExecute"}])], "error", "does not tolerate: spot=:NoExecute"),
        ([gpu_node(unschedulable=True)], "warning", "node.kubernetes.io/unschedulable=:NoSchedule"),
        ([gpu_node(taints=[{"key": "node.kubernetes.io/not-ready", "effect": "NoSchedule"}])], "warning", "not-ready"),
    ],
)
def test_pools_that_do_not_fit(nodes, level, what):
    (found,) = node_findings(ON_GPUS, ("grpo",), nodes)
    assert found.level == level
    assert found.what.startswith("grpo (pool gpu; cpu 4, memory 16Gi, nvidia.com/gpu 2): ") and what in found.what


@pytest.mark.parametrize("memory", ["16Gi", "16777216Ki", "17179869184", "17180M", "18e9", "17179869184000m"])
def test_memory_is_compared_as_kubernetes_writes_it(memory):
    assert node_findings(ON_GPUS, ("grpo",), [gpu_node(memory=memory)]) == []


@pytest.mark.parametrize(
    ("toleration", "fits"),
    [
        ({"operator": "Exists"}, True),
        ({"key": GPU, "operator": "Exists"}, True),
        ({"key": GPU, "value": "present"}, True),
        ({"key": GPU, "operator": "Equal", "value": "present", "effect": "NoSchedule"}, True),
        ({"key": GPU, "operator": "Equal", "value": "absent"}, False),
        ({"key": GPU, "operator": "Exists", "effect": "NoExecute"}, False),
        ({"key": "spot", "operator": "Exists"}, False),
        ({"key": GPU}, False),
    ],
)
def test_taints_are_tolerated_by_the_schedulers_rule(toleration, fits):
    there = values(nodePools={"cpu": {"tolerations": [toleration]}})
    found = node_findings(there, ("sft",), [node(taints=[GPU_TAINT])])
    assert [each.level for each in found] == ([] if fits else ["error"])


def test_a_taint_that_only_prefers_keeps_nothing_off():
    assert node_findings(values(), ("sft",), [node(taints=[{"key": "x", "effect": "PreferNoSchedule"}])]) == []


# All findings


def test_all_errors_are_raised_at_once_and_the_rest_is_printed():
    output = io.StringIO()
    found = [
        Finding("error", "s3://b/x does not exist", "upload it"),
        Finding("warning", "the image [bold] may change", "use a digest"),
        Finding("note", "the nodes were not asked", "set KUBECONFIG"),
        Finding("error", "no Secret 'store'", "create it"),
    ]
    with pytest.raises(PreflightError) as raised:
        preflight.require(found, Console(file=output, width=40))
    assert str(raised.value) == (
        "nothing was started:\n  - s3://b/x does not exist; upload it\n  - no Secret 'store'; create it"
    )
    assert output.getvalue() == (
        "warning: the image [bold] may change; use a digest\nnote: the nodes were not asked; set KUBECONFIG\n"
    )


def test_without_errors_the_run_may_start():
    preflight.require([Finding("warning", "something", "do it")], Console(file=io.StringIO()))
