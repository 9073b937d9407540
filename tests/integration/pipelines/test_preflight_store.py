"""The checks before a run, against a real SeaweedFS with two sets of keys and a server with Kubernetes' paths."""

import base64
import io
import socket

import pytest
from rich.console import Console

from conf_profile.config import StorageConfig
from conf_profile.config_layers import merge
from conf_profile.errors import PreflightError
from pipelines import preflight
from pipelines.preflight import PreflightRequest
from pipelines.resources import Resources, S3Secret
from support.s3 import client_of, guarded_s3
from support.stand_in import Answer, KubeApi, answering, self_signed, write_kubeconfig

BUCKET = "conf-profile"
BEHAVIOUR, LABELS, EMPTY = "data/a1/behaviour.parquet", "truth/a1/labels.parquet", "data/absent.none"
RUNS = "/api/v1/namespaces/runs"
NODE = {"metadata": {"name": "node-1"}, "spec": {}, "status": {"allocatable": {"cpu": "8", "memory": "32Gi"}}}
IMAGE = "registry.example/training:0.1.0-0123456789ab"


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    with guarded_s3(tmp_path_factory.mktemp("s3")) as found:
        client = client_of(found.owner)
        for key in (BEHAVIOUR, LABELS):
            client.put_object(Bucket=BUCKET, Key=key, Body=b"rows")
        client.put_object(Bucket=BUCKET, Key=EMPTY, Body=b"")
        yield found


def secret(access_key, secret_key):
    values = {"AWS_ACCESS_KEY_ID": access_key, "AWS_SECRET_ACCESS_KEY": secret_key}
    return {"data": {key: base64.b64encode(value.encode()).decode() for key, value in values.items()}}


@pytest.fixture
def kube(store, tmp_path, monkeypatch):
    """A cluster whose Secrets hold the store's keys; the caller's own environment has the endpoint and wrong keys."""
    for name in ("AWS_ENDPOINT_URL_S3", "AWS_CA_BUNDLE", "KUBERNETES_SERVICE_HOST"):
        monkeypatch.delenv(name, raising=False)
    for name, value in store.owner.environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "none-of-the-stores")
    api = KubeApi(
        {
            RUNS: {"metadata": {"name": "runs"}},
            f"{RUNS}/secrets/store": secret(store.steps.access_key, store.steps.secret_key),
            f"{RUNS}/secrets/labels": secret(store.owner.access_key, store.owner.secret_key),
            "/api/v1/nodes": {"items": [NODE]},
        }
    )
    with answering(api.answer) as url:
        monkeypatch.setenv("KUBECONFIG", str(write_kubeconfig(tmp_path / "kubeconfig", url)))
        yield api


def findings(labels_secret="labels", values=None, **changes):
    sections = {"s3": {"endpoint": "http://store.runs:8333"}, "pipelines": {"s3Secret": {"name": "store"}}}
    request = {
        "image": IMAGE,
        "namespace": "runs",
        "service_account": None,
        "resources": Resources.model_validate(merge(Resources().values(), sections, values or {})),
        "steps": ("features", "sft", "evaluation"),
        "addresses": {"behaviour": f"s3://{BUCKET}/{BEHAVIOUR}", "lexicon": f"s3://{BUCKET}/{EMPTY}", "ceiling": ""},
        "labels_addresses": {"labels": f"s3://{BUCKET}/{LABELS}"},
        "storage": StorageConfig(bucket=BUCKET),
        "labels_secret": S3Secret(name=labels_secret),
    }
    return preflight.findings(PreflightRequest(**{**request, **changes}))


def test_a_run_that_can_work_has_nothing_found(kube):
    assert findings() == []


