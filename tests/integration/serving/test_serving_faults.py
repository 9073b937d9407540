"""A running transformer whose predictor or feature store is slow, wrong or away: honest answers in time, and recovery.

"In time" is the client's own limit of a minute: a request that hangs fails its test.
"""

import json
import os
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import httpx
import pytest

from conf_profile.config import FeaturesConfig
from serving.transformer import rest
from support.s3 import wait_until
from support.serving_process import ANSWER, Predictor, Redis, Transformer, brought, online_store, transformer
from support.teacher_server import Reply, completion, error, serve

DEADLINE = 2.0
QUICK = {"backoff_seconds": 0.01, "max_attempts": 2, "breaker_failures": 4, "breaker_seconds": 0.2}
STATED = completion(ANSWER)


@pytest.fixture(scope="module")
def server():
    with serve() as running:
        yield running


@pytest.fixture(scope="module")
def running(server, tmp_path_factory):
    folder = tmp_path_factory.mktemp("faults")
    url, features = server.url.removesuffix("/v1"), {"repository": str(online_store(folder))}
    # A breaker that opened in one test would answer in the next.
    calm = {**QUICK, "breaker_failures": 1_000_000}
    with transformer(folder, url, predictor=calm, features=features, deadline_seconds=DEADLINE) as made:
        yield made


@pytest.fixture(autouse=True)
def good_again(server):
    yield
    server.behave = lambda number, call: STATED


# ---- the predictor


def test_it_answers(running):
    (found,) = running.ask(brought()).json()["predictions"]
    assert found["profile"]["gender"] == {"tag": "female", "level": 5, "score": 0.8, "accepted": True}
    assert "# TYPE conf_profile_drift_bits gauge" in running.http.get("/metrics").text


def test_a_slow_predictor_costs_a_request_its_deadline_and_no_more(running, server):
    never = threading.Event()
    server.behave = lambda number, call: completion(ANSWER, wait_for=never if "slow" in call.user_text else None)
    try:
        answer = running.ask(brought(phrase="slow"))
        assert (answer.status_code, answer.json()["detail"]) == (
            504,
            "the deadline passed before the predictor answered",
        )
        late, good = running.ask(brought("u1", "slow"), brought("u2")).json()["predictions"]
        assert late["error"]["code"] == 504 and late["profile"]["gender"]["accepted"] is False
        assert good["profile"]["gender"]["tag"] == "female" and "error" not in good
    finally:
        never.set()


def nonsense():
    """Answers of status 200 that vLLM would not give."""
    yield Reply(200, b"{")
    yield Reply(200, b"")
    yield Reply(200, b"\xff\xfe")
    yield completion(ANSWER, cut=True)
    for choices in (None, [], {}, [[]], [None], ["x"], [{}], [{"message": []}], [{"message": {"content": 7}}]):
        yield Reply(200, json.dumps({"choices": choices}).encode())
    for content in ([{}], "x", [{"token": "<level>4</level>", "top_logprobs": [{"token": "1"}]}]):
        choice = {"message": {"content": ANSWER}, "logprobs": {"content": content}}
        yield Reply(200, json.dumps({"choices": [choice]}).encode())


@pytest.mark.parametrize("reply", [error(500, "Traceback (most recent call last)"), *nonsense()])
def test_a_predictor_that_fails_or_answers_nonsense_is_a_502_that_quotes_nothing_of_it(running, server, reply):
    server.behave = lambda number, call: reply
    answer = running.ask(brought())
    assert answer.status_code == 502
    assert "predictor" in answer.json()["detail"] and "Traceback" not in answer.text


def test_why_vllm_refuses_a_prompt_is_passed_on(running, server):
    server.behave = lambda number, call: error(400, "maximum context length is 96 tokens\n  File x")
    answer = running.ask(brought())
    assert answer.json()["detail"] == "the predictor answered 400: maximum context length is 96 tokens"


@pytest.mark.parametrize(
    "text",
    ["", "I cannot say.", ANSWER[:-9], ANSWER + "x", ANSWER.replace(">4<", ">9<"), ANSWER.replace("female", "?")],
)
def test_text_outside_the_grammar_is_withheld_and_counted(running, server, text):
    server.behave = lambda number, call: completion(text)
    before = running.metric("conf_profile_malformed_completions_total")
    (found,) = running.ask(brought()).json()["predictions"]
    assert found["profile"]["gender"] == {"tag": None, "accepted": False, "reason": "malformed answer"}
    assert running.metric("conf_profile_malformed_completions_total") == before + 1


