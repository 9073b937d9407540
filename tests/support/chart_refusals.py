"""Values that must be refused, with a part of the message that each must bring."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

Refused = Sequence[tuple[Mapping[str, Any], str]]
REFUSED_BY_THE_SCHEMA: Refused = [
    ({"servng": {}}, "servng"),
    ({"serving": {"replicas": 2}}, "/serving': additional properties 'replicas'"),
    ({"serving": {"predictor": {"replicas": "2"}}}, "/serving/predictor/replicas': got string, want integer"),
    ({"serving": {"predictor": {"replicas": 0}}}, "/serving/predictor/replicas"),
    ({"serving": {"predictor": {"device": "tpu"}}}, "/serving/predictor/device"),
    ({"serving": {"predictor": {"gpuMemoryUtilization": 90}}}, "/serving/predictor/gpuMemoryUtilization"),
    ({"serving": {"predictor": {"resources": {"requests": {"memory": "lots"}}}}}, "resources/requests/memory"),
    (
        {"serving": {"predictor": {"resources": {"limits": {"gpu": 1}}}}},
        "resources/limits': additional properties 'gpu'",
    ),
    ({"serving": {"predictor": {"autoscaling": {"type": "vpa"}}}}, "/serving/predictor/autoscaling/type"),
    ({"serving": {"transformer": {"extraEnv": [{"name": "A"}]}}}, "/serving/transformer/extraEnv/0"),
    ({"serving": {"thresholds": {"age": 6}}}, "/serving/thresholds/age"),
    ({"serving": {"deadlineSeconds": 0}}, "/serving/deadlineSeconds"),
    ({"serving": {"name": "Conf Profile"}}, "/serving/name"),
    ({"serving": {"version": "a/../b"}}, "/serving/version"),
    ({"images": {"serving": {"tag": "latest"}}}, "/images/serving/tag"),
    ({"images": {"serving": {"pullPolicy": "Sometimes"}}}, "/images/serving/pullPolicy"),
    ({"s3": {"endpoint": "s3.example.com"}}, "/s3/endpoint"),
    ({"s3": {"bucket": "Bad_Bucket"}}, "/s3/bucket"),
    ({"nodePools": {"gpu": {"tolerations": [{"key": "a", "effect": "NoRun"}]}}}, "/nodePools/gpu/tolerations/0/effect"),
    ({"nodePools": {"gpu": {"taints": []}}}, "/nodePools/gpu': additional properties 'taints'"),
    ({"networkPolicy": {"callers": [{"namespace": "x"}]}}, "/networkPolicy/callers/0"),
    ({"features": {"materialise": {"schedule": "hourly"}}}, "/features/materialise/schedule"),
    ({"features": {"onlineStore": {"address": "redis"}}}, "/features/onlineStore/address"),
    ({"pipelines": {"steps": {"sfft": {}}}}, "/pipelines/steps': additional properties 'sfft'"),
    ({"pipelines": {"steps": {"sft": {"requests": {"cpu": "much"}}}}}, "/pipelines/steps/sft/requests/cpu"),
    ({"pipelines": {"teacherSecret": {"env": "1KEY"}}}, "/pipelines/teacherSecret/env"),
    ({"monitoring": {"alerts": {"failures": 2}}}, "/monitoring/alerts/failures"),
    ({"prepare": {"timeoutSeconds": 0}}, "/prepare/timeoutSeconds"),
    ({"podSecurity": {"user": 0}}, "/podSecurity/user"),
]
REFUSED_BY_THE_CHART: Refused = [
    ({"s3": {"endpoint": ""}}, "s3.endpoint is empty"),
    ({"s3": {"existingSecret": ""}}, "s3.existingSecret is empty and s3.workloadIdentity is false"),
    ({"s3": {"workloadIdentity": True}}, "s3.existingSecret and s3.workloadIdentity exclude each other"),
    (
        {"serving": {"enabled": False}, "features": {"enabled": False}},
        "serving.enabled, features.enabled and pipelines.enabled are all false",
    ),
    ({"serving": {"predictor": {"device": "gpu"}}}, "serving.predictor.device is gpu and serving.predictor.gpus is 0"),
    (
        {"serving": {"predictor": {"pool": "gpu", "gpus": 1}}},
        "serving.predictor.gpus is more than 0 and serving.predictor.device is cpu",
    ),
    (
        {"serving": {"predictor": {"pool": "a100"}}},
        'serving.predictor.pool: there is no node pool "a100" in nodePools; it has cpu, gpu',
    ),
    (
        {"serving": {"predictor": {"device": "gpu", "pool": "gpu", "gpus": 8}}},
        "serving.predictor.gpus: 8 are asked for, a node of the pool has nodePools.gpu.gpu.count = 1",
    ),
    ({"serving": {"transformer": {"pool": "x"}}}, 'serving.transformer.pool: there is no node pool "x"'),
    ({"features": {"pool": "x"}}, 'features.pool: there is no node pool "x"'),
    (
        {"serving": {"predictor": {"autoscaling": {"type": "hpa", "minReplicas": 9}}}},
        "serving.predictor.autoscaling: minReplicas 9 is more than maxReplicas 4",
    ),
    (
        {"serving": {"predictor": {"autoscaling": {"type": "keda"}}}},
        "serving.predictor.autoscaling.type is keda and serving.predictor.autoscaling.prometheus is empty",
    ),
    (
        {"serving": {"transformer": {"autoscaling": {"enabled": True, "minReplicas": 9}}}},
        "serving.transformer.autoscaling: minReplicas 9 is more than maxReplicas 8",
    ),
    (
        {"serving": {"predictor": {"rollingUpdate": {"maxSurge": 0}}}},
        "serving.predictor.rollingUpdate: maxSurge and maxUnavailable are both 0",
    ),
    (
        {"serving": {"predictor": {"podDisruptionBudget": {"maxUnavailable": 0}}}},
        "serving.predictor.podDisruptionBudget.maxUnavailable is 0: no pod could ever be evicted",
    ),
    (
        {"serving": {"transformer": {"podDisruptionBudget": {"maxUnavailable": "0%"}}}},
        "serving.transformer.podDisruptionBudget.maxUnavailable is 0%: no pod could ever be evicted",
    ),
    (
        {"prepare": {"enabled": False}},
        "prepare.enabled is false and features.onlineStore.existingSecret is empty: nobody would make",
    ),
    ({"prepare": {"pool": "x"}}, 'prepare.pool: there is no node pool "x"'),
    (
        {"serving": {"writeBack": {"enabled": True}}, "features": {"enabled": False}},
        "serving.writeBack.enabled needs features.enabled",
    ),
    (
        {"serving": {"writeBack": {"enabled": True, "persistence": {"accessMode": "ReadWriteOnce"}}}},
        "serving.writeBack.persistence.accessMode is ReadWriteOnce and there are several transformers",
    ),
    (
        {
            "serving": {
                "transformer": {"replicas": 1},
                "writeBack": {"enabled": True, "persistence": {"accessMode": "ReadWriteOncePod"}},
            }
        },
        "serving.writeBack.persistence.accessMode is ReadWriteOncePod: neither the next transformer nor the job that "
        "erases could start",
    ),
    (
        {"serving": {"external": True}},
        "serving.external is true and networkPolicy.callers lets in the release's namespace alone",
    ),
]


def last_key(values: Any) -> str | None:
    """The innermost key of the first path, as a test's name."""
    key = None
    while isinstance(values, dict) and values:
        key, values = next(iter(values.items()))
    return key
