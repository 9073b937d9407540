"""What the checks before a run say of images, endpoints, declared objects and refusals; literals, and no server."""

import base64
import io

import pytest
from rich.console import Console

from charts import images
from conf_profile.config import StorageConfig
from conf_profile.config_layers import merge
from conf_profile.errors import PreflightError
from conf_profile.storage.object_address import ObjectAddress
from pipelines import preflight
from pipelines.preflight import Finding, PreflightRequest
from pipelines.preflight.cluster import ClusterState, UnansweredQuestion, read_cluster
from pipelines.preflight.declared import declared_objects, object_findings
from pipelines.preflight.endpoint import endpoint_findings
from pipelines.preflight.image import image_findings
from pipelines.preflight.labels import labels_findings
from pipelines.preflight.request import parse_address
from pipelines.preflight.stores.keys import StoreKeys, find_keys
from pipelines.preflight.stores.probe import NO_KEYS, UNREACHABLE_STORE, UNTRUSTED_CERTIFICATE, Outcome, Place
from pipelines.preflight.stores.refusals import explain
from pipelines.resources import DEFAULT_STEPS, Resources, S3Secret

DIGEST = "sha256:" + "0" * 64


@pytest.fixture(autouse=True)
def nothing_of_this_machine(monkeypatch):
    for name in ("KUBECONFIG", "KUBERNETES_SERVICE_HOST", "AWS_CA_BUNDLE", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"):
        monkeypatch.delenv(name, raising=False)


def values(**sections):
    return Resources.model_validate(merge(Resources().values(), sections))


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
        # The port of a registry is no tag.
        "registry.example:1-0123456789ab/training",
    ],
)
def test_a_name_that_can_stay_while_its_content_changes_is_a_warning(name):
    (found,) = image_findings(name)
    assert (found.level, "python -m charts.images names training" in found.remedy) == ("warning", True)
    assert found.what.startswith(f"image {name}: ")


@pytest.mark.parametrize("name", ["bad image", "training@sha256:0123", "Training:1", "-training"])
def test_what_no_node_can_pull_is_an_error(name):
    (found,) = image_findings(name)
    assert found.level == "error" and f"{name!r}" in found.what


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
        ("s3://bucket/data/x.parquet", ObjectAddress("bucket", "data/x.parquet")),
        ("s3://b/k?endpoint=http%3A%2F%2Fs%3A8333&region=eu", ObjectAddress("b", "k", "http://s:8333", "eu")),
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
    assert endpoint_findings(request(endpoint="aws")) == []


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
    declared = declared_objects(request(DECLARED, steps=("sft", "evaluation")))
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
    refused = UnansweredQuestion("your account may not read them")
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
        (S3Secret(), None, "a role of their account"),
        (S3Secret(name="store"), None, "there is no Secret 'store'"),
        (S3Secret(name="store"), UnansweredQuestion("forbidden"), "Secret 'store' cannot be read here: forbidden"),
        (S3Secret(name="store"), {"data": {"AWS_ACCESS_KEY_ID": "YQ=="}}, "holds no keys"),
        (S3Secret(name="store"), {"data": {**STORE, "AWS_SECRET_ACCESS_KEY": "/w=="}}, "holds no keys"),
    ],
)
def test_for_want_of_the_steps_keys_the_callers_are_used_and_it_is_said_why(secret, body, why):
    keys = find_keys(secret, "pipelines.s3Secret", state({("Secret", "store"): body}))
    assert (keys.access_key, keys.are_steps, why in keys.why_own) == (None, False, True)


# Refusals of a store

PLACE = Place("https://store.example", "us-east-1", "data")
OF_STEPS = StoreKeys("the keys of Secret 'store'", "pipelines.s3Secret", "key", "secret")
OF_CALLER = StoreKeys("this command's own keys", "pipelines.s3Secret", are_steps=False)


@pytest.mark.parametrize(
    ("outcome", "keys", "is_steps_view", "level", "text"),
    [
        (Outcome("AccessDenied"), OF_STEPS, False, "error", "the keys of Secret 'store' may not read it"),
        (Outcome("AccessDenied"), OF_CALLER, True, "warning", "this command's own keys may not read it"),
        (Outcome("ExpiredToken"), OF_STEPS, True, "error", "have expired"),
        (Outcome("NoSuchKey"), OF_CALLER, False, "error", "it does not exist"),
        (
            Outcome("AuthorizationHeaderMalformed", "eu"),
            OF_STEPS,
            False,
            "error",
            "lies in eu, and is asked for in us-",
        ),
        (Outcome("PermanentRedirect"), OF_STEPS, False, "error", "another region, which the store does not name"),
        (Outcome(region="eu"), OF_STEPS, False, "warning", "set storage.region and s3.region to eu"),
        (Outcome(UNREACHABLE_STORE, detail="refused"), OF_STEPS, False, "warning", "does not answer here (refused)"),
        (Outcome(UNREACHABLE_STORE), OF_STEPS, True, "error", "set AWS_ENDPOINT_URL to a way from here"),
        (Outcome(UNTRUSTED_CERTIFICATE), OF_STEPS, True, "error", "s3.caConfigMap"),
        (Outcome(NO_KEYS), OF_CALLER, True, "warning", "set AWS_ACCESS_KEY_ID"),
        (Outcome("SlowDown"), OF_STEPS, True, "warning", "try again"),
        (Outcome("SecondLevelDomainForbidden"), OF_STEPS, True, "error", "path-style"),
        (
            Outcome("NotImplemented", detail="no lists"),
            OF_STEPS,
            True,
            "error",
            "refuses it (NotImplemented: no lists)",
        ),
    ],
)
def test_a_refusal_is_explained_with_its_remedy(outcome, keys, is_steps_view, level, text):
    (found,) = explain(outcome, "behaviour", PLACE, keys, is_steps_view)
    assert found.level == level
    assert str(found).startswith("behaviour: ") and text in str(found)


def test_an_answer_is_no_finding():
    for outcome in (Outcome(), Outcome(region=PLACE.region)):
        assert list(explain(outcome, "behaviour", PLACE, OF_STEPS, True)) == []


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


def test_a_run_without_labels_is_told_of_before_it_is_paid_for():
    (found,) = labels_findings(request(labels_addresses={"labels": "", "ceiling": ""}))
    assert found.level == "warning" and "its model will be rejected" in found.what
    assert "--labels-uri" in found.remedy and "gate.unjudged" in found.remedy
    (found,) = labels_findings(request(labels_addresses={"labels": ""}, allows_unjudged=True))
    assert found.level == "note" and "gate.unjudged allows" in found.what


def test_labels_that_there_are_and_runs_that_are_not_started_are_no_finding():
    assert labels_findings(request(labels_addresses={"labels": "s3://b/labels.parquet"})) == []
    assert labels_findings(request(labels_addresses={"labels": ""}, starts_run=False)) == []
