"""How the teacher reaches an endpoint: certificates, proxies of the environment, servers of another protocol."""

import asyncio
import shutil
import socket
import subprocess
import threading
from contextlib import contextmanager, suppress

import pytest

from conf_profile import transient
from conf_profile.config import TeacherConfig
from conf_profile.errors import TeacherError
from conf_profile.teachers import openai
from conf_profile.teachers.endpoint import http
from conf_profile.teachers.protocol import Completion, Request
from support.forward_proxy import forwarding
from support.stand_in import self_signed
from support.teacher_server import GOOD_TEXT, Reply, completion, serve

ANSWER = Completion("u0", 0, GOOD_TEXT)


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch):
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    for name in (*http.CA_FILES, http.CA_FOLDER, transient.RETRY_SECONDS, "OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(openai, "LONGEST_BACKOFF", 0.01)


@pytest.fixture
def server():
    with serve() as running:
        yield running


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    return self_signed(tmp_path_factory.mktemp("tls") / "server.pem")


@pytest.fixture
def secure(certificate):
    with serve(certificate) as running:
        yield running


def ask(url, **values):
    """The one answer of the teacher at `url`, or the text of its error."""
    given = {"kind": "openai", "model": "m", "base_url": url, "samples": 1, "shards": 1, "timeout_seconds": 20.0}
    request = Request("u0", ({"role": "user", "content": "user 0"},), (0,))

    async def run():
        teacher = openai.OpenAITeacher(TeacherConfig(**{**given, **values}))
        return [answer async for answer in teacher.complete([request])]

    try:
        (answer,) = asyncio.run(run())
    except TeacherError as failure:
        return str(failure)
    return answer


@pytest.mark.parametrize("variable", ["SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"])
def test_ones_own_authority_is_trusted_where_the_environment_names_it(secure, certificate, monkeypatch, variable):
    monkeypatch.setenv(variable, str(certificate))
    assert ask(secure.url) == ANSWER


@pytest.mark.parametrize("variable", ["SSL_CERT_DIR", "REQUESTS_CA_BUNDLE"])
def test_a_folder_of_authorities(secure, certificate, monkeypatch, tmp_path, variable):
    # OpenSSL finds a certificate in a folder by a hash of its subject, which only openssl computes.
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("openssl is not installed")
    name = subprocess.run([openssl, "x509", "-hash", "-noout", "-in", certificate], capture_output=True, check=True)
    shutil.copy(certificate, tmp_path / f"{name.stdout.decode().strip()}.0")
    monkeypatch.setenv(variable, str(tmp_path))
    assert ask(secure.url) == ANSWER


def test_a_certificate_of_nobody_ends_the_step_at_once(secure, monkeypatch):
    monkeypatch.setenv(transient.RETRY_SECONDS, "600")
    told = ask(secure.url)
    assert "the certificate is not accepted: self-signed certificate" in told
    assert "SSL_CERT_FILE" in told and secure.url in told
    assert secure.connections <= 1 and secure.calls == []


def test_a_certificate_of_another_host_ends_the_step_at_once(secure, certificate, monkeypatch):
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    told = ask(secure.url.replace("127.0.0.1", "localhost"))
    assert "the certificate is not accepted: " in told and "localhost" in told and "correct the host" in told
    assert secure.calls == []


@pytest.mark.parametrize("text", [None, "no certificate"], ids=["absent", "no PEM"])
def test_a_file_without_certificates_is_named(monkeypatch, tmp_path, text):
    path = tmp_path / "ca.pem"
    if text:
        path.write_text(text)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(path))
    told = ask("https://127.0.0.1:1/v1")
    assert f"REQUESTS_CA_BUNDLE names {path}, which holds no certificates" in told and "PEM" in told


@pytest.mark.parametrize("variable", ["HTTP_PROXY", "http_proxy", "ALL_PROXY"])
def test_the_proxy_of_the_environment_is_used(server, monkeypatch, variable):
    with forwarding() as proxy:
        monkeypatch.setenv(variable, proxy.url)
        assert ask(server.url) == ANSWER
    assert proxy.seen == [f"{server.url}/chat/completions"]


@pytest.mark.parametrize("hosts", ["127.0.0.1", "example.com, 127.0.0.1", "*", "127.0.0.1:{port}"])
def test_no_proxy_names_hosts_that_are_asked_directly(server, monkeypatch, hosts):
    with forwarding() as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        monkeypatch.setenv("NO_PROXY", hosts.format(port=server.url.rpartition(":")[2].removesuffix("/v1")))
        assert ask(server.url) == ANSWER
    assert proxy.seen == []


def test_tls_goes_through_the_proxy_in_a_tunnel(secure, certificate, monkeypatch):
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    with forwarding("me:p@ss") as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.url.replace("//", "//me:p%40ss@"))
        assert ask(secure.url) == ANSWER
    assert proxy.seen == [secure.url.removeprefix("https://").removesuffix("/v1")]


