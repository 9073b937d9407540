"""The OpenAI teacher with a budget of seconds for retries, against a real HTTP server that is away for a while."""

import asyncio
import logging
import socket
import threading
from collections import Counter

import pytest

from conf_profile import transient
from conf_profile.config import TeacherConfig
from conf_profile.errors import ConfigError, TeacherError
from conf_profile.teachers.answers import AnswerStore, AskCounts, ask
from conf_profile.teachers.openai import OpenAITeacher
from conf_profile.teachers.protocol import Completion, Request
from support.teacher_server import GOOD_TEXT, Reply, completion, error, serve
from support.unsteady_proxy import PASS, UNREACHED, UnsteadyProxy, at_retry

KEY = "sk-a-secret"


@pytest.fixture
def server():
    with serve() as running:
        yield running


@pytest.fixture
def proxy(server):
    made = UnsteadyProxy(server.url)
    yield made
    made.shut()


@pytest.fixture(autouse=True)
def quickly(monkeypatch):
    monkeypatch.setenv("TEACHER_KEY", KEY)
    monkeypatch.setenv(transient.RETRY_SECONDS, "60")
    monkeypatch.setattr(transient, "FIRST_PAUSE", 0.01)
    monkeypatch.setattr(transient, "LONGEST_PAUSE", 0.05)


def teacher(server, **values):
    given = {"kind": "openai", "model": "m", "api_key_env": "TEACHER_KEY", "concurrency": 1, "samples": 1, "shards": 1}
    url = server.url if server.url.endswith("/v1") else f"{server.url}/v1"
    return OpenAITeacher(TeacherConfig(**{**given, "base_url": url, "max_attempts": 2, "max_tokens": 64, **values}))


def users(count):
    return [Request(f"u{n}", ({"role": "user", "content": f"user {n}"},), (0,)) for n in range(count)]


def collect(teacher, requests):
    """Everything that the teacher yields, and the error that ended it."""

    async def run():
        arrived = []
        try:
            async for answer in teacher.complete(requests):
                arrived += [answer]
        except TeacherError as failure:
            return arrived, failure
        return arrived, None

    return asyncio.run(run())


def retries(caplog):
    return [record.getMessage() for record in caplog.records if "next try" in record.getMessage()]


@pytest.mark.parametrize(
    "bad",
    [error(500), error(503), error(429, Retry_After="0"), error(408), Reply(gone=True), completion(cut=True)],
    ids=["500", "503", "429", "408", "no reply", "cut"],
)
def test_more_tries_than_attempts_while_the_budget_lasts(server, bad):
    server.script(*[bad] * 6)
    assert collect(teacher(server), users(1)) == ([Completion("u0", 0, GOOD_TEXT)], None)
    assert len(server.calls) == 7


def test_a_teacher_that_is_down_is_waited_for(server, proxy):
    proxy.shut()
    with at_retry(5, proxy.open):
        arrived, failure = collect(teacher(proxy, concurrency=8), users(20))
    assert failure is None
    assert Counter(answer.user_id for answer in arrived) == Counter(f"u{n}" for n in range(20))
    assert len(server.calls) == 20


def test_a_teacher_that_goes_away_in_the_middle_is_asked_for_nothing_twice(server, proxy, tmp_path):
    back = threading.Event()
    proxy.behave = lambda method, path: UNREACHED if len(server.calls) >= 5 and not back.is_set() else PASS
    asking = teacher(proxy, concurrency=4)
    with at_retry(3, back.set), AnswerStore(tmp_path, asking.fingerprint) as store:
        assert asyncio.run(ask(asking, users(20), store)) == AskCounts(asked=20, kept_before=0)
    assert set(Counter(call.user_text for call in server.calls).values()) == {1}


def test_many_requests_under_way_make_one_line_a_pause(server, proxy, monkeypatch, caplog):
    monkeypatch.setattr(transient, "FIRST_PAUSE", 1.0)
    monkeypatch.setattr(transient, "LONGEST_PAUSE", 1.0)
    together, first = threading.Barrier(32), iter(range(32))

    def behave(method, path):
        if next(first, None) is None:
            return PASS
        together.wait(60)
        return UNREACHED

    proxy.behave = behave
    arrived, failure = collect(teacher(proxy, concurrency=32), users(32))
    assert (len(arrived), failure) == (32, None)
    assert len(retries(caplog)) == 1


def test_when_attempts_and_budget_are_used_up_the_error_says_so(monkeypatch):
    monkeypatch.setenv(transient.RETRY_SECONDS, "0.3")
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        made = OpenAITeacher(
            TeacherConfig(kind="openai", model="m", base_url=f"http://127.0.0.1:{nobody.getsockname()[1]}/v1",
                          api_key_env="TEACHER_KEY", max_attempts=3, shards=1)
        )  # fmt: skip
        arrived, failure = collect(made, users(50))
    assert arrived == []
    assert "cannot be reached" in str(failure) and "(CONF_PROFILE_RETRY_SECONDS=0.3)" in str(failure)


def test_attempts_hold_where_the_budget_is_shorter(server, monkeypatch):
    monkeypatch.setenv(transient.RETRY_SECONDS, "0.001")
    server.script(error(500), error(500), error(500))
    assert collect(teacher(server, max_attempts=4), users(1))[1] is None


@pytest.mark.parametrize("bad", [Reply(200, b"not json"), error(401), error(400)], ids=["no completion", "401", "400"])
def test_the_budget_is_not_for_what_asking_again_cannot_help(server, bad, caplog):
    server.behave = lambda number, call: bad
    assert collect(teacher(server, max_attempts=2), users(1))[1] is not None
    assert len(server.calls) <= 2 and retries(caplog) == []


def test_requests_for_money_still_have_their_own_budget(server):
    server.behave = lambda number, call: error(500)
    _, failure = collect(teacher(server, max_requests=5), users(1))
    assert "budget of 5 requests" in str(failure)
    assert len(server.calls) == 5


def test_without_a_budget_attempts_are_the_rule_and_nothing_is_logged(server, monkeypatch, caplog):
    monkeypatch.delenv(transient.RETRY_SECONDS)
    server.behave = lambda number, call: error(503)
    _, failure = collect(teacher(server, max_attempts=2), users(1))
    assert "(attempt 2)" in str(failure) and "tried for" not in str(failure)
    assert len(server.calls) == 2 and retries(caplog) == []


def test_neither_key_nor_text_nor_the_servers_words_are_logged(server, caplog):
    server.script(error(500, f"{KEY} about user 0"), Reply(gone=True))
    with caplog.at_level(logging.INFO):
        collect(teacher(server), users(1))
    lines = retries(caplog)
    assert "the teacher at" in lines[0] and "cannot get an answer: status 500; next try in" in lines[0]
    assert KEY not in caplog.text and "user 0" not in "".join(lines)


def test_a_budget_that_is_no_number_is_named_before_anything_is_asked(server, monkeypatch):
    monkeypatch.setenv(transient.RETRY_SECONDS, "a while")
    with pytest.raises(ConfigError, match=transient.RETRY_SECONDS):
        teacher(server)
    assert server.calls == []
