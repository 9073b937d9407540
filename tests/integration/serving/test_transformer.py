"""The transformer's three stages in one process, its predictor a real HTTP server that answers as told."""

import asyncio
import json
import logging
import threading

import pytest
from fastapi import HTTPException
from kserve.errors import InvalidInput
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from conf_profile.config import PromptConfig
from conf_profile.consensus.confidence import Calibration, Partition
from conf_profile.dialogue import task as tasks
from conf_profile.errors import ServingError
from serving.model.bundle import Bundle
from serving.settings import PredictorSettings, Settings
from serving.telemetry.drift import DriftMonitor
from serving.telemetry.logs import JsonFormatter
from serving.transformer.predictor_client import PredictorClient
from serving.transformer.transformer import ProfileTransformer
from serving.transformer.versions import ServedVersion
from support.teacher_server import completion, error, serve

TAGS = tasks.parse({"attributes": {"gender": ["female", "male"]}})
EVEN = Calibration("greedy", {"gender": Partition((0.2, 0.4, 0.6, 0.8))})


def bundle(version="v1"):
    return Bundle(version, TAGS, EVEN, EVEN, PromptConfig(student_style="brief"), 48, {"gender": 3}, {})


@pytest.fixture
def server():
    with serve() as running:
        yield running


def served(server, version="v1", **settings):
    predictor = PredictorSettings(url=server.url.removesuffix("/v1"), max_attempts=1)
    given, model = Settings(model="m", predictor=predictor, **settings), bundle(version)
    return ServedVersion(model, PredictorClient(predictor, model), given, DriftMonitor(model))


def user(name, phrase="rose pruning"):
    return {"user_id": name, "features": {"watch": [phrase], "consent": True}}


def ask(server, *instances, headers=None, settings=None, **parameters):
    async def once():
        model = ProfileTransformer(served(server, **(settings or {})), None)
        answer, _ = await model({"instances": list(instances), "parameters": parameters}, headers or {})
        return answer["predictions"]

    return asyncio.run(once())


def test_users_of_one_request_are_asked_for_together_and_answered_in_order(server):
    everybody = threading.Barrier(3, timeout=20)

    def behave(number, call):
        # Nobody is answered before all three have asked: asked one after the other, they would wait in vain.
        everybody.wait()
        tag = "male" if "b" in call.user_text else "female"
        return completion(f"<rationale>x</rationale><gender>{tag}<level>4</level></gender>")

    server.behave = behave
    found = ask(server, user("u1", "b"), user("u2", "c"), user("u3", "b"))
    tags = [(p["user_id"], p["profile"]["gender"]["tag"]) for p in found]
    assert tags == [("u1", "male"), ("u2", "female"), ("u3", "male")]


def test_one_users_failure_stands_beside_the_others_answers(server):
    server.behave = lambda number, call: error(500) if "poison" in call.user_text else completion()
    good, bad = ask(server, user("u1"), user("u2", "poison"))
    assert good["profile"]["gender"]["tag"] == "female" and "error" not in good
    assert bad["error"]["code"] == 502
    assert bad["profile"]["gender"] == {"tag": None, "accepted": False, "reason": "the predictor gave no answer"}


@pytest.mark.parametrize(("status", "expected"), [(500, 502), (503, 503)])
def test_when_nobody_is_answered_for_the_request_fails(server, status, expected):
    server.behave = lambda number, call: error(status)
    with pytest.raises(HTTPException) as caught:
        ask(server, user("u1"), user("u2"))
    assert caught.value.status_code == expected
    assert caught.value.headers == ({"Retry-After": "1"} if expected == 503 else None)


def test_a_caller_may_ask_for_less_time_and_not_for_nonsense(server):
    with pytest.raises(HTTPException) as caught:
        ask(server, user("u1"), headers={"x-deadline-ms": "0"})
    assert caught.value.status_code == 504
    with pytest.raises(InvalidInput, match="x-deadline-ms: 'soon'"):
        ask(server, user("u1"), headers={"x-deadline-ms": "soon"})


def test_a_user_without_features_needs_a_store(server):
    with pytest.raises(InvalidInput, match=r"user 'u1' has no 'features'.*set features\.repository"):
        ask(server, {"user_id": "u1"})


def test_a_request_ends_with_the_version_that_it_began_with(server):
    async def story():
        model = ProfileTransformer(served(server), None)
        asked = await model.preprocess({"instances": [user("u1")]})
        model.replace(served(server, "v2"))
        old = await model.postprocess(await model.predict(asked))
        new, _ = await model({"instances": [user("u1")]})
        return [answer["predictions"][0]["model_version"] for answer in (old, new)]

    assert asyncio.run(story()) == ["v1", "v2"]


def test_thresholds_for_an_attribute_that_the_model_lacks_are_refused_before_serving(server):
    with pytest.raises(ServingError, match="knows no attribute height; it has gender"):
        ask(server, user("u1"), settings={"thresholds": {"height": 3}})


@pytest.fixture(scope="module")
def spans():
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    trace.set_tracer_provider(provider)
    return exporter


def test_the_callers_trace_goes_through_to_the_predictor(server, spans):
    spans.clear()
    caller = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    ask(server, user("u1"), headers={"traceparent": caller, "x-request-id": "r-17"})
    named = {span.name: span for span in spans.get_finished_spans()}
    assert {"profile", "features", "predictor", "parse"} <= named.keys()
    assert {format(span.context.trace_id, "032x") for span in named.values()} == {caller.split("-")[1]}
    assert format(named["profile"].parent.span_id, "016x") == caller.split("-")[2]
    headers = {name.lower(): value for name, value in server.calls[0].headers.items()}
    assert headers["traceparent"].split("-")[2] == format(named["predictor"].context.span_id, "016x")
    assert headers["x-request-id"] == "r-17"


@pytest.mark.parametrize("features", [{"I am 34 and ill": []}, {"watch": "I am 34 and ill", "consent": True}])
def test_the_span_of_a_refused_request_quotes_nobody(server, spans, features):
    spans.clear()
    with pytest.raises(InvalidInput, match="somebody"):
        ask(server, {"user_id": "somebody", "features": features})
    found = spans.get_finished_spans()
    assert {span.name: span.status.description for span in found}["profile"] == "InvalidInput"
    told = "".join(span.to_json() for span in found)
    assert "somebody" not in told and "ill" not in told


def test_the_log_counts_and_names_nobody(server, caplog):
    with caplog.at_level(logging.INFO, logger="serving.transformer.transformer"):
        logging.getLogger("serving").propagate = True
        ask(server, user("somebody", "secret hobby"), {"user_id": "other", "features": {"watch": ["x"]}})
    (line,) = [
        JsonFormatter().format(record) for record in caplog.records if record.name == "serving.transformer.transformer"
    ]
    found = json.loads(line)
    assert (found["event"], found["users"], found["prompts"], found["accepted"]) == ("request", 2, 1, 1)
    assert "somebody" not in line and "secret" not in line
