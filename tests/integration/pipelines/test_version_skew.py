"""Transformer and predictor of two versions, as while a rollout replaces them: every answer is one version's own."""

import asyncio
import json
import threading

import pytest
from fastapi import HTTPException

from conf_profile.config import PromptConfig
from conf_profile.consensus.confidence import Calibration, Partition
from conf_profile.dialogue import task as tasks
from conf_profile.errors import RegistryError
from serving.model.bundle import Bundle
from serving.settings import PredictorSettings, Settings
from serving.telemetry.drift import DriftMonitor
from serving.transformer import versions
from serving.transformer.predictor_client import PredictorClient
from serving.transformer.transformer import ProfileTransformer
from serving.transformer.versions import OtherVersions, ServedVersion
from support.teacher_server import completion, error, serve

TAGS = tasks.parse({"attributes": {"gender": ["female", "male"]}})
MORE = tasks.parse({"attributes": {"gender": ["female", "male"], "age": ["young", "old"]}})
ANSWERS = {
    "v1": "<rationale>x</rationale><gender>male<level>4</level></gender>",
    "v2": "<rationale>x</rationale><gender>male<level>4</level></gender><age>old<level>4</level></age>",
}


def bundle(version, tags, boundaries, keyphrases):
    partition = Calibration("greedy", dict.fromkeys(tags.names, Partition(boundaries)))
    prompt = PromptConfig(student_style="brief", max_keyphrases=keyphrases)
    return Bundle(version, tags, partition, partition, prompt, 48, dict.fromkeys(tags.names, 2), {})


# The same stated level is level 5 by the first model's partition and level 1 by the second's.
BUNDLES = {
    "v1": bundle("v1", TAGS, (0.1, 0.2, 0.3, 0.4), 1),
    "v2": bundle("v2", MORE, (0.9, 0.92, 0.94, 0.96), 2),
}


class Registry:
    """Finds the two versions; counts how often it was asked, and fails when told to."""

    def __init__(self):
        self.asked, self.away = [], False

    def find(self, version):
        self.asked.append(version)
        if self.away:
            raise RegistryError("the server does not answer")
        return BUNDLES.get(version)


class Pods:
    """A server that plays the predictor's pods: each connection leads to one of them, in turns, and stays with it."""

    def __init__(self, server):
        self.server = server
        self.set("v1")
        server.behave = self.answer
        server.models = lambda connection: ["conf-profile", self.at(connection)]

    def set(self, *serving):
        """The versions of the pods from now on."""
        self.serving = serving

    def at(self, connection):
        return self.serving[connection % len(self.serving)]

    def answer(self, number, call):
        here = self.at(call.connection)
        return completion(ANSWERS[here]) if call.body["model"] == here else error(404, "no such model")


@pytest.fixture
def pods():
    with serve() as running:
        yield Pods(running)


@pytest.fixture
def registry():
    return Registry()


def transformer(pods, registry, version="v1", **settings):
    predictor = PredictorSettings(url=pods.server.url.removesuffix("/v1"), backoff_seconds=0.01)
    given = Settings(model="m", predictor=predictor, **settings)
    client = PredictorClient(predictor, BUNDLES[version])
    others = OtherVersions(registry, given)
    return ProfileTransformer(
        ServedVersion(BUNDLES[version], client, given, DriftMonitor(BUNDLES[version]), others), None
    )


async def ask(model, users=1, **parameters):
    features = {"watch": ["chess", "rose pruning"], "consent": True}
    instances = [{"user_id": f"u{number}", "features": features} for number in range(users)]
    answer, _ = await model({"instances": instances, "parameters": parameters}, {})
    return answer["predictions"]


