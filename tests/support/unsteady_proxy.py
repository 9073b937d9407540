"""A proxy on 127.0.0.1 in front of a real HTTP server, which refuses, fails, loses or cuts answers when told to.

It forwards one request a connection, so that closing the door ends what is under way.
"""

from __future__ import annotations

import http.client
import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import cycle
from typing import Any
from urllib.parse import urlsplit

PASS, BUSY, UNREACHED, LOST, CUT = "pass", "503", "not forwarded", "forwarded, no reply", "half of the body"
BUSY_BODY = b"<?xml version='1.0'?><Error><Code>SlowDown</Code><Message>Reduce your request rate</Message></Error>"


class UnsteadyProxy:
    """`behave(method, path)` says what becomes of a request; `seen` are those that came, with what became of them."""

    def __init__(self, upstream: str) -> None:
        self.upstream = upstream
        self.behave: Callable[[str, str], str] = lambda method, path: PASS
        self.seen: list[tuple[str, str, str]] = []
        self._server: ThreadingHTTPServer | None = None
        self._port = 0
        self.open()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def open(self) -> None:
        """Listens, on the same port each time."""
        if self._server is None:
            self._server = _Server(("127.0.0.1", self._port), _handler(self))
            self._port = self._server.server_address[1]
            threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def shut(self) -> None:
        """Refuses connections."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def fail(self, *outcomes: str, method: str = "") -> None:
        """These become of the next requests (of a method), the later ones pass."""
        left = list(outcomes)
        self.behave = lambda given, path: left.pop(0) if left and given.startswith(method) else PASS

    def repeat(self, *outcomes: str) -> None:
        """These become of the next requests, again and again."""
        endless, lock = cycle(outcomes), threading.Lock()

        def behave(method: str, path: str) -> str:
            with lock:
                return next(endless)

        self.behave = behave


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Connections that break are what this is for."""


def _handler(proxy: UnsteadyProxy) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def forward(self) -> None:
            self.close_connection = True
            outcome = proxy.behave(self.command, self.path)
            proxy.seen.append((self.command, self.path, outcome))
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            if outcome == BUSY:
                return self.reply(503, {}, BUSY_BODY)
            if outcome == UNREACHED:
                return None
            status, headers, answer = self.ask(body)
            if outcome == LOST:
                return None
            return self.reply(status, headers, answer, cut=outcome == CUT)

        do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = do_PATCH = forward

        def ask(self, body: bytes) -> tuple[int, dict[str, str], bytes]:
            connection = http.client.HTTPConnection(urlsplit(proxy.upstream).netloc, timeout=60)
            try:
                connection.request(self.command, self.path, body, dict(self.headers))
                answer = connection.getresponse()
                return answer.status, dict(answer.getheaders()), answer.read()
            finally:
                connection.close()

        def reply(self, status: int, headers: dict[str, str], body: bytes, cut: bool = False) -> None:
            self.send_response_only(status)
            length = headers.get("Content-Length") if self.command == "HEAD" else str(len(body))
            kept = {"Content-Length": length or "0", "Connection": "close"}
            skipped = {"content-length", "connection", "transfer-encoding"}
            for name, value in {**{k: v for k, v in headers.items() if k.lower() not in skipped}, **kept}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body[: len(body) // 2] if cut else body)

        def log_message(self, format: str, *arguments: Any) -> None:
            """Not into the tests' output."""

    return Handler


class AtRetry(logging.Handler):
    """Does something once, when the n-th retry is logged: then the outage was met, and may end."""

    def __init__(self, number: int, action: Callable[[], object]) -> None:
        super().__init__()
        self.left, self.action = number, action

    def emit(self, record: logging.LogRecord) -> None:
        if "next try" in record.getMessage():
            self.left -= 1
            if self.left == 0:
                self.action()


@contextmanager
def at_retry(number: int, action: Callable[[], object]) -> Iterator[None]:
    """`action` is done at the n-th retry that is logged in the block; AssertionError where there are fewer."""
    handler = AtRetry(number, action)
    logger = logging.getLogger("conf_profile.transient")
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
    assert handler.left <= 0, "nothing was tried again"
