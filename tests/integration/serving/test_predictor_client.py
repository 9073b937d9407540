"""The predictor's client against a real HTTP server that refuses, breaks off, answers late and answers nonsense."""

import asyncio
import threading
import time
from contextlib import asynccontextmanager

import pytest
from prometheus_client import REGISTRY

from conf_profile.config import PromptConfig
from conf_profile.consensus.confidence import Calibration, Partition
from conf_profile.dialogue import task as tasks
from serving.model.bundle import Bundle
from serving.settings import PredictorSettings
from serving.transformer.predictor_client import (
    BreakerOpenError,
    DeadlineExceededError,
    OtherVersionError,
    PredictorClient,
    PredictorError,
    PredictorUnavailableError,
    Question,
    RefusedError,
)
from support.teacher_server import Reply, completion, error, serve

TAGS = tasks.parse({"attributes": {"gender": ["female", "male"]}})
EVEN = Calibration("greedy", {"gender": Partition((0.2, 0.4, 0.6, 0.8))})
BUNDLE = Bundle("v1", TAGS, EVEN, EVEN, PromptConfig(student_style="brief"), 48, {"gender": 1}, {})
QUESTION = Question([{"role": "user", "content": "watch: rose pruning"}], 1)


@pytest.fixture
def server():
    with serve() as running:
        yield running


@asynccontextmanager
async def client(server, **settings):
    given = {"backoff_seconds": 0.01, **settings}
    made = PredictorClient(PredictorSettings(url=server.url.removesuffix("/v1"), **given), BUNDLE)
    try:
        yield made
    finally:
        await made.aclose()


def ask(server, question=QUESTION, seconds=10.0, headers=None, **settings):
    async def once():
        async with client(server, **settings) as made:
            return await made.ask(question, time.monotonic() + seconds, headers or {})

    return asyncio.run(once())


def test_the_request_is_what_training_would_ask(server):
    (found,) = ask(server, headers={"traceparent": "00-1-2-01"})
    assert "rose pruning" in found.text
    (call,) = server.calls
    assert call.path == "/v1/chat/completions"
    assert call.body["messages"] == QUESTION.messages
    assert (call.body["n"], call.body["temperature"], call.body["max_tokens"]) == (1, 0.0, 48)
    assert call.body["structured_outputs"]["regex"] == BUNDLE.grammar
    assert {name.lower(): value for name, value in call.headers.items()}["traceparent"] == "00-1-2-01"


def test_several_samples_are_one_request_at_a_temperature(server):
    ask(server, Question(QUESTION.messages, 5), vote_temperature=0.6)
    assert (server.calls[0].body["n"], server.calls[0].body["temperature"]) == (5, 0.6)


def test_503_is_tried_again_and_nothing_else_is(server):
    server.script(error(503), error(503))
    assert ask(server)
    assert len(server.calls) == 3
    for reply in (error(500), error(429), error(400), Reply(200, b"not json"), Reply(200, b"{}"), completion(cut=True)):
        server.calls.clear()
        server.script(reply)
        with pytest.raises(PredictorError) as caught:
            ask(server)
        assert caught.value.status == 502
        assert len(server.calls) == 1


@pytest.mark.parametrize("reply", [Reply(gone=True), completion("", reason="abort")])
def test_a_predictor_that_goes_away_before_it_answers_is_asked_again(server, reply):
    """As a pod that ends: its connections close, and what came too late is dropped."""
    server.script(reply, reply)
    assert ask(server)
    assert len(server.calls) == 3
    server.calls.clear()
    server.behave = lambda number, call: reply
    with pytest.raises(PredictorUnavailableError, match=r"went away|is ending"):
        ask(server, max_attempts=2, breaker_failures=1)
    assert len(server.calls) == 2, "the breaker counts a pod that ends"


def test_the_version_is_asked_for_by_its_name(server):
    ask(server)
    ask(server, by_version=False, model="any")
    assert [call.body["model"] for call in server.calls] == ["v1", "any"]
    server.calls.clear()
    server.script(error(404))
    with pytest.raises(OtherVersionError, match="does not serve v1"):
        ask(server, breaker_failures=1)


def test_an_overloaded_predictor_is_given_up_after_the_tries(server):
    server.behave = lambda number, call: error(503)
    with pytest.raises(PredictorUnavailableError, match=r"overloaded \(503\)") as caught:
        ask(server, max_attempts=2)
    assert (caught.value.status, len(server.calls)) == (503, 2)