def test_everything_that_is_wrong_is_one_error(kube):
    del kube.objects[f"{RUNS}/secrets/labels"]
    with pytest.raises(PreflightError) as raised:
        preflight.require(
            findings(
                image="training:latest",
                addresses={"behaviour": f"s3://{BUCKET}/data/none", "demographics": f"s3://{BUCKET}/{LABELS}",
                           "task": "/data/task.yaml"},
                steps=("grpo",),
                values={"pipelines": {"steps": {"grpo": {"requests": {"cpu": 9}, "limits": {"cpu": 9}}}}},
            ),
            Console(file=(printed := io.StringIO())),
        )  # fmt: skip
    _, *errors = str(raised.value).splitlines()
    assert [line.partition(";")[0] for line in errors] == [
        f"  - Secret 'labels' is not in namespace 'runs' in the cluster at {printed_server(errors)}",
        "  - grpo (pool cpu",
        "  - task: '/data/task.yaml' is no address that a pod can read",
        f"  - behaviour: s3://{BUCKET}/data/none: it does not exist",
        f"  - demographics: s3://{BUCKET}/{LABELS}: the keys of Secret 'store' may not read it",
    ]
    assert "warning: image training:latest" in printed.getvalue()
    # The caller's own keys are refused, which says nothing of the labels' Secret.
    assert "warning: labels: bucket 'conf-profile'" in printed.getvalue()


def printed_server(lines):
    return lines[0].partition("cluster at ")[2].partition(";")[0]


@pytest.mark.parametrize(
    ("keys", "what", "remedy"),
    [
        (("nobody", "x"), "the store does not know the keys of Secret 'store'", "correct the access key"),
        (("steps-key", "x"), "the store refuses the keys of Secret 'store'", "correct the secret access key"),
    ],
)
def test_keys_that_the_store_refuses_are_told_once_for_a_bucket(kube, keys, what, remedy):
    kube.objects[f"{RUNS}/secrets/store"] = secret(*keys)
    (found,) = findings()
    assert found.level == "error"
    assert (
        found.what.startswith("behaviour, lexicon: bucket 'conf-profile' at http://127.0.0.1:") and what in found.what
    )
    assert found.remedy == f"{remedy} (pipelines.s3Secret)"


def test_labels_that_every_step_may_read_are_a_warning(kube, store):
    kube.objects[f"{RUNS}/secrets/store"] = secret(store.owner.access_key, store.owner.secret_key)
    (found,) = findings()
    assert found.level == "warning"
    assert found.what.startswith("labels: the keys of Secret 'store' may read what pipelines.labelsSecret is to guard")


def test_one_secret_under_two_names_guards_nothing(kube):
    errors, warnings = findings("store")[:-1], findings("store")[-1]
    assert (warnings.level, "name the same Secret, 'store'" in warnings.what) == ("warning", True)
    assert [each.what for each in errors] == [
        f"labels: s3://{BUCKET}/{LABELS}: the keys of Secret 'store' may not read it"
    ]


def test_without_a_labels_secret_the_steps_own_keys_must_read_the_labels(kube):
    (found,) = findings("")
    assert (found.level, found.what.startswith("labels: ")) == ("error", True)
    assert "pipelines.s3Secret" in found.remedy


def test_a_missing_bucket_is_an_error_unless_the_caller_makes_it(kube):
    # Some stores hide from keys of one bucket whether another is there.
    keys_of_all = {"pipelines": {"s3Secret": {"name": "labels"}}}
    missing = {"storage": StorageConfig(bucket="not-there"), "labels_secret": "", "values": keys_of_all}
    (found,) = findings(**missing)
    assert found.what.startswith("the registry's bucket 'not-there' at ")
    assert found.what.endswith("the bucket does not exist") and found.level == "error"
    assert findings(**missing, makes_bucket=True) == []
    (data,) = findings(addresses={"behaviour": "s3://not-there/behaviour.parquet"}, **missing, makes_bucket=True)
    assert (data.level, data.what.startswith("behaviour: bucket 'not-there'")) == ("error", True)


def test_what_the_account_may_not_read_is_one_note_and_the_callers_keys_are_used(kube, store, monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", store.owner.secret_key)
    kube.refusals = {f"{RUNS}/secrets/store": 403, "/api/v1/nodes": 403, RUNS: 403}
    cluster, own = findings()
    assert cluster.what == (
        "not checked in the cluster: namespace runs, Secret 'store', nodes (your account may not read them)"
    )
    assert own.what == (
        "pipelines.s3Secret: the store was not asked with these keys, since Secret 'store' cannot be read here: "
        "your account may not read them"
    )
    assert {cluster.level, own.level} == {"note"}


def test_what_is_refused_to_the_callers_keys_is_a_warning(kube):
    kube.refusals = {f"{RUNS}/secrets/store": 403}
    found = findings()
    assert [each.level for each in found] == ["note", "note", "warning"]
    assert "the store refuses this command's own keys" in found[-1].what


def test_in_the_upload_job_the_keys_are_the_steps_and_the_labels_are_for_others(kube, store, monkeypatch):
    kube.refusals = {f"{RUNS}/secrets/store": 403, f"{RUNS}/secrets/labels": 403}
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", store.steps.access_key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", store.steps.secret_key)
    fine = findings(has_steps_keys=True)
    assert [(each.level, each.what.partition(":")[0]) for each in fine] == [
        ("note", "not checked in the cluster"),
        ("note", "pipelines.labelsSecret"),
    ]
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "none-of-the-stores")
    refused = findings(has_steps_keys=True)[-1]
    assert (refused.level, "the store refuses the keys of this pod" in refused.what) == ("error", True)


