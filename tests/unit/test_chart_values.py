"""What values may say: defaults and presets pass, everything else is refused with the key that is wrong."""

import json
import runpy

import jsonschema
import pytest
import yaml
from chart_manifests import MATRIX, PRESETS, chart, notes, refusal, render

from pipelines.chart import CHART, EXAMPLE, merged

SCHEMA = json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))
S3 = {"s3": {"endpoint": "https://s3.example.com"}}

REFUSED_BY_THE_SCHEMA = [
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
    ({"podSecurity": {"user": 0}}, "/podSecurity/user"),
]
REFUSED_BY_THE_CHART = [
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
        {"serving": {"writeBack": {"enabled": True}}, "features": {"enabled": False}},
        "serving.writeBack.enabled needs features.enabled",
    ),
    (
        {"serving": {"writeBack": {"enabled": True, "persistence": {"accessMode": "ReadWriteOnce"}}}},
        "serving.writeBack.persistence.accessMode is ReadWriteOnce and there are several transformers",
    ),
]


def last_key(values):
    key = ""
    while isinstance(values, dict) and values:
        key, values = next(iter(values.items()))
    return key


@pytest.mark.parametrize(("values", "message"), REFUSED_BY_THE_SCHEMA, ids=lambda value: last_key(value) or None)
def test_the_schema_names_the_key(values, message):
    assert message in refusal(values)


@pytest.mark.parametrize(("values", "message"), REFUSED_BY_THE_CHART, ids=lambda value: last_key(value) or None)
def test_a_bad_combination_names_the_keys(values, message):
    assert message in refusal(values)


@pytest.mark.parametrize("name", MATRIX)
def test_good_values_are_accepted(name):
    assert render(*MATRIX[name])


def test_the_schema_is_one_and_the_defaults_follow_it():
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    defaults = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))
    for values in (defaults, *(merged(defaults, preset) for preset in PRESETS.values())):
        jsonschema.Draft202012Validator(SCHEMA).validate(values)


def test_the_defaults_alone_say_what_is_missing():
    assert "s3.endpoint is empty: give the object store's address" in refusal(example={})
    assert "s3.existingSecret is empty" in refusal(example=S3)


def test_a_parent_chart_may_hand_down_its_globals():
    assert render({"global": {"imageRegistry": "registry.example.com"}})


def test_large_numbers_stay_numbers():
    layer = {"serving": {"maxInstances": 12345678}, "features": {"materialise": {"timeoutSeconds": 12345678}}}
    assert "e+0" not in json.dumps(render(layer)).replace("\\n", "")


def test_a_release_named_like_the_chart_has_its_name_once():
    rendered = chart().render(EXAMPLE, name="conf-profile", namespace="profiles")
    service = yaml.safe_load(rendered["conf-profile/templates/serving/inferenceservice.yaml"])
    assert service["metadata"]["name"] == "conf-profile"


@pytest.mark.parametrize(
    ("layer", "name"),
    [
        ({"fullnameOverride": "profiles"}, "profiles"),
        ({"nameOverride": "p"}, "prod"),
        ({"nameOverride": "x"}, "prod-x"),
    ],
)
def test_names_can_be_chosen(layer, name):
    (service,) = (document for document in render(layer) if document["kind"] == "InferenceService")
    assert service["metadata"]["name"] == name


def test_every_object_says_where_it_belongs():
    for layers in MATRIX.values():
        for document in render(*layers):
            labels = document["metadata"]["labels"]
            assert labels["app.kubernetes.io/instance"] == "prod"
            cluster_wide = document["kind"] == "ClusterStorageContainer"
            assert ("namespace" in document["metadata"]) is not cluster_wide


def test_notes_say_what_to_do_next():
    text = notes()
    assert "helm test prod" in text
    assert "no champion yet: run the pipeline" in text
    assert "kubectl create job -n profiles prod-conf-profile-materialise-now" in text
    assert "--from-literal=users=USER_ID" in text
    assert "There is one predictor" in text
    assert "There is one predictor" not in notes({"serving": {"predictor": {"replicas": 2}}})
    assert "whoever reaches it can ask for anybody's profile" in notes({"serving": {"external": True}})
    assert "prod-conf-profile-runner" in notes({"pipelines": {"enabled": True, "s3Secret": {"name": "s3"}}})


ASK = runpy.run_path(str(CHART / "files" / "ask.py"))
GOOD = {"age": {"tag": "25-34", "level": 4, "accepted": True}, "gender": {"tag": None, "level": None}}


def test_helm_test_is_content_with_a_real_profile(capsys):
    ASK["check"]({"predictions": [{"model_version": "v1", "profile": GOOD}]})
    assert "version v1" in capsys.readouterr().out


@pytest.mark.parametrize(
    "prediction",
    [
        {"model_version": "v1", "profile": {}},
        {"model_version": "v1", "profile": {"age": {"tag": None, "level": None, "reason": "malformed answer"}}},
        {"error": {"code": 503, "message": "the predictor gave no answer"}, "profile": GOOD},
    ],
)
def test_helm_test_is_not_content_with_less(prediction):
    with pytest.raises(SystemExit):
        ASK["check"]({"predictions": [prediction]})