def test_name_and_password_of_the_proxy_are_sent_to_it(server, monkeypatch):
    with forwarding("me:secret") as proxy:
        # Without a scheme, as curl takes it.
        monkeypatch.setenv("HTTP_PROXY", f"me:secret@{proxy.address}")
        assert ask(server.url) == ANSWER
    assert [call.headers.get("Proxy-Authorization") for call in server.calls] == [None]


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_proxy_that_wants_a_password_is_named(request, monkeypatch, certificate, scheme):
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    target = request.getfixturevalue("server" if scheme == "http" else "secure")
    with forwarding("me:secret") as proxy:
        monkeypatch.setenv(f"{scheme}_proxy", proxy.url.replace("//", "//me:wrong-word@"))
        told = ask(target.url)
    assert f"{proxy.url}: the proxy wants a name and a password (407)" in told and "NO_PROXY" in told
    assert "wrong-word" not in told and len(proxy.seen) == 1


@pytest.mark.parametrize("value", ["socks5://127.0.0.1:1080", "http://", "http://[::1"])
def test_a_proxy_of_no_use_is_named(server, monkeypatch, value):
    monkeypatch.setenv("ALL_PROXY", value)
    told = ask(server.url)
    assert "ALL_PROXY" in told and "http://HOST:PORT" in told


def test_a_proxy_that_is_away_is_named(server, monkeypatch):
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        port = nobody.getsockname()[1]
        monkeypatch.setenv("HTTP_PROXY", f"http://me:secret@127.0.0.1:{port}")
        told = ask(server.url)
    assert "cannot be reached" in told and f"127.0.0.1:{port}" in told and "Check HTTP_PROXY" in told
    assert "secret" not in told


@contextmanager
def speaking(*words):
    """A server that sends these bytes to whoever comes, then hangs up."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def speak():
            with suppress(OSError):
                while True:
                    connection, _ = listener.accept()
                    with connection:
                        connection.recv(65536)
                        for word in words:
                            connection.sendall(word)

        threading.Thread(target=speak, daemon=True).start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/v1"


def test_a_server_of_another_protocol_is_told_within_few_attempts():
    with speaking(b"SSH-2.0-OpenSSH_9.2\r\n") as url:
        told = ask(url)
    assert "speaks no HTTP" in told and "Check host and port of teacher.base_url" in told and "(attempt 3)" in told


def test_tls_to_a_port_without_it_is_told(server):
    told = ask(server.url.replace("http:", "https:"))
    assert "cannot be reached" in told and "speaks no TLS there: write http://" in told


def test_an_answer_that_is_too_slow_names_the_key(monkeypatch):
    released = threading.Event()
    with serve() as server:
        server.script(completion(wait_for=released))
        told = ask(server.url, timeout_seconds=0.3, max_attempts=1)
        released.set()
    assert "no whole answer within 0.3 s (teacher.timeout_seconds)" in told
    assert "Raise teacher.timeout_seconds" in told


def test_an_answer_that_is_far_longer_than_its_tokens_does_not_fill_the_memory(server, monkeypatch):
    monkeypatch.setattr(http, "BODY_BYTES", 100_000)
    server.script(Reply(200, b" " * 1_000_000))
    assert ask(server.url, max_tokens=16) == ANSWER
    assert len(server.calls) == 2
    server.behave = lambda number, call: Reply(200, b" " * 1_000_000)
    told = ask(server.url, max_attempts=2, max_tokens=16)
    assert "does not answer properly" in told and "more than teacher.max_tokens allows by far" in told


def test_a_body_that_is_nested_without_end_is_no_completion(server):
    server.behave = lambda number, call: Reply(200, b'{"choices":' + b"[" * 100_000 + b"]" * 100_000 + b"}")
    assert "the body is not a chat completion" in ask(server.url, max_attempts=2)
    server.behave = lambda number, call: Reply(400, b"[" * 100_000 + b"]" * 100_000)
    assert "the teacher answers 400" in ask(server.url)


def test_a_stream_that_stays_open_after_its_last_event_is_read():
    event = b'data: {"choices": [{"index": 0, "delta": {"content": "text"}, "finish_reason": "stop"}]}\n\n'
    opened = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer():
            connection, _ = listener.accept()
            with connection:
                connection.recv(65536)
                head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: keep-alive\r\n\r\n"
                connection.sendall(head + event + b"data: [DO")
                connection.sendall(b"NE]\n\n")
                opened.wait(60)

        thread = threading.Thread(target=answer)
        thread.start()
        try:
            assert ask(f"http://127.0.0.1:{listener.getsockname()[1]}/v1") == Completion("u0", 0, "text")
        finally:
            opened.set()
            thread.join()
