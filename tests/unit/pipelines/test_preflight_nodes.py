"""Which pools fit which nodes, by the scheduler's rules; nodes are literals as Kubernetes' API has them."""

import pytest

from conf_profile.config_layers import merge
from pipelines.preflight.nodes import node_findings
from pipelines.resources import Resources

GPU = "nvidia.com/gpu"
GPU_TAINT = {"key": GPU, "value": "present", "effect": "NoSchedule"}


def values(**sections):
    return Resources.model_validate(merge(Resources().values(), sections))


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
    (found,) = node_findings(values(), ("sft", "grpo", "evaluation"), [node(memory="1Gi")])
    assert found.what == (
        "sft, grpo, evaluation (pool cpu; cpu 500m, memory 2Gi): no node of the pool is large enough; "
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
