"""Kubernetes' JSON, read: what an InferenceService serves, and whether its new pods are there, to come, or hopeless."""

import pytest

from conf_profile.errors import RolloutError
from conf_profile.rollout import state as rollout_state
from conf_profile.rollout.state import Progress

URI = "champion://bucket/models/m@v2"
OLD = "champion://bucket/models/m@v1"
ENVIRONMENT = "/spec/transformer/containers/0/env/1/value"


def service(uri=OLD):
    variables = [{"name": "HOME", "value": "/tmp"}, {"name": "CONF_PROFILE_MODEL_URI", "value": uri}]
    return {
        "metadata": {"name": "prod"},
        "spec": {
            "predictor": {"model": {"storageUri": uri}},
            "transformer": {"containers": [{"name": "kserve-container", "env": variables}]},
        },
    }


ANNOTATION = "/spec/transformer/annotations/conf-profile~1model"


def service_of_todays_chart(uri=OLD, managed=()):
    """The variable is read from an annotation of the pods."""
    made = service(uri)
    transformer = made["spec"]["transformer"]
    transformer["annotations"] = {"conf-profile/model": uri}
    del transformer["containers"][0]["env"][1]["value"]
    transformer["containers"][0]["env"][1]["valueFrom"] = {"fieldRef": {"fieldPath": "metadata.annotations[...]"}}
    made["metadata"]["managedFields"] = list(managed)
    return made


def deployment(uri=URI, generation=2, observed=2, wanted=2, conditions=(), **status):
    """By default one whose new pods are all ready and whose old ones are gone."""
    counts = {"updatedReplicas": 2, "replicas": 2, "availableReplicas": 2, "readyReplicas": 2, **status}
    return {
        "metadata": {"name": "prod-predictor", "generation": generation},
        "spec": {"replicas": wanted, "template": {"metadata": {"annotations": {"source": uri}}}},
        "status": {"observedGeneration": observed, "conditions": list(conditions), **counts},
    }


def pod(uri=URI, **status):
    arguments = {"initContainers": [{"args": [uri, "/mnt/models"]}]}
    return {"metadata": {"name": "prod-predictor-1"}, "spec": arguments, "status": status}


def ended(restarts, code=1, message="storage: model.safetensors has the SHA-256 ab, not cd", ready=False):
    last = {"terminated": {"exitCode": code, "message": message}}
    container = {
        "name": "storage-initializer",
        "restartCount": restarts,
        "ready": ready,
        "lastState": last,
        "state": {},
    }
    return {"initContainerStatuses": [container]}


def test_every_place_that_names_the_model_is_pinned_if_nobody_changed_it():
    assert rollout_state.make_pin_patch(service(), URI) == [
        {"op": "test", "path": "/spec/predictor/model/storageUri", "value": OLD},
        {"op": "test", "path": ENVIRONMENT, "value": OLD},
        {"op": "replace", "path": "/spec/predictor/model/storageUri", "value": URI},
        {"op": "replace", "path": ENVIRONMENT, "value": URI},
    ]


def test_where_the_variable_is_read_from_an_annotation_that_is_pinned():
    places = ["/spec/predictor/model/storageUri", ANNOTATION]
    patch = rollout_state.make_pin_patch(service_of_todays_chart(), URI)
    assert [step["path"] for step in patch if step["op"] == "replace"] == places
    assert {step["path"]: step["value"] for step in patch if step["op"] == "test"} == dict.fromkeys(places, OLD)


def managed(manager, time, **fields):
    return {"manager": manager, "time": time, "fieldsV1": {"f:spec": fields}}


PREDICTOR = {"f:model": {"f:storageUri": {}}}
CONTAINERS = {"f:containers": {}}


def test_nobody_has_overwritten_what_is_there():
    assert not rollout_state.describe_overwrite(service_of_todays_chart(URI), URI)
    assert not rollout_state.describe_overwrite(service(URI), URI)


@pytest.mark.parametrize(
    ("found", "message"),
    [
        (
            service_of_todays_chart(
                managed=[
                    managed("helm", "2026-01-01T00:00:00Z", **{"f:predictor": PREDICTOR}),
                    managed("argocd-controller", "2026-01-02T00:00:00Z", **{"f:predictor": PREDICTOR}),
                    managed("manager", "2026-01-03T00:00:00Z", **{"f:transformer": CONTAINERS}),
                ]
            ),
            f"argocd-controller has set /spec/predictor/model/storageUri to {OLD}; let it leave",
        ),
        (service_of_todays_chart(), f"somebody has set /spec/predictor/model/storageUri to {OLD}; let it leave"),
    ],
    ids=["the-last-owner", "nobody-owns-it"],
)
def test_who_has_overwritten_a_rollout_is_named(found, message):
    assert message in rollout_state.describe_overwrite(found, URI)


