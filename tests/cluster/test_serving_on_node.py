"""The chart on a node that really runs pods: vLLM on a model of the pipeline, asked from inside the cluster.

One installation serves all tests of this module, in their order; each leaves it serving.
"""

import json
from types import SimpleNamespace

import numpy as np
import pytest

from conf_profile.rollout import smoke
from conf_profile.storage.local_s3 import local_s3
from conf_profile.students import folder
from support.chart_manifests import PRESETS
from support.cluster import node_images, serving_release
from support.cluster.caller import Caller
from support.cluster.kube import CommandError, until
from support.cluster.outside import address_towards, relay
from support.cluster.serving_release import SECRET, Served, World

RATE = 4
"""Requests a second while something is away."""
ROLLOUT_RATE = 20
"""The same during a rollout, when two vLLMs share the cores of one node."""


@pytest.fixture(scope="module")
def place(cluster, kserve, tmp_path_factory):
    """A real node, and the values that name its images."""
    node = node_images.real_node(cluster)
    return SimpleNamespace(node=node, images=node_images.values(cluster, tmp_path_factory.mktemp("images")))


@pytest.fixture(scope="module")
def world(place, module_namespace, tmp_path_factory):
    run, model = tmp_path_factory.mktemp("world") / "run", module_namespace.release().model
    serving_release.run_pipeline(run, model)
    with local_s3(run / "s3") as access, relay(address_towards(place.node), access.endpoint) as outside:
        made = World(run, access, outside, model)
        made.upload_tables()
        yield made


@pytest.fixture(scope="module")
def release(module_namespace, world):
    module_namespace.secret(
        SECRET, AWS_ACCESS_KEY_ID=world.access.access_key, AWS_SECRET_ACCESS_KEY=world.access.secret_key
    )
    return module_namespace.release()


@pytest.fixture(scope="module")
def layers(world, place):
    return [PRESETS["cpu"], *serving_release.values(world.relay.url, place.images, place.node)]


@pytest.fixture(scope="module")
def served(release, layers, world, place):
    """Installed as a user would, and waited for as Helm does."""
    release.install(*layers, options=("--wait", "--timeout=10m"))
    release.namespace.wait("condition=Ready", f"inferenceservice/{release.fullname}", seconds=300)
    image = "{repository}:{tag}".format(**place.images["images"]["serving"])
    host = layers[-1]["nodePools"]["cpu"]["nodeSelector"]
    made = Served(world, release, Caller(release, image, host, world.relay.url, SECRET))
    made.job("materialise", "first-features")
    return made


@pytest.fixture(scope="module")
def users(world):
    return [person.user_id for person in world.people[:30]]


def reasons(answer, row=0):
    return {shown.get("reason") for shown in answer["body"]["predictions"][row]["profile"].values()}


def versions(answers):
    return [entry["model_version"] for answer in answers for entry in answer["body"]["predictions"]]


def assert_all_answered(answers):
    bad = [{key: answer.get(key) for key in ("status", "body", "seconds")} for answer in answers if lost(answer)]
    assert answers and not bad, f"{len(bad)} of {len(answers)} were not answered, e.g. {bad[:3]}"


def lost(answer):
    return answer["status"] != 200 or any("error" in entry for entry in answer["body"]["predictions"])


def test_before_a_first_promotion_the_pods_say_what_to_do(release, layers):
    early = release.namespace.release("early")
    early.install(*layers, {"s3": {"model": "unborn"}, "features": {"enabled": False}, "pipelines": {"enabled": False}})
    try:
        said = until(
            "both components say why they wait",
            lambda: len(found := last_words(early)) == 2 and found,
            seconds=180,
        )
    finally:
        early.helm("uninstall", "--wait")
    assert all("no champion yet, run the pipeline" in text for text in said)


def last_words(release):
    """Of each pod of the InferenceService, the message of a container that has ended."""
    found = []
    for pod in release.namespace.pods(f"serving.kserve.io/inferenceservice={release.fullname}"):
        status = pod["status"]
        for each in (*status.get("initContainerStatuses", []), *status.get("containerStatuses", [])):
            for state in (each.get("state", {}), each.get("lastState", {})):
                if message := state.get("terminated", {}).get("message"):
                    found.append(message)
                    break
    return found


def test_helm_test_asks_for_a_profile(served):
    assert "Phase:          Succeeded" in served.release.helm("test", "--timeout=3m")


def test_pod_security_has_refused_no_pod(served):
    events = served.release.namespace.events()
    assert [each["message"] for each in events if "violate" in each["message"].lower()] == []


def test_the_answers_are_those_of_the_evaluation(served, world):
    """The smoke profiles that the promotion has kept, as a rollout compares them."""
    profiles = smoke.parse(world.models.read(world.models.show(), smoke.SMOKE), "the champion")
    asked = smoke.request(profiles)
    answer = served.caller.ask(*asked["instances"], **asked["parameters"])
    assert_all_answered([answer])
    assert smoke.faults(answer["body"], profiles) == []


def test_the_answers_are_those_of_the_pipelines_own_student(served, world, users, tmp_path):
    """Features by way of the online store, the same prompt, the same weights: as `conf-profile serve` answers."""
    loaded = folder.load(world.student, "float32")
    expected = loaded.answer(world.people_now(users, tmp_path), 32)
    everything = dict.fromkeys(loaded.task.names, 1)
    found = served.caller.ask(*({"user_id": user} for user in users), thresholds=everything)["body"]["predictions"]
    pairs = [
        (expected.tags[row][column], prediction["profile"][name]["tag"])
        for row, prediction in enumerate(found)
        for column, name in enumerate(loaded.task.names)
        if any(tag is not None for tag in expected.tags[row])  # the grammar mends what was malformed
    ]
    assert [prediction["user_id"] for prediction in found] == users
    assert len(pairs) > 30
    assert np.mean([student == shown for student, shown in pairs]) > 0.95


