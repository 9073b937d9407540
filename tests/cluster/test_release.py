"""A release over time: upgraded, rolled back, taken away; and what it says where something is missing."""

import json

import pytest

from support.chart_manifests import EXAMPLE
from support.cluster.hook_pods import UNPLACED, played_hooks
from support.cluster.kube import CommandError, until

BASE = UNPLACED
RICHER = {
    "serving": {"predictor": {"autoscaling": {"type": "hpa"}}, "thresholds": {"age": 4}},
    "features": {"enabled": False},
    "pipelines": {"enabled": True, "s3Secret": {"name": "object-store"}, "launcher": {"create": True}},
    "monitoring": {"dashboard": {"enabled": True}},
}
PASSING = {"events", "events.events.k8s.io", "pods", "endpoints", "endpointslices.discovery.k8s.io"}
"""Kinds that the cluster itself fills and clears in its own time."""


@pytest.fixture
def release(namespace, kserve):
    namespace.secret("object-store", AWS_ACCESS_KEY_ID="key", AWS_SECRET_ACCESS_KEY="secret")
    with played_hooks(namespace):
        yield namespace.release()


def inventory(namespace):
    """Every object of the namespace, and every cluster-wide one that bears its name."""
    inside, outside = (
        set(
            namespace.cluster.kubectl("api-resources", "--verbs=list", f"--namespaced={there}", "--output=name").split()
        )
        for there in ("true", "false")
    )
    found = namespace.kubectl("get", ",".join(sorted(inside - PASSING)), "--output=name").split()
    wide = namespace.cluster.kubectl("get", ",".join(sorted(outside - {"namespaces"})), "--output=name").split()
    return {*found, *(name for name in wide if namespace.name in name)}


def of_the_chart(release, *layers):
    """(kind, name) of what the values render; hooks are gone once they have succeeded."""
    return {
        (each["kind"], each["metadata"]["name"])
        for each in release.rendered(EXAMPLE, BASE, *layers)
        if "helm.sh/hook" not in each["metadata"].get("annotations", {})
    }


def there(release):
    """(kind, name) of what Helm has made: KServe labels its own objects likewise, but owns them."""
    kinds = "networkpolicies,poddisruptionbudgets,serviceaccounts,configmaps,secrets,persistentvolumeclaims,services,"
    kinds += "deployments,jobs,cronjobs,inferenceservices,servingruntimes,horizontalpodautoscalers,roles,rolebindings"
    found = release.namespace.get(kinds, f"--selector=app.kubernetes.io/instance={release.name}")
    containers = release.namespace.get("clusterstoragecontainers", f"{release.namespace.name}-{release.fullname}")
    return {
        (each["kind"], each["metadata"]["name"])
        for each in (*found, containers)
        if "ownerReferences" not in each["metadata"]
    }


def uri(release):
    return release.namespace.get("inferenceservice", release.fullname)["spec"]["predictor"]["model"]["storageUri"]


def pin(release, version):
    model = {"storageUri": f"champion://conf-profile/models/{release.model}@{version}"}
    patch = json.dumps({"spec": {"predictor": {"model": model}}})
    release.namespace.kubectl("patch", "inferenceservice", release.fullname, "--type=merge", f"--patch={patch}")


def test_upgrade_rollback_and_uninstall_leave_nothing_behind_but_the_password(release):
    namespace = release.namespace
    before = inventory(namespace)
    release.install(EXAMPLE, BASE)
    assert there(release) == of_the_chart(release)
    settings = namespace.get("configmap", f"{release.fullname}-serving")["data"]

    release.install(EXAMPLE, BASE, RICHER)
    until("the upgrade's objects alone", lambda: there(release) == of_the_chart(release, RICHER))
    assert namespace.get("configmap", f"{release.fullname}-serving")["data"] != settings

    release.helm("rollback", "1")
    until("the first objects alone", lambda: there(release) == of_the_chart(release))
    assert namespace.get("configmap", f"{release.fullname}-serving")["data"] == settings

    release.helm("uninstall")
    kept = f"secret/{release.fullname}-online-store"
    until("the namespace is as it was", lambda: inventory(namespace) == {*before, kept}, seconds=120)


def test_an_upgrade_keeps_password_and_version(release):
    """What a rollout has pinned stays, until values name a version."""
    release.install(EXAMPLE, BASE)
    store = f"{release.fullname}-online-store"
    password = release.namespace.get("secret", store)["data"]
    pin(release, "20260101-000000-aaaaaaaa")
    release.install(EXAMPLE, BASE, {"serving": {"thresholds": {"age": 4}}})
    assert uri(release).endswith("@20260101-000000-aaaaaaaa")
    assert release.namespace.get("secret", store)["data"] == password
    # Helm 4 asks before it takes a field from whoever has set it last; Helm 3 takes it.
    force = ["--force-conflicts"] if "--force-conflicts" in release.namespace.cluster.helm("upgrade", "--help") else []
    release.install(EXAMPLE, BASE, {"serving": {"version": "20260202-000000-bbbbbbbb"}}, options=force)
    assert uri(release).endswith("@20260202-000000-bbbbbbbb")
    pin(release, "20260303-000000-cccccccc")
    release.helm("rollback", "2", *force)
    assert uri(release).endswith("@20260101-000000-aaaaaaaa")