def test_an_absent_predictor_is_named():
    with serve() as gone:
        pass
    with pytest.raises(PredictorUnavailableError, match="cannot be reached"):
        ask(gone, max_attempts=2)


def test_the_deadline_ends_a_slow_answer_and_the_retries(server):
    never = threading.Event()
    server.behave = lambda number, call: completion(wait_for=never)
    try:
        with pytest.raises(DeadlineExceededError) as caught:
            ask(server, seconds=0.2)
        assert caught.value.status == 504
    finally:
        never.set()
    server.behave = lambda number, call: error(503)
    with pytest.raises(DeadlineExceededError):
        ask(server, seconds=0.2, backoff_seconds=5.0)


def test_no_more_than_the_places_are_under_way(server):
    async def many():
        async with client(server, concurrency=3) as made:
            deadline = time.monotonic() + 20
            return await asyncio.gather(*(made.ask(QUESTION, deadline, {}) for _ in range(12)))

    assert len(asyncio.run(many())) == 12
    assert server.most_running <= 3


def test_the_breaker_spares_a_failing_predictor_and_finds_it_again(server):
    async def story():
        async with client(server, max_attempts=1, breaker_failures=2, breaker_seconds=0.2) as made:

            async def once():
                return await made.ask(QUESTION, time.monotonic() + 5, {})

            server.behave = lambda number, call: error(500)
            for _ in range(2):
                with pytest.raises(PredictorError):
                    await once()
            with pytest.raises(BreakerOpenError):
                await once()
            assert len(server.calls) == 2
            server.behave = lambda number, call: completion()
            while True:
                try:
                    return await once()
                except BreakerOpenError:
                    await asyncio.sleep(0.02)

    assert asyncio.run(story())
    assert len(server.calls) == 3


def test_a_prompt_that_is_refused_says_nothing_against_the_predictor(server):
    """Too long for the model, say; the next user's is not."""

    async def story():
        async with client(server, breaker_failures=2, breaker_seconds=60) as made:
            server.script(error(400), error(422), error(400))
            for _ in range(3):
                with pytest.raises(RefusedError, match="no"):
                    await made.ask(QUESTION, time.monotonic() + 5, {})
            return await made.ask(QUESTION, time.monotonic() + 5, {})

    assert asyncio.run(story())


def test_users_who_are_too_many_for_the_deadline_do_not_open_the_breaker_for_the_others(server):
    never = threading.Event()
    server.behave = lambda number, call: completion(wait_for=None if number == 0 else never)

    async def story():
        async with client(server, concurrency=1, breaker_failures=3, breaker_seconds=60) as made:
            began = time.monotonic()
            # The first one has all the time that it needs, on a slow machine too.
            together = [made.ask(QUESTION, began + (1.0 if number else 20.0), {}) for number in range(8)]
            found = await asyncio.gather(*together, return_exceptions=True)
            server.behave = lambda number, call: completion()
            return found, await made.ask(QUESTION, time.monotonic() + 5, {})

    try:
        found, later = asyncio.run(story())
    finally:
        never.set()
    assert sorted(isinstance(one, DeadlineExceededError) for one in found) == [False] + [True] * 7
    assert later


def test_the_metric_tells_of_a_breaker_that_a_silent_predictor_opened(server):
    never = threading.Event()
    server.behave = lambda number, call: completion(wait_for=never)
    try:
        with pytest.raises(DeadlineExceededError):
            ask(server, seconds=0.1, breaker_failures=1)
    finally:
        never.set()
    assert REGISTRY.get_sample_value("conf_profile_breaker_state") == 2
    server.behave = lambda number, call: completion()
    assert ask(server)
    assert REGISTRY.get_sample_value("conf_profile_breaker_state") == 0


def test_a_predictor_that_never_answers_opens_the_breaker_too(server):
    never = threading.Event()
    server.behave = lambda number, call: completion(wait_for=never)

    async def story():
        async with client(server, breaker_failures=1, breaker_seconds=60) as made:
            with pytest.raises(DeadlineExceededError):
                await made.ask(QUESTION, time.monotonic() + 0.1, {})
            with pytest.raises(BreakerOpenError):
                await made.ask(QUESTION, time.monotonic() + 5, {})

    try:
        asyncio.run(story())
    finally:
        never.set()
