"""Where the scheduler puts pods, on simulated nodes: GPU pools are for what needs a GPU, and for nothing else."""

import json

import pytest
import yaml

from pipelines import resources
from support.chart_manifests import EXAMPLE, PRESETS
from support.cluster.kube import CommandError, until
from support.cluster.simulated_nodes import AVOIDED, GPU_TAINT, node, simulated
from support.paths import GOLDEN

SAMPLE = GOLDEN / "values-gpu-sample.yaml"
GPU = "nvidia.com/gpu"
GPU_NODE = {"nvidia.com/gpu.present": "true"}
TRAINING_NODE = {"pool": "gpu", "accelerator": "a100"}
ON_SIMULATED_NODES = {
    "nodePools": {"cpu": {"nodeSelector": {"pool": "cpu"}}},
    # Nobody provides volumes on nodes that are not there.
    "features": {"onlineStore": {"inside": {"persistence": {"enabled": False}}}},
}


@pytest.fixture(scope="module")
def nodes(cluster):
    """Two nodes as values-gpu.yaml wants them, one of the sample's pool for each step that trains, one without GPUs."""
    spot = {"key": "spot", "value": "true", "effect": "NoExecute"}
    training = sum(1 for step in resources.load([SAMPLE]).pipelines.steps.values() if step.gpus)
    pools = [
        *(node(GPU_NODE, [GPU_TAINT], gpus=1) for _ in range(2)),
        *(node(TRAINING_NODE, [GPU_TAINT, spot], gpus=4) for _ in range(training)),
        node({"pool": "cpu"}, [AVOIDED]),
    ]
    with simulated(cluster, *pools):
        yield {each["metadata"]["name"]: each["metadata"]["labels"] for each in cluster.get("nodes")}


@pytest.fixture
def release(namespace, kserve):
    namespace.secret("object-store", AWS_ACCESS_KEY_ID="key", AWS_SECRET_ACCESS_KEY="secret")
    return namespace.release()


def install(release, *layers):
    release.install(EXAMPLE, PRESETS["gpu"], ON_SIMULATED_NODES, *layers)


def predictors(release):
    return release.namespace.pods(f"serving.kserve.io/inferenceservice={release.fullname},component=predictor")


def placed(namespace, count):
    """All `count` pods, once each has a node."""

    def probe():
        found = namespace.pods()
        return len(found) == count and all(pod["spec"].get("nodeName") for pod in found) and found

    return until(f"{count} pods have a node", probe)


def gpus_of(pod):
    return sum(int(container["resources"]["limits"].get(GPU, 0)) for container in pod["spec"]["containers"])


def test_with_values_gpu_the_predictor_is_on_the_gpu_pool_and_nothing_else_is(release, nodes):
    install(release)
    namespace = release.namespace
    for part in ("materialise", "erase"):
        namespace.kubectl("create", "job", f"{part}-now", f"--from=cronjob/{release.fullname}-{part}")
    hooks = yaml.safe_load_all(release.helm("get hooks"))
    (test_pod,) = (document for document in hooks if document["kind"] == "Pod")
    namespace.apply(test_pod)

    # 2 predictors, 3 transformers, the online store, three jobs, the pod of `helm test`.
    pods = placed(namespace, 10)
    on_gpu_nodes = [pod for pod in pods if GPU_TAINT["key"] in taints(namespace, pod)]
    assert [pod["metadata"]["labels"].get("component") for pod in on_gpu_nodes] == ["predictor"] * 2
    assert [gpus_of(pod) for pod in on_gpu_nodes] == [1, 1]
    assert all(GPU_NODE.items() <= nodes[pod["spec"]["nodeName"]].items() for pod in on_gpu_nodes)
    namespace.wait("condition=Available", "deployments", "--all")


def taints(namespace, pod):
    return {taint["key"] for taint in namespace.get("node", pod["spec"]["nodeName"])["spec"].get("taints", [])}


def test_every_step_of_the_pipeline_is_on_its_pool(namespace, nodes):
    steps = compiled_steps()
    namespace.apply(*steps.values())
    wanted = resources.load([SAMPLE])
    assert steps
    for pod in placed(namespace, len(steps)):
        step = pod["metadata"]["name"].replace("-", "_")
        selector = wanted.pool_of(step).node_selector
        assert selector and selector.items() <= nodes[pod["spec"]["nodeName"]].items(), step
        assert gpus_of(pod) == wanted.pipelines.steps[step].gpus, step