def test_the_predictors_version_answers_with_its_own_prompt_levels_and_name(pods, registry):
    async def story():
        model = transformer(pods, registry)
        (old,) = await ask(model)
        pods.set("v2")
        pods.server.calls.clear()
        (new,) = await ask(model)
        (again,) = await ask(model)
        return old, new, again

    old, new, again = asyncio.run(story())
    assert (old["model_version"], old["profile"]) == (
        "v1", {"gender": {"tag": "male", "level": 5, "score": 0.8, "accepted": True}},
    )  # fmt: skip
    assert new == again
    assert (new["model_version"], list(new["profile"])) == ("v2", ["gender", "age"])
    assert new["profile"]["gender"] == {
        "tag": None, "level": 1, "score": 0.8, "accepted": False, "reason": "below threshold 2",
    }  # fmt: skip
    refused, answered = pods.server.calls[:2]
    assert (refused.body["model"], refused.user_text) == ("v1", "watch: rose pruning")
    assert (answered.body["model"], answered.user_text) == ("v2", "watch: chess; rose pruning")
    assert answered.body["structured_outputs"]["regex"] == BUNDLES["v2"].grammar
    assert registry.asked == ["conf-profile", "v2"], "fetched once"


def test_a_new_transformer_answers_by_the_old_predictor_until_the_new_one_is_there(pods, registry):
    async def story():
        model = transformer(pods, registry, "v2")
        assert await model.healthy()
        before = await ask(model, 3)
        pods.set("v2")
        return before, await ask(model, 3)

    before, after = asyncio.run(story())
    assert {one["model_version"] for one in before} == {"v1"}
    assert {one["model_version"] for one in after} == {"v2"}


def test_no_request_is_lost_while_pods_of_two_versions_take_turns(pods, registry):
    async def story():
        model = transformer(pods, registry)
        pods.set("v1", "v2")
        return [one for batch in await asyncio.gather(*(ask(model, 4) for _ in range(10))) for one in batch]

    found = asyncio.run(story())
    assert len(found) == 40 and not any("error" in one for one in found)
    assert {one["model_version"] for one in found} == {"v1", "v2"}
    for one in found:
        assert one["profile"]["gender"]["level"] == {"v1": 5, "v2": 1}[one["model_version"]]


def test_without_the_registry_a_strange_version_is_a_503_and_the_known_one_goes_on(pods, registry, monkeypatch):
    monkeypatch.setattr(versions, "FAILURE_SECONDS", 0.0)

    async def story():
        model = transformer(pods, registry)
        registry.away = True
        pods.set("v2")
        with pytest.raises(HTTPException) as caught:
            await ask(model)
        assert (caught.value.status_code, caught.value.headers) == (503, {"Retry-After": "1"})
        assert "v2, which cannot be fetched: the server does not answer" in caught.value.detail
        assert not await model.healthy()
        pods.set("v1")
        (known,) = await ask(model)
        registry.away = False
        pods.set("v2")
        (fetched,) = await ask(model)
        return known["model_version"], fetched["model_version"]

    assert asyncio.run(story()) == ("v1", "v2")


def test_a_registry_that_is_away_is_not_asked_by_every_request(pods, registry):
    async def story():
        model = transformer(pods, registry)
        registry.away = True
        pods.set("v2")
        return await asyncio.gather(*(ask(model) for _ in range(20)), return_exceptions=True)

    assert {error.status_code for error in asyncio.run(story())} == {503}
    assert len(registry.asked) == 1


def test_a_predictor_that_names_no_known_version_is_told_what_to_do(pods, registry):
    pods.set("v9")
    with pytest.raises(HTTPException) as caught:
        asyncio.run(ask(transformer(pods, registry)))
    assert "serves conf-profile, v9 and not v1" in caught.value.detail
    assert "predictor.by_version: false" in caught.value.detail


def test_the_search_for_the_version_keeps_to_the_deadline(pods, registry):
    never = threading.Event()
    registry.find = lambda version: never.wait(30)
    pods.set("v2")

    async def story():
        with pytest.raises(HTTPException) as caught:
            await ask(transformer(pods, registry, deadline_seconds=0.3))
        never.set()
        return caught.value.status_code

    assert asyncio.run(story()) == 504


def test_thresholds_of_the_request_hold_for_the_other_version_too(pods, registry):
    pods.set("v2")
    (found,) = asyncio.run(ask(transformer(pods, registry), thresholds={"gender": 1}))
    assert found["profile"]["gender"]["accepted"] is True
    assert found["profile"]["age"]["accepted"] is False
    assert json.dumps(found)