@pytest.mark.parametrize("logprob", [709.0, -1e308])
def test_absurd_probabilities_leave_the_stated_level(running, server, logprob):
    pieces = ["<rationale>x</rationale><gender>female<level>", "4", "</level></gender>"]
    top = [{"token": level, "logprob": logprob} for level in "12345"]
    content = [{"token": piece, "top_logprobs": top} for piece in pieces]
    choice = {"message": {"content": ANSWER}, "logprobs": {"content": content}}
    server.behave = lambda number, call: Reply(200, json.dumps({"choices": [choice]}).encode())
    answer = running.ask(brought())
    assert answer.status_code == 200, answer.text
    assert answer.json()["predictions"][0]["profile"]["gender"]["level"] == 5


def test_callers_with_little_time_do_not_open_the_breaker_for_the_others(server, tmp_path):
    never = threading.Event()
    server.behave = lambda number, call: completion(ANSWER, wait_for=never)
    with transformer(tmp_path, server.url.removesuffix("/v1"), predictor={**QUICK, "breaker_seconds": 600}) as made:
        statuses = {made.ask(brought(), headers={"x-deadline-ms": "5"}).status_code for _ in range(8)}
        assert statuses == {504}
        never.set()
        assert made.ask(brought()).status_code == 200


def test_before_the_predictor_is_there_callers_are_told_to_come_again(tmp_path):
    predictor = Predictor()
    with transformer(tmp_path, predictor.url, until=Transformer.is_up) as made:
        answer = made.ask(brought())
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
        assert not made.is_ready()
        predictor.start()
        try:
            wait_until(made.is_ready, "the transformer to be ready")
            assert made.ask(brought()).status_code == 200
        finally:
            predictor.kill()


class Load:
    """Callers that ask one request after the other; what they were answered, in order."""

    def __init__(self, ask, callers=8):
        self.ask, self.answers, self.over = ask, [], threading.Event()
        self.threads = [threading.Thread(target=self.keep_asking) for _ in range(callers)]

    def keep_asking(self):
        while not self.over.is_set():
            self.answers.append(self.ask())
            self.over.wait(0.01)

    def see(self, status, count, since):
        wait_until(lambda: self.count(status, since) >= count, f"{count} answers of status {status}")

    def count(self, status, since):
        return sum(answer.status_code == status for answer in self.answers[since:])

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self.over.set()
        for thread in self.threads:
            thread.join()


def test_a_predictor_killed_and_restarted_under_load(tmp_path):
    predictor = Predictor(seconds=0.02)
    predictor.start()
    try:
        with transformer(tmp_path, predictor.url, predictor=QUICK, deadline_seconds=5.0) as made:
            with Load(lambda: made.ask(brought())) as load:
                for _ in range(2):
                    load.see(200, 30, since=len(load.answers))
                    predictor.kill()
                    load.see(503, 60, since=len(load.answers))
                    predictor.start()
                    wait_until(lambda: made.metric("conf_profile_breaker_state") == 0, "the breaker to close")
                    load.see(200, 30, since=len(load.answers))
            assert made.child.process.poll() is None
        assert {answer.status_code for answer in load.answers} == {200, 503}
        away = [answer for answer in load.answers if answer.status_code == 503]
        assert all(answer.headers["retry-after"] == "1" for answer in away)
        assert any("left alone" in answer.text for answer in away), "the breaker never opened"
    finally:
        predictor.kill()


# ---- the feature store


@pytest.fixture(scope="module")
def redis_server(tmp_path_factory):
    server = Redis(tmp_path_factory.mktemp("redis") / "data")
    if server.binary is None:
        pytest.skip("redis-server is not installed (Debian: apt-get install redis-server)")
    server.start()
    yield server
    server.signal(signal.SIGCONT)
    server.kill()


@pytest.fixture(scope="module")
def reads_redis(redis_server, server, tmp_path_factory):
    folder = tmp_path_factory.mktemp("reads_redis")
    config = FeaturesConfig(online_store="redis", redis_url=redis_server.address)
    features = {"repository": str(online_store(folder, config))}
    url = server.url.removesuffix("/v1")
    with transformer(folder / "transformer", url, features=features, deadline_seconds=10.0) as made:
        yield made


@pytest.fixture
def on_redis(reads_redis, redis_server):
    assert answered(reads_redis)
    yield reads_redis
    redis_server.signal(signal.SIGCONT)
    wait_until(lambda: answered(reads_redis), "the features to be read again")


def answered(made):
    answer = made.ask({"user_id": "ada"})
    return answer.status_code == 200 and answer.json()["predictions"][0]["profile"]["gender"]["accepted"]


def check_without_features(made):
    """What is honest while the store does not answer: an error of its own, and the others' profiles."""
    alone = made.ask({"user_id": "ada"})
    assert (alone.status_code, alone.headers["retry-after"]) == (503, "1")
    assert "feature store" in alone.json()["detail"]
    stored, other = made.ask({"user_id": "ada"}, brought()).json()["predictions"]
    assert stored["error"]["code"] == 503 and "feature store" in stored["error"]["message"]
    assert stored["profile"]["gender"] == {
        "tag": None, "accepted": False, "reason": "the feature store gave no answer",
    }  # fmt: skip
    assert other["profile"]["gender"]["tag"] == "female" and "error" not in other