def compiled_steps():
    """A plain pod for each step, with what the compiled pipeline says of it, as KFP's driver reads it."""
    pipeline, platform = yaml.safe_load_all((GOLDEN / "training-pipeline-gpu.yaml").read_text(encoding="utf-8"))
    kubernetes = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    return {
        name: step_pod(name.removeprefix("exec-"), executor["container"], kubernetes[name])
        for name, executor in pipeline["deploymentSpec"]["executors"].items()
        if "container" in executor
    }


def step_pod(name, container, kubernetes):
    given = container["resources"]
    accelerator = given.get("accelerator")
    gpu = {accelerator["resourceType"]: accelerator["resourceCount"]} if accelerator else {}
    tolerations = [
        {key: int(value) if key == "tolerationSeconds" else value for key, value in toleration.items()}
        for toleration in kubernetes.get("tolerations", [])
    ]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name},
        "spec": {
            "nodeSelector": kubernetes["nodeSelector"]["labels"],
            "tolerations": tolerations,
            "securityContext": {**kubernetes["securityContext"], "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [
                {
                    "name": "main",
                    "image": container["image"],
                    "resources": {
                        "requests": {"cpu": given["resourceCpuRequest"], "memory": given["resourceMemoryRequest"]},
                        "limits": {"cpu": given["resourceCpuLimit"], "memory": given["resourceMemoryLimit"], **gpu},
                    },
                    "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
                }
            ],
        },
    }


@pytest.mark.parametrize(
    ("pool", "gpus", "reason"),
    [
        ({"gpu": {"count": 16}}, 16, "Insufficient nvidia.com/gpu"),
        ({"nodeSelector": {"gpu.product": "none"}}, 1, "didn't match Pod's node affinity/selector"),
        ({"tolerations": []}, 1, "had untolerated taint"),
    ],
    ids=["too-many", "no-such-node", "not-tolerated"],
)
def test_a_predictor_without_a_place_waits_and_says_why(release, nodes, pool, gpus, reason):
    install(release, {"nodePools": {"gpu": pool}, "serving": {"predictor": {"gpus": gpus}}})

    def refusals():
        return [
            condition["message"]
            for pod in predictors(release)
            for condition in pod["status"].get("conditions", [])
            if condition["type"] == "PodScheduled" and condition["status"] == "False"
        ]

    messages = until("both predictors are refused by the scheduler", lambda: len(refusals()) == 2 and refusals())
    assert all(reason in message for message in messages)
    assert all(pod["status"]["phase"] == "Pending" for pod in predictors(release))
    # The command of NOTES.txt shows it.
    assert reason in release.namespace.kubectl("get", "events", "--field-selector=type=Warning")


def test_a_disruption_budget_stops_an_eviction(release, nodes):
    install(release)
    namespace = release.namespace
    namespace.wait("condition=Available", "deployments", "--all")
    budget = f"{release.fullname}-predictor"
    until("one may go", lambda: namespace.get("poddisruptionbudget", budget)["status"].get("disruptionsAllowed") == 1)
    first, second = (pod["metadata"]["name"] for pod in predictors(release))
    cordoned = [name for name, labels in nodes.items() if GPU_NODE.items() <= labels.items()]
    for name in cordoned:
        namespace.cluster.kubectl("cordon", name)
    try:
        evict(namespace, first)
        until("its successor waits for a node", lambda: pending(predictors(release)))
        with pytest.raises(CommandError, match="would violate the pod's disruption budget"):
            evict(namespace, second)
        assert second in {pod["metadata"]["name"] for pod in predictors(release)}
    finally:
        for name in cordoned:
            namespace.cluster.kubectl("uncordon", name)
    until("its successor has found one", lambda: not pending(predictors(release)))
    until("another may go", lambda: namespace.get("poddisruptionbudget", budget)["status"]["disruptionsAllowed"] == 1)
    evict(namespace, second)


def pending(pods):
    return [pod for pod in pods if not pod["spec"].get("nodeName")]


def evict(namespace, pod):
    """What `kubectl drain` asks for each pod of a node."""
    eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": pod, "namespace": namespace.name}}
    path = f"/api/v1/namespaces/{namespace.name}/pods/{pod}/eviction"
    namespace.kubectl("create", f"--raw={path}", "--filename=-", given=json.dumps(eviction))