def test_a_cluster_that_does_not_know_the_account_is_a_note(kube):
    kube.refusals = {"": 401}
    assert findings()[0].what.endswith("does not know your account: log in again)")


def test_a_cluster_that_is_not_there_is_a_note(kube, tmp_path, monkeypatch):
    monkeypatch.setenv("KUBECONFIG", str(write_kubeconfig(tmp_path / "down", f"http://127.0.0.1:{free_port()}")))
    assert "does not answer: " in findings()[0].what
    (tmp_path / "broken").write_text("a: [")
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "broken"))
    assert "no cluster can be found" in findings()[0].what


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def test_a_store_that_is_silent_is_an_error_where_the_caller_uses_it_himself(kube, monkeypatch):
    down = f"http://127.0.0.1:{free_port()}"
    pods_alone = findings(addresses={"behaviour": f"s3://{BUCKET}/{BEHAVIOUR}?endpoint={down}"}, labels_addresses={})
    assert [each.level for each in pods_alone] == ["warning", "warning"]
    assert "is this machine" in pods_alone[0].what and "the store does not answer here" in pods_alone[1].what
    monkeypatch.setenv("AWS_ENDPOINT_URL", down)
    (found,) = findings(addresses={}, labels_addresses={})
    assert (found.level, "the store does not answer here" in found.what) == ("error", True)


def of_region(path, region="eu-central-1"):
    """What Amazon answers when a bucket of one region is asked for in another."""
    body = f"<Error><Code>PermanentRedirect</Code><Message>elsewhere</Message><Bucket>{BUCKET}</Bucket></Error>"
    return Answer(301, body.encode(), {"x-amz-bucket-region": region})


def test_a_bucket_of_another_region_is_named_with_its_region(kube, monkeypatch):
    with answering(of_region) as url:
        monkeypatch.setenv("AWS_ENDPOINT_URL", url)
        (found,) = findings(labels_addresses={})
    assert found.level == "error"
    assert found.what.endswith("the bucket lies in eu-central-1, and is asked for in us-east-1")
    assert "region=eu-central-1" in found.remedy


def listing(path):
    body = b"<ListBucketResult><Name>b</Name></ListBucketResult>" if "list-type" in path else b"r"
    return Answer(200, body, {"x-amz-bucket-region": "eu-central-1"})


def test_a_region_that_the_store_overlooks_is_a_warning(kube, monkeypatch):
    with answering(listing) as url:
        monkeypatch.setenv("AWS_ENDPOINT_URL", url)
        storage = StorageConfig(bucket=BUCKET, region="eu-central-1")
        found = findings(addresses={}, labels_addresses={}, storage=storage)
        other = findings(addresses={}, labels_addresses={})
    assert found == []
    assert [each.level for each in other] == ["warning"]


def test_a_certificate_that_nobody_signed_is_told_with_the_setting_for_it(kube, tmp_path, monkeypatch):
    certificate = self_signed(tmp_path / "server.pem")
    with answering(listing, certificate) as url:
        monkeypatch.setenv("AWS_ENDPOINT_URL", url)
        (found,) = findings(addresses={}, labels_addresses={})
        monkeypatch.setenv("AWS_CA_BUNDLE", str(certificate))
        trusted = findings(addresses={}, labels_addresses={}, storage=StorageConfig(region="eu-central-1"))
    assert (found.level, "certificate is not trusted here" in found.what) == ("error", True)
    assert "s3.caConfigMap" in found.remedy and "AWS_CA_BUNDLE" in found.remedy
    assert trusted == []
