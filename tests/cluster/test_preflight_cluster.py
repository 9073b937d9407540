"""What the checks before a run read of a real cluster: declared objects, rights, and nodes with GPUs."""

import pytest
import yaml

from conf_profile.config import StorageConfig
from conf_profile.config_layers import merge
from pipelines.preflight import PreflightRequest
from pipelines.preflight.checks import cluster_findings
from pipelines.preflight.cluster import read_cluster
from pipelines.preflight.declared import declared_objects
from pipelines.preflight.stores.keys import find_keys
from pipelines.resources import Resources
from support.cluster.kube import until
from support.cluster.simulated_nodes import GPU_TAINT, node, simulated

VALUES = {
    "s3": {"caConfigMap": "authority"},
    "pipelines": {
        "s3Secret": {"name": "store"},
        "teacherSecret": {"name": "teacher"},
        "steps": {"synthesis": {"pool": "large"}, "grpo": {"pool": "large", "gpus": 2}},
    },
}


@pytest.fixture
def declared(namespace):
    """Everything that VALUES name, in a namespace of the test's own."""
    namespace.secret("store", AWS_ACCESS_KEY_ID="key", AWS_SECRET_ACCESS_KEY="secret")
    namespace.secret("teacher", **{"api-key": "token"})
    namespace.kubectl("create", "configmap", "authority", "--from-literal=ca.crt=-----")
    namespace.kubectl("create", "serviceaccount", "runner")
    return namespace


def looked_at(namespace, gpus=8):
    """Findings and state; the pool is the test's own, by its label."""
    pool = {"nodeSelector": {"pool": namespace.name}, "gpu": {"count": gpus}}
    pool["tolerations"] = [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}]
    steps = {"pipelines": {"steps": {"grpo": {"gpus": gpus}}}} if gpus > 2 else {}
    values = merge(Resources().values(), VALUES, {"nodePools": {"large": pool}}, steps)
    request = PreflightRequest(
        image="", namespace=namespace.name, service_account="runner", resources=Resources.model_validate(values),
        steps=("synthesis", "grpo"), addresses={}, labels_addresses={}, storage=StorageConfig(),
    )  # fmt: skip
    state = read_cluster(namespace.name, declared_objects(request))
    return request, state, [(found.level, found.what) for found in cluster_findings(request, state)]


def test_declared_objects_and_pools_of_a_real_cluster(declared, cluster, monkeypatch):
    monkeypatch.setenv("KUBECONFIG", cluster.kubeconfig)
    request, state, found = looked_at(declared, gpus=2)
    assert [level for level, _ in found] == ["warning", "warning"], "the pool has no node yet"

    with simulated(cluster, node({"pool": declared.name}, [GPU_TAINT], gpus=4)) as (name,):
        # A new node keeps its taint of not being ready for a moment.
        until("the pool fits", lambda: looked_at(declared, gpus=2)[2] == [])
        keys = find_keys(request.resources.pipelines.s3_secret, "pipelines.s3Secret", state)
        assert (keys.access_key, keys.secret_key) == ("key", "secret")

        declared.kubectl("delete", "secret/teacher", "configmap/authority", "serviceaccount/runner")
        _, _, found = looked_at(declared, gpus=8)
        where = f"is not in namespace {declared.name!r} in the cluster at {state.server}"
        assert found[:3] == [
            ("error", f"Secret 'teacher' {where}"),
            ("error", f"ConfigMap 'authority' {where}"),
            ("error", f"ServiceAccount 'runner' {where}"),
        ]
        ((level, what),) = found[3:]
        assert (level, what.endswith(f"{name} has nvidia.com/gpu 4")) == ("error", True)


def test_an_account_with_few_rights_is_told_what_was_not_looked_at(declared, cluster, monkeypatch, tmp_path):
    declared.kubectl("create", "role", "reader", "--verb=get", "--resource=secrets")
    declared.kubectl("create", "rolebinding", "reader", "--role=reader", f"--serviceaccount={declared.name}:runner")
    config = yaml.safe_load(cluster.kubectl("config", "view", "--raw", "--minify", "--flatten"))
    config["users"] = [{"name": "runner", "user": {"token": declared.kubectl("create", "token", "runner").strip()}}]
    config["contexts"][0]["context"]["user"] = "runner"
    path = tmp_path / "kubeconfig"
    path.write_text(yaml.safe_dump(config))
    monkeypatch.setenv("KUBECONFIG", str(path))

    _, _, ((level, what),) = looked_at(declared)
    assert (level, what) == (
        "note",
        f"not checked in the cluster: namespace {declared.name}, ConfigMap 'authority', ServiceAccount 'runner', nodes "
        "(your account may not read them)",
    )
