"""What the API server says to the chart: every good rendering is accepted, every bad value refused with its message.

Objects are sent with `--dry-run=server` into a namespace that enforces Pod Security `restricted`. So is each pod that
comes of them, since a Deployment is accepted whatever its pods ask for.
"""

import pytest
import yaml

from charts.chart import CHART, EVERY_OPTION
from conf_profile.config_layers import merge
from support.chart_manifests import EXAMPLE, INGRESS, MATRIX, pods
from support.chart_refusals import REFUSED_BY_THE_CHART, REFUSED_BY_THE_SCHEMA, last_key
from support.cluster.kube import CommandError

OFFLINE = {"s3": {"checkSecret": False}}
MORE = {
    "predictor-hpa": [{"serving": {"predictor": {"autoscaling": {"type": "hpa"}}}}],
    "own-claims": [
        {"features": {"onlineStore": {"inside": {"persistence": {"existingClaim": "theirs"}}}}},
        {"serving": {"writeBack": {"enabled": True, "persistence": {"existingClaim": "shared"}}}},
    ],
    "one-writing-transformer": [
        {"serving": {"transformer": {"replicas": 1}, "writeBack": {"enabled": True}}},
        {"serving": {"writeBack": {"persistence": {"accessMode": "ReadWriteOnce", "storageClass": "fast"}}}},
    ],
    "web-page": [{"serving": {"web": True, "tracesEndpoint": "http://collector:4318/v1/traces"}}],
    "rare-gpus": [
        {"nodePools": {"gpu": {"gpu": {"resource": "amd.com/gpu", "count": 8}, "sharedMemory": "64Gi"}}},
        {"serving": {"predictor": {"device": "gpu", "pool": "gpu", "gpus": 8, "dtype": "bfloat16"}}},
    ],
}
WHOLE = merge(EVERY_OPTION, {"pipelines": {"namespace": ""}})
NEEDED = {
    # Rules are taken away where nothing expires any more.
    "pipelines.retention.removeRules": merge(WHOLE, {"pipelines": {"retentionDays": 0}}),
    "s3.workloadIdentity": {"s3": {"existingSecret": ""}},
    "serving.external": {"networkPolicy": {"callers": INGRESS}},
    "features.onlineStore.inside.enabled": {"features": {"onlineStore": {"address": "redis:6379"}}},
    "features.onlineStore.tls": {"features": {"onlineStore": {"address": "redis:6379", "inside": {"enabled": False}}}},
    "prepare.enabled": {"features": {"onlineStore": {"existingSecret": "online-store"}}},
    "pipelines.upload.enabled": merge(WHOLE, {"pipelines": {"schedule": {"enabled": False}}}),
}
"""What else is set when a switch is turned; for those of pipelines and monitoring, everything is on."""
DEFAULTS = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))


def switches(values, path=()):
    """The path of everything that may be true or false."""
    for name, value in values.items():
        if isinstance(value, bool):
            yield ".".join((*path, name))
        elif isinstance(value, dict):
            yield from switches(value, (*path, name))


def turned(switch):
    """Values with the switch the other way round."""
    beside = NEEDED.get(switch, WHOLE if switch.startswith(("pipelines.", "monitoring.")) else {})
    value = merge(DEFAULTS, beside)
    for name in switch.split("."):
        value = value[name]
    value = not value
    for name in reversed(switch.split(".")):
        value = {name: value}
    return beside, value


@pytest.fixture(scope="module")
def kinds(cluster):
    return cluster.kinds()


@pytest.fixture(scope="module")
def training(cluster):
    """The other namespace of the renderings that name one."""
    with cluster.namespace() as made:
        yield made


def accept(namespace, kinds, *layers):
    """Sends what there are kinds for; a warning, as Pod Security gives it for a Deployment, is a failure."""
    documents = namespace.release().rendered(EXAMPLE, OFFLINE, *layers)
    known = [document for document in documents if (document["apiVersion"], document["kind"]) in kinds]
    assert known
    named = [
        {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": f"pod-{number}"}, "spec": of_nobody(spec)}
        for number, spec in enumerate(pods(documents).values())
    ]
    for document in (*known, *named):
        document["metadata"].setdefault("namespace", namespace.name)
    sent = yaml.safe_dump_all([*known, *named])
    namespace.cluster.kubectl("apply", "--dry-run=server", "--warnings-as-errors", "--filename=-", given=sent)


def of_nobody(spec):
    """Service accounts and priority classes are not there in a dry run."""
    return {key: value for key, value in spec.items() if key not in ("serviceAccountName", "priorityClassName")}


@pytest.mark.parametrize("name", [*MATRIX, *MORE])
def test_every_rendering_is_accepted(module_namespace, training, kinds, name):
    layers = {**MATRIX, **MORE}[name]
    apart = {"pipelines": {"namespace": training.name}} if name in ("everything-gpu", "production") else {}
    accept(module_namespace, kinds, *layers, apart)


@pytest.mark.parametrize("switch", list(switches(DEFAULTS)))
def test_each_switch_can_be_turned(module_namespace, kinds, switch):
    accept(module_namespace, kinds, *turned(switch))


@pytest.mark.parametrize(("values", "message"), [*REFUSED_BY_THE_SCHEMA, *REFUSED_BY_THE_CHART], ids=last_key)
def test_a_bad_value_is_refused_with_the_message_of_the_chart(module_namespace, values, message):
    with pytest.raises(CommandError) as refused:
        module_namespace.release().install(EXAMPLE, OFFLINE, values)
    assert message in str(refused.value)


def test_what_was_refused_left_nothing(module_namespace):
    with pytest.raises(CommandError):
        module_namespace.release().install(EXAMPLE, OFFLINE, {"servng": {}})
    assert not module_namespace.get("inferenceservices,deployments,jobs,cronjobs,secrets,networkpolicies")