def test_without_s3_it_goes_on(served, world, users):
    before = served.caller.ask({"user_id": users[0]})
    world.relay.cut()
    try:
        with served.caller.load(RATE, users) as answers:
            until("answers without S3", lambda: len(answers) > 40, seconds=120)
        own = served.caller.ask({"user_id": "x", "features": {"watch": ["rose pruning"], "consent": True}})
        ready = [pod["status"]["containerStatuses"][0]["ready"] for pod in served.pods("transformer")]
    finally:
        world.relay.mend()
    assert_all_answered([*answers, own])
    assert set(versions(answers)) == set(versions([before]))
    assert ready == [True]


def test_without_the_online_store_features_of_the_request_still_do(served, users):
    namespace, name = served.release.namespace, f"deployment/{served.release.fullname}-online-store"
    before = served.caller.ask({"user_id": users[0]})
    namespace.kubectl("scale", name, "--replicas=0")
    try:
        refused = until(
            "a request that needs the store fails", lambda: lost(a := served.caller.ask({"user_id": users[0]})) and a
        )
        own = served.caller.ask({"user_id": "x", "features": {"watch": ["rose pruning"], "consent": True}})
    finally:
        namespace.kubectl("scale", name, "--replicas=1")
    assert (refused["status"], refused["retry_after"]) == (503, "1")
    assert "feature store" in refused["body"]
    assert_all_answered([own])
    until("the store is back", lambda: not lost(served.caller.ask({"user_id": users[0]})), seconds=120)
    # `values-cpu.yaml` keeps it on no volume: the next materialisation brings everything back.
    served.job("materialise", "features-again")
    assert served.caller.ask({"user_id": users[0]})["body"] == before["body"]


def test_a_predictor_that_vanishes_is_a_503_and_comes_back(served, users):
    (pod,) = served.pods("predictor")
    with served.caller.load(RATE, users) as answers:
        until("answers before", lambda: len(answers) >= 10)
        served.release.namespace.kubectl("delete", "pod", pod["metadata"]["name"], "--grace-period=1")
        until("the first refusal", lambda: any(map(lost, answers)), seconds=120)
        began = len(answers)
        until("it answers again", lambda: answered_lately(answers, began), seconds=400)
    refused = [answer for answer in answers if answer["status"] != 200]
    assert {answer["status"] for answer in refused} <= {502, 503, 504}
    waiting = [answer["retry_after"] for answer in refused if answer["status"] == 503]
    assert waiting and set(waiting) == {"1"}


def answered_lately(answers, began):
    """The last twenty, of those that came after `began`."""
    lately = sorted(answers[began:], key=lambda answer: answer["at"])[-20:]
    return len(lately) == 20 and not any(map(lost, lately))


def test_an_erasure_reaches_the_online_store(served, world, users):
    erased, other = users[-1], users[0]
    namespace, name = served.release.namespace, served.release.fullname
    assert None in reasons(served.caller.ask({"user_id": erased}, **{"thresholds": {"age": 1}}))
    namespace.secret(f"{name}-erase", users=erased)
    served.job("erase", "erase-one")
    answer = served.caller.ask({"user_id": erased}, {"user_id": other})
    assert reasons(answer) == {"unknown user"}
    assert reasons(answer, 1) != {"unknown user"}
    log = namespace.kubectl("logs", "job/erase-one")
    assert "0 left" in log and erased not in log
    namespace.kubectl("delete", f"secret/{name}-erase", "job/erase-one")


def test_a_damaged_version_is_refused_and_the_old_one_keeps_serving(served, world, users):
    before, version = served.version, world.publish({"age": 3})
    world.flip_a_byte(version)
    with served.caller.load(RATE, users[:-1]) as answers:
        succeeded, said = served.caller.rollout(version)
    assert not succeeded
    assert "model.safetensors has the SHA-256" in said
    assert served.version == before
    assert_all_answered(answers)
    assert set(versions(answers)) == {before}


def test_another_version_is_rolled_out_and_no_request_is_lost(served, world, users):
    before, version = served.version, world.publish({"age": 2})
    world.models.promote(version, {})
    with served.caller.load(ROLLOUT_RATE, users[:-1]) as answers:
        succeeded, said = served.caller.rollout(version)
    assert succeeded, said
    assert_all_answered(answers)
    # Each request is answered by one version, with that version's thresholds; both answer while pods change.
    assert set(versions(answers)) == {before, version}
    assert versions([served.caller.ask({"user_id": users[0]})]) == [version]
    assert served.version == version


def test_an_upgrade_of_the_release_keeps_the_version(served, layers):
    version = served.version
    served.release.install(*layers, {"serving": {"thresholds": {"gender": 5}}}, options=("--wait", "--timeout=10m"))
    assert served.version == version


def test_a_missing_secret_is_refused_before_anything_is_made(served, layers):
    other = served.release.namespace.release("other")
    with pytest.raises(CommandError, match="there is no Secret nowhere in namespace"):
        other.install(*layers, {"s3": {"existingSecret": "nowhere"}})
    assert "other" not in json.dumps(served.release.namespace.get("deployments"))
