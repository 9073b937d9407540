"""What a rollout makes of a transformer's answers, over HTTP: what it waits for, and what ends it."""

import json
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from conf_profile.errors import RolloutError
from conf_profile.rollout import rollout, smoke

PROFILE = smoke.SmokeProfile({"watch": ("trail running",)}, {"age": smoke.ExpectedAnswer("25-34", 4)})


def answer(version="v2", tag="25-34"):
    profile = {"age": {"tag": tag, "level": 4, "accepted": True}}
    return 200, {"predictions": [{"user_id": "smoke-0", "model_version": version, "profile": profile}]}


class InTurn(BaseHTTPRequestHandler):
    """Gives `server.answers` one after the other, the last one again and again."""

    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        self.server.asked.append(self.path)
        status, content = self.server.answers.pop(0) if len(self.server.answers) > 1 else self.server.answers[0]
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        """Not into the tests' output."""


@pytest.fixture
def transformer():
    server = ThreadingHTTPServer(("127.0.0.1", 0), InTurn)
    server.asked = []
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def check(transformer, monkeypatch):
    monkeypatch.setattr(rollout, "POLL_SECONDS", 0.01)

    def check(*answers, seconds=60.0):
        monkeypatch.setattr(rollout, "SMOKE_SECONDS", seconds)
        transformer.answers = list(answers)
        serving = rollout.Serving("prod", url=f"http://127.0.0.1:{transformer.server_port}/", model="profiles")
        rollout.check_answers(serving, "v2", [PROFILE])

    return check


def test_the_evaluations_answers(check, transformer):
    check(answer())
    assert transformer.asked == ["/v1/models/profiles:predict"]


def test_pods_that_are_starting_and_the_version_before_are_waited_for(check, transformer):
    check((503, b"no healthy upstream"), (502, b""), (504, b"late"), answer("v1"), answer())
    assert len(transformer.asked) == 5


def test_but_not_for_ever(check):
    with pytest.raises(RolloutError, match="v1 answers, not v2"):
        check(answer("v1"), seconds=0.0)
    with pytest.raises(RolloutError, match="status 503: no healthy upstream"):
        check((503, b"no healthy upstream"), seconds=0.0)


def test_other_answers_end_it_at_once(check, transformer):
    with pytest.raises(RolloutError, match=r"1 of 1 answers are not those of the evaluation \(age 1\)"):
        check(answer(tag="55+"))
    assert len(transformer.asked) == 1


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ((404, b"no such model"), "status 404: no such model"),
        ((200, b"<html>"), "does not answer as a transformer of ours"),
        ((200, {"predictions": [{}]}), "does not answer as a transformer of ours"),
        ((200, []), "does not answer as a transformer of ours"),
    ],
)
def test_what_is_no_transformer_of_ours_ends_it_at_once(check, transformer, given, told):
    with pytest.raises(RolloutError, match=told):
        check(given)
    assert len(transformer.asked) == 1


def test_an_address_where_nobody_answers_is_named(monkeypatch):
    monkeypatch.setattr(rollout, "SMOKE_SECONDS", 0.0)
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{nobody.getsockname()[1]}"
        with pytest.raises(RolloutError, match=rf"{url}: the transformer does not answer .*--url"):
            rollout.check_answers(rollout.Serving("prod", url=url), "v2", [PROFILE])
