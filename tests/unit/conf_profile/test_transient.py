"""How long a server that is away is asked again: pauses, budget and log, on a clock that only sleeping moves."""

import asyncio
import logging
import socket
import ssl
import threading
from contextlib import contextmanager, suppress

import pytest
from botocore.exceptions import (
    ClientError,
    ConnectionClosedError,
    EndpointConnectionError,
    IncompleteReadError,
    NoCredentialsError,
    ReadTimeoutError,
    SSLError,
)
from yarl import URL

from conf_profile import transient
from conf_profile.errors import ConfigError, RegistryConflictError, RegistryError, TeacherError
from conf_profile.storage import object_errors, object_store
from conf_profile.teachers.endpoint.http import EndpointHTTP, NotConnectedError
from conf_profile.transient import Outage, retry_seconds
from support.stand_in import answering, self_signed


class Clock:
    """`sleep` moves it, and so does a try that `takes` some seconds."""

    def __init__(self):
        self.now, self.slept = 1000.0, []

    def sleep(self, seconds):
        self.slept.append(seconds)
        self.now += seconds


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def outage(clock):
    """A budget of 100 seconds, pauses without jitter."""
    return make(clock)


def make(clock, seconds=100.0, jitter=lambda low, high: high):
    return Outage("the store", seconds, lambda: clock.now, clock.sleep, jitter)


def failing(times, clock=None, takes=0.0, error=RegistryError):
    """Fails so often, then gives "done"."""
    left = [times]

    def once():
        if clock is not None:
            clock.now += takes
        left[0] -= 1
        if left[0] >= 0:
            raise error("away")
        return "done"

    return once


def passing(error):
    return "503 SlowDown"


def lasting(error):
    return ""


@pytest.mark.parametrize(("given", "seconds"), [("", 0.0), ("0", 0.0), (" 900 ", 900.0), ("0.5", 0.5)])
def test_the_budget_of_the_environment(monkeypatch, given, seconds):
    monkeypatch.setenv("CONF_PROFILE_RETRY_SECONDS", given)
    assert retry_seconds() == seconds


def test_no_budget_where_the_variable_is_absent(monkeypatch):
    monkeypatch.delenv("CONF_PROFILE_RETRY_SECONDS", raising=False)
    assert retry_seconds() == 0.0


@pytest.mark.parametrize("given", ["15m", "-1", "nan", "inf", "1e999"])
def test_a_budget_that_is_no_number_of_seconds_is_named(monkeypatch, given):
    monkeypatch.setenv("CONF_PROFILE_RETRY_SECONDS", given)
    with pytest.raises(ConfigError, match=f"CONF_PROFILE_RETRY_SECONDS is '{given}'"):
        retry_seconds()


def test_pauses_double_up_to_the_longest(clock, outage):
    assert outage.call("read x", failing(7), passing) == "done"
    assert clock.slept == [1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0]


def test_the_shortest_pause_is_half_of_the_longest(clock):
    make(clock, jitter=lambda low, high: low).call("read x", failing(3), passing)
    assert clock.slept == [0.5, 1.0, 2.0]


def test_pauses_are_drawn_anew(clock):
    make(clock, seconds=1e9, jitter=transient.random.uniform).call("read x", failing(50), passing)
    assert len(set(clock.slept)) == 50
    assert all(15.0 <= pause <= 30.0 for pause in clock.slept[6:])


def test_the_last_try_comes_when_the_budget_ends(clock, outage):
    with pytest.raises(RegistryError, match=r"^away; tried for 100 s \(CONF_PROFILE_RETRY_SECONDS=100\)$"):
        outage.call("read x", failing(99), passing)
    assert clock.slept == [1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0, 9.0]


def test_tries_that_take_long_use_up_the_budget(clock, outage):
    with pytest.raises(RegistryError, match="tried for 123 s"):
        outage.call("read x", failing(99, clock, takes=60.0), passing)
    assert clock.slept == [1.0, 2.0]


def test_a_long_read_that_breaks_at_its_end_is_tried_again(clock, outage):
    assert outage.call("read x", failing(1, clock, takes=5000.0), passing) == "done"