def test_redis_down_and_back(on_redis, redis_server):
    for _ in range(2):
        redis_server.kill()
        check_without_features(on_redis)
        redis_server.start()
        wait_until(lambda: answered(on_redis), "the features to be read again")


def test_redis_silent_under_load_and_back(on_redis, redis_server):
    redis_server.signal(signal.SIGSTOP)
    with Load(lambda: on_redis.ask({"user_id": "ada"})) as load:
        load.see(503, 60, since=0)
        assert any("left alone" in answer.text for answer in load.answers), "everybody waited for it"
        check_without_features(on_redis)
        redis_server.signal(signal.SIGCONT)
        load.see(200, 30, since=len(load.answers))
    assert {answer.status_code for answer in load.answers} == {200, 503}


def test_a_caller_with_little_time_does_not_wait_for_a_silent_redis(on_redis, redis_server):
    redis_server.signal(signal.SIGSTOP)
    answer = on_redis.ask({"user_id": "ada"}, headers={"x-deadline-ms": "50"})
    assert (answer.status_code, answer.json()["detail"]) == (
        504,
        "the deadline passed before the feature store answered",
    )


def test_without_redis_it_does_not_start_and_says_why(redis_server, server, tmp_path):
    config = FeaturesConfig(online_store="redis", redis_url=redis_server.address)
    features = {"repository": str(online_store(tmp_path, config))}
    redis_server.kill()
    made = Transformer(tmp_path / "transformer", server.url.removesuffix("/v1"), features=features)
    try:
        assert made.child.process.wait(180) == 2
        words = made.child.last_words()
        assert "the online store cannot be read" in words and "Traceback" not in words
    finally:
        made.stop()
        redis_server.start()


# ---- people


def test_an_unknown_user_and_one_without_consent_are_refused_and_nobody_asks_the_model(running, server):
    asked = len(server.calls)
    answer = running.ask({"user_id": "eve"}, {"user_id": "zoe"}, {"user_id": "u", "features": {"watch": ["x"]}})
    reasons = [found["profile"]["gender"]["reason"] for found in answer.json()["predictions"]]
    assert (answer.status_code, reasons) == (200, ["no consent", "unknown user", "no consent"])
    assert len(server.calls) == asked


def test_logs_name_nobody_and_quote_nothing(running):
    running.ask({"user_id": "secret-person"}, {"user_id": "secret-person", "features": {"secret-key": 1}})
    running.ask(brought("secret-person", "secret-hobby"), thresholds={"secret-attribute": 9})
    running.http.post(running.path, content=b'{"secret-json": ')
    running.http.get("/v2/models/secret-model/ready")
    words = running.child.log.read_text()
    assert '"event": "refused", "status": 400' in words
    assert "secret" not in words


# ---- what callers must not be able to do


@pytest.mark.parametrize("path", sorted(rest.UNSERVED_ROUTES))
def test_nobody_can_unload_the_model_or_ask_in_another_way(running, path):
    address = path.format(model_name=running.name, model_version="1")
    # 405: the rest of the path is taken for a model's name, of which a GET may ask.
    assert {running.http.post(address, json={}).status_code, running.http.get(address).status_code} <= {404, 405}
    assert running.is_ready()


def test_a_body_without_end_is_refused(running):
    chunk = b" " * 2**20

    def endless():
        for _ in range(rest.MAX_BODY_BYTES // len(chunk) + 2):
            yield chunk

    # It may have answered and closed before all was sent.
    with suppress(httpx.WriteError):
        assert running.http.post(running.path, content=endless()).status_code == 413
    assert running.ask(brought()).status_code == 200


# ---- the end


def test_sigterm_during_requests_answers_them_all(server, tmp_path):
    enough, callers = threading.Event(), 24
    server.behave = lambda number, call: completion(ANSWER, wait_for=enough)
    with (
        transformer(tmp_path, server.url.removesuffix("/v1"), deadline_seconds=60.0) as made,
        ThreadPoolExecutor(callers) as pool,
    ):
        answers = [pool.submit(made.ask, brought(f"u{number}")) for number in range(callers)]
        wait_until(lambda: server.running == callers, "the predictor to have all requests")
        os.kill(made.child.guarded.pid, signal.SIGTERM)
        wait_until(lambda: made.status("/") is None, "the transformer to take no further requests")
        enough.set()
        assert [answer.result().status_code for answer in answers] == [200] * callers
        made.child.process.wait(60)