def test_who_owns_the_list_has_overwritten_what_is_in_it():
    found = service(URI)
    found["spec"]["transformer"]["containers"][0]["env"][1]["value"] = OLD
    found["metadata"]["managedFields"] = [managed("kubectl", "2026-01-01T00:00:00Z", **{"f:transformer": CONTAINERS})]
    assert f"kubectl has set {ENVIRONMENT} to {OLD}" in rollout_state.describe_overwrite(found, URI)


def test_without_a_transformer_there_is_one_place_and_one_component():
    alone = service()
    del alone["spec"]["transformer"]
    assert list(rollout_state.find_model_references(alone)) == [rollout_state.STORAGE_URI]
    assert rollout_state.components(alone) == ["predictor"]


def test_what_is_served():
    assert str(rollout_state.served_model(service())) == OLD


@pytest.mark.parametrize("uri", ["s3://bucket/model", ""])
def test_a_model_of_no_registry_is_refused(uri):
    with pytest.raises(RolloutError, match="InferenceService prod: its model is"):
        rollout_state.served_model(service(uri))


def test_all_is_done():
    assert rollout_state.progress(URI, [deployment(), deployment()], [pod()]) == Progress()


@pytest.mark.parametrize(
    ("given", "waiting"),
    [
        (deployment(OLD), "KServe has not passed the version on yet"),
        # A URI that another one begins with is not that one.
        (deployment(URI + "0"), "KServe has not passed the version on yet"),
        (deployment(observed=1), "KServe has not passed the version on yet"),
        (deployment(updatedReplicas=1), "1 of 2 new pods have been made"),
        (deployment(replicas=3, availableReplicas=1), "1 of 2 new pods are ready"),
        # Old pods alone are enough to be available.
        (deployment(replicas=3, availableReplicas=2, readyReplicas=1), "new pods are ready"),
        (deployment(replicas=3), "1 pods of the version before have not ended"),
    ],
)
def test_what_is_waited_for(given, waiting):
    found = rollout_state.progress(URI, [deployment(), given], [])
    assert waiting in found.waiting and not found.failed


def test_a_pod_without_a_node_is_named_and_waited_for():
    unplaced = {"type": "PodScheduled", "status": "False", "message": "0/1 nodes: Insufficient nvidia.com/gpu"}
    found = rollout_state.progress(URI, [deployment(replicas=3, availableReplicas=1)], [pod(conditions=[unplaced])])
    assert "has no node: 0/1 nodes: Insufficient nvidia.com/gpu" in found.waiting and not found.failed


def test_a_container_that_failed_three_times_is_hopeless_and_its_own_words_are_told():
    waiting = deployment(replicas=3, availableReplicas=1)
    found = rollout_state.progress(URI, [waiting], [pod(**ended(restarts=2))])
    assert found.failed == (
        "pod prod-predictor-1, storage-initializer: storage: model.safetensors has the SHA-256 ab, not cd"
    )
    for other in (pod(**ended(restarts=1)), pod(**ended(restarts=5, ready=True)), pod(OLD, **ended(restarts=9))):
        assert not rollout_state.progress(URI, [waiting], [other]).failed


def test_a_transformers_pod_is_known_by_its_annotation():
    new = {"metadata": {"name": "prod-transformer-1", "annotations": {"conf-profile/model": URI}}, "spec": {}}
    found = rollout_state.progress(URI, [deployment(updatedReplicas=1)], [{**new, "status": ended(restarts=2)}])
    assert "pod prod-transformer-1" in found.failed


def test_a_pod_that_is_going_says_nothing():
    going = pod(**ended(restarts=9))
    going["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    assert not rollout_state.progress(URI, [deployment(updatedReplicas=1)], [going]).failed


def test_an_image_that_cannot_be_had_is_hopeless():
    state = {"waiting": {"reason": "ImagePullBackOff", "message": "not found"}}
    found = pod(containerStatuses=[{"name": "kserve-container", "state": state}])
    assert "ImagePullBackOff: not found" in rollout_state.progress(URI, [deployment(updatedReplicas=1)], [found]).failed


def test_a_deadline_that_has_passed_counts_for_this_model_alone():
    late = [{"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded", "message": "timed out"}]
    assert rollout_state.progress(URI, [deployment(conditions=late)], []).failed == "prod-predictor: timed out"
    assert not rollout_state.progress(URI, [deployment(OLD, conditions=late)], []).failed