def test_the_type_and_the_cause_of_the_error_stay(outage):
    cause = ConnectionError("refused")

    def once():
        raise RegistryConflictError("away") from cause

    with pytest.raises(RegistryConflictError) as caught:
        outage.call("read x", once, passing)
    assert caught.value.__cause__ is cause


def test_what_does_not_pass_is_not_tried_again(clock, outage):
    with pytest.raises(RegistryError, match=r"^away$"):
        outage.call("read x", failing(1), lasting)
    assert clock.slept == []


def test_without_a_budget_nothing_is_tried_again(clock, caplog):
    with pytest.raises(RegistryError, match=r"^away$"):
        make(clock, seconds=0.0).call("read x", failing(1), passing)
    assert (clock.slept, caplog.records) == ([], [])


def test_an_answer_begins_the_budget_anew(clock, outage):
    for _ in range(5):
        assert outage.call("read x", failing(6), passing) == "done"
    assert clock.now == 1000.0 + 5 * 61.0


def test_a_refusal_is_an_answer_too(clock, outage):
    outage.next_pause("read x", "503", clock.now, clock.now, 1)
    clock.now += 50.0
    with pytest.raises(RegistryError):
        outage.call("read y", failing(1), lasting)
    with pytest.raises(RegistryError, match="tried for 100 s"):
        outage.call("read z", failing(99), passing)


def test_all_who_wait_for_a_server_share_the_budget(clock, outage):
    with pytest.raises(RegistryError, match="tried for 100 s"):
        outage.call("read x", failing(99), passing)
    clock.now += 10.0
    with pytest.raises(RegistryError, match="tried for 110 s"):
        outage.call("write y", failing(99), passing)
    assert len(clock.slept) == 8


def test_an_outage_of_which_nothing_was_seen_for_a_while_is_another_one(clock, outage):
    with pytest.raises(RegistryError):
        outage.call("read x", failing(99), passing)
    clock.now += 61.0
    assert outage.call("write y", failing(3), passing) == "done"


def test_an_operation_that_fails_while_others_are_answered_ends_too(clock, outage):
    def once():
        outage.end()
        raise RegistryError("away")

    with pytest.raises(RegistryError, match="tried for 100 s"):
        outage.call("read x", once, passing)


def test_each_try_again_is_a_line(clock, outage, caplog):
    outage.call("read x", failing(2), passing)
    assert [(record.levelno, record.getMessage()) for record in caplog.records] == [
        (logging.WARNING, "the store: cannot read x: 503 SlowDown; next try in 1.0 s, 100 s of 100 s left"),
        (logging.WARNING, "the store: cannot read x: 503 SlowDown; next try in 2.0 s, 99 s of 100 s left"),
        (logging.WARNING, "the store: answers again after 3 s"),
    ]


def test_those_who_fail_together_make_one_line_a_pause(clock, outage, caplog):
    for _ in range(32):
        assert outage.next_pause("get an answer", "ConnectError", clock.now, 1000.0, 1) == 1.0
    clock.now += 1.0
    for _ in range(32):
        assert outage.next_pause("get an answer", "ConnectError", clock.now, 1000.0, 2) == 2.0
    assert len(caplog.records) == 2


def answer(status, name, **metadata):
    response = {"Error": {"Code": name}, "ResponseMetadata": {"HTTPStatusCode": status, **metadata}}
    return ClientError(response, "PutObject")