def test_scalers_and_kserve_do_not_fight(release):
    """KServe neither deletes the autoscalers nor puts the number of pods back."""
    scaling = {"predictor": {"autoscaling": {"type": "hpa"}}, "transformer": {"autoscaling": {"enabled": True}}}
    release.install(EXAMPLE, BASE, {"serving": scaling})
    namespace = release.namespace
    for part, count in (("predictor", 3), ("transformer", 4)):
        deployment = f"deployment/{release.fullname}-{part}"
        until(f"{deployment} is there", lambda name=deployment: namespace.kubectl("get", name, check=False))
        namespace.kubectl("scale", deployment, f"--replicas={count}")
    # KServe looks at it once more, and writes the annotation on.
    patch = {"spec": {part: {"annotations": {"looked": "again"}} for part in ("predictor", "transformer")}}
    namespace.kubectl("patch", "isvc", release.fullname, "--type=merge", f"--patch={json.dumps(patch)}")
    for part, count in (("predictor", 3), ("transformer", 4)):
        name = f"{release.fullname}-{part}"
        until(f"KServe has changed {name}", lambda name=name: "looked" in json.dumps(namespace.get("deployment", name)))
        assert namespace.get("deployment", name)["spec"]["replicas"] == count
    scalers = {each["spec"]["scaleTargetRef"]["name"] for each in namespace.get("horizontalpodautoscalers")}
    assert scalers == {f"{release.fullname}-predictor", f"{release.fullname}-transformer"}


def refusal(release, *layers):
    with pytest.raises(CommandError) as refused:
        release.install(EXAMPLE, *layers)
    return str(refused.value)


def test_without_the_secret_the_message_says_how_to_make_it(namespace):
    message = refusal(namespace.release())
    assert f"s3.existingSecret: there is no Secret object-store in namespace {namespace.name}" in message
    assert (
        f"kubectl create secret generic object-store -n {namespace.name} --from-literal=AWS_ACCESS_KEY_ID=" in message
    )


def test_a_secret_without_a_key_is_named(namespace):
    namespace.secret("object-store", AWS_ACCESS_KEY_ID="key")
    message = refusal(namespace.release())
    assert f"the Secret object-store in namespace {namespace.name} has no key AWS_SECRET_ACCESS_KEY" in message


def test_runs_without_their_certificates_are_refused_before_a_pod_hangs(namespace):
    namespace.secret("object-store", AWS_ACCESS_KEY_ID="key", AWS_SECRET_ACCESS_KEY="secret")
    runs = {"enabled": True, "s3Secret": {"name": "object-store"}}
    message = refusal(namespace.release(), {"s3": {"caConfigMap": "company-ca"}, "pipelines": runs})
    assert f"there is no ConfigMap company-ca in the runs' namespace {namespace.name}" in message
    assert f"kubectl create configmap company-ca -n {namespace.name} --from-file=ca.crt" in message


def test_two_releases_do_not_fetch_one_model(cluster, release):
    release.install(EXAMPLE, BASE)
    with cluster.namespace() as elsewhere, played_hooks(elsewhere):
        elsewhere.secret("object-store", AWS_ACCESS_KEY_ID="key", AWS_SECRET_ACCESS_KEY="secret")
        other, same = elsewhere.release(), {"s3": {"model": release.model}}
        message = refusal(other, BASE, same)
        assert f"ClusterStorageContainer {release.namespace.name}-{release.fullname} of another release" in message
        assert f"champion://conf-profile/models/{release.model} in this cluster already" in message
        other.install(EXAMPLE, BASE, same, {"serving": {"storageContainer": {"create": False}}})
    # An upgrade sees its own.
    release.install(EXAMPLE, BASE)


def test_scaling_by_keda_where_there_is_none(release):
    if release.namespace.cluster.serves("scaledobjects.keda.sh"):
        pytest.skip("the cluster has KEDA; one without it shows the message")
    layer = {"serving": {"predictor": {"autoscaling": {"type": "keda", "prometheus": "http://prometheus:9090"}}}}
    message = refusal(release, BASE, layer)
    assert 'no matches for kind "ScaledObject"' in message
    kinds = "inferenceservices,deployments,jobs,cronjobs,configmaps,persistentvolumeclaims"
    assert not release.namespace.get(kinds, f"--selector=app.kubernetes.io/instance={release.name}")


def test_a_small_quota_says_so_in_the_events(release):
    """Pods have requests and limits, so that a quota counts them, and the events name what is missing."""
    namespace = release.namespace
    quota = {"requests.cpu": "500m", "requests.memory": "1Gi", "limits.cpu": "2", "limits.memory": "4Gi"}
    namespace.apply(
        {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "small"}, "spec": {"hard": quota}}
    )
    notes = release.install(EXAMPLE, BASE)
    assert f"kubectl get events -n {namespace.name} --field-selector type=Warning" in notes

    def events():
        return namespace.kubectl("get", "events", "--field-selector=type=Warning")

    until("the quota is named", lambda: "exceeded quota: small" in events())
    assert "must specify" not in events()