def tls_error(kind):
    """What botocore makes of an error of the TLS library, whose text says nothing here."""
    error = SSLError(endpoint_url="x", error="EOF? CERTIFICATE_VERIFY_FAILED?")
    error.__context__ = OSError("urllib3's own")
    error.__context__.__context__ = kind("x")
    return error


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (EndpointConnectionError(endpoint_url="http://x"), "EndpointConnectionError"),
        (ConnectionClosedError(endpoint_url="http://x"), "ConnectionClosedError"),
        (ReadTimeoutError(endpoint_url="http://x"), "ReadTimeoutError"),
        (IncompleteReadError(actual_bytes=1, expected_bytes=2), "IncompleteReadError"),
        (tls_error(ssl.SSLEOFError), "SSLError"),
        (tls_error(ssl.SSLZeroReturnError), "SSLError"),
        (tls_error(ssl.SSLCertVerificationError), ""),
        (tls_error(ssl.SSLError), ""),
        (NoCredentialsError(), ""),
        (answer(500, "InternalError"), "500 InternalError"),
        (answer(503, "SlowDown"), "503 SlowDown"),
        (answer(503, "503"), "503 503"),
        (answer(400, "RequestTimeout"), "400 RequestTimeout"),
        (answer(429, "TooManyRequests"), "429 TooManyRequests"),
        (answer(501, "NotImplemented"), ""),
        (answer(400, "BadDigest"), ""),
        (answer(403, "AccessDenied"), ""),
        (answer(404, "NoSuchKey"), ""),
        (answer(409, "ConditionalRequestConflict"), ""),
        (answer(412, "PreconditionFailed"), ""),
        (OSError("disk full"), ""),
    ],
)
def test_what_of_an_object_store_passes_by_itself(error, cause):
    assert object_errors.transient_cause(error) == cause
    told = RegistryError("explained")
    told.__cause__ = error
    assert object_errors.transient_cause(told) == cause


def test_a_request_that_the_client_sent_again_by_itself():
    told = RegistryConflictError("explained")
    told.__cause__ = answer(412, "PreconditionFailed", RetryAttempts=0)
    assert not object_errors.was_repeated(told)
    told.__cause__ = answer(412, "PreconditionFailed", RetryAttempts=2)
    assert object_errors.was_repeated(told)


@contextmanager
def cut_handshakes():
    """The address of a server that hangs up in the middle of every TLS handshake."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def hang_up():
            with suppress(OSError):
                while True:
                    connection, _ = server.accept()
                    with connection:
                        connection.recv(16)
                        connection.shutdown(socket.SHUT_RDWR)

        threading.Thread(target=hang_up, daemon=True).start()
        yield f"https://127.0.0.1:{server.getsockname()[1]}"


@contextmanager
def unsigned_certificate(folder):
    with answering(lambda path: pytest.fail("nobody should get so far"), self_signed(folder / "server.pem")) as url:
        yield url


@pytest.mark.parametrize(
    ("server", "store_cause", "teacher_cause"),
    [(lambda folder: cut_handshakes(), "SSLError", "ClientConnectorError"), (unsigned_certificate, "", "")],
    ids=["cut handshake", "unsigned certificate"],
)
def test_a_handshake_that_was_cut_passes_and_a_certificate_that_does_not_hold_stays(
    tmp_path, server, store_cause, teacher_cause
):
    """With the real clients, which tell the two apart in the chain of their errors alone."""
    with server(tmp_path) as url:
        with pytest.raises(SSLError) as refused:
            object_store.s3_client(url, "us-east-1", "a", "b", 1, 5).list_buckets()
        assert object_errors.transient_cause(refused.value) == store_cause
        assert asyncio.run(post_cause(url)) == teacher_cause


async def post_cause(url):
    """What the teacher calls the error in its log; nothing for one that stays."""
    async with EndpointHTTP(URL(url), "", 1, 5, 100) as endpoint:
        try:
            await endpoint.post(b"{}")
        except NotConnectedError as lost:
            return lost.outage
        except TeacherError as refused:
            assert "the certificate is not accepted: self-signed certificate; name the file" in str(refused)
            return ""


def test_the_chain_of_an_error_is_followed_both_ways():
    def raise_chained(last):
        try:
            raise KeyError("deep")
        except KeyError as error:
            if last is None:
                raise ValueError("while handling") from None
            raise last from error

    for last in (RuntimeError("from"), None):
        with pytest.raises((RuntimeError, ValueError)) as raised:
            raise_chained(last)
        assert transient.is_caused_by(raised.value, KeyError)
        assert transient.is_caused_by(raised.value, RuntimeError, ValueError)
        assert not transient.is_caused_by(raised.value, OSError)
    assert not transient.is_caused_by(None, KeyError)
