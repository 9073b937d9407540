"""A real HTTP server on 127.0.0.1 that plays an OpenAI-compatible endpoint, and a bad one when told to."""

from __future__ import annotations

import json
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

GOOD_TEXT = "<rationale>rose pruning</rationale><gender>female<level>4</level></gender>"


@dataclass(frozen=True)
class Reply:
    """What the server sends; `cut` closes the connection in the middle of the body, `gone` before the first word."""

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    cut: bool = False
    gone: bool = False
    wait_for: threading.Event | None = None


def completion(text: str | None = GOOD_TEXT, reason: str = "stop", **reply: Any) -> Reply:
    """A chat completion with one choice."""
    choice = {"index": 0, "finish_reason": reason, "message": {"role": "assistant", "content": text}}
    return Reply(body=json.dumps({"object": "chat.completion", "choices": [choice]}).encode(), **reply)


def error(status: int, message: str = "no", **headers: str) -> Reply:
    """An error in OpenAI's form; header names use underscores."""
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return Reply(status, json.dumps({"error": {"message": message}}).encode(), names)


@dataclass
class Call:
    """One request that the server received."""

    path: str
    headers: dict[str, str]
    body: dict[str, Any]
    at: float
    connection: int = 0

    @property
    def user_text(self) -> str:
        return str(self.body["messages"][-1]["content"])


class TeacherServer:
    """Answers request number n (from 0) with `behave(n, call)` and remembers every call."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.behave: Callable[[int, Call], Reply] = lambda number, call: completion()
        self.models: Callable[[int], list[str]] = lambda connection: []
        self.connections = 0
        self.running = 0
        self.most_running = 0
        self.lock = threading.Lock()
        self.url = ""

    def script(self, *replies: Reply) -> None:
        """These replies in order, good ones after them."""
        self.behave = lambda number, call: replies[number] if number < len(replies) else completion()

    def receive(self, call: Call) -> Reply:
        with self.lock:
            number = len(self.calls)
            self.calls.append(call)
        return self.behave(number, call)

    def connect(self) -> int:
        """A number for a new connection, from 0."""
        with self.lock:
            self.connections += 1
            return self.connections - 1

    def enter(self, change: int) -> None:
        with self.lock:
            self.running += change
            self.most_running = max(self.most_running, self.running)


@contextmanager
def serve(certificate: Path | None = None) -> Iterator[TeacherServer]:
    """Starts a server on a free port and stops it at the end of the block; with a certificate it speaks TLS."""
    server = TeacherServer()
    http = _Server(("127.0.0.1", 0), _handler(server))
    if certificate:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        # The handshake is the handler's, in its own thread.
        http.socket = context.wrap_socket(http.socket, server_side=True, do_handshake_on_connect=False)
    server.url = f"{'https' if certificate else 'http'}://127.0.0.1:{http.server_address[1]}/v1"
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        http.shutdown()
        http.server_close()
        thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that hang up or are killed are part of the tests."""


def _handler(server: TeacherServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def setup(self) -> None:
            super().setup()
            self.number = server.connect()

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            server.enter(+1)
            try:
                reply = server.receive(Call(self.path, dict(self.headers), body, time.monotonic(), self.number))
                if reply.wait_for:
                    reply.wait_for.wait(60)
                self._send(reply)
            finally:
                server.enter(-1)

        def do_GET(self) -> None:
            """/health and /v1/models of a predictor."""
            data = [{"id": name} for name in server.models(self.number)]
            self._send(Reply(body=json.dumps({"data": data}).encode()))

        def _send(self, reply: Reply) -> None:
            if reply.gone:
                self.close_connection = True
                return
            self.send_response(reply.status)
            self.send_header("Content-Length", str(len(reply.body)))
            for name, value in {"Content-Type": "application/json", **reply.headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(reply.body[: len(reply.body) // 2] if reply.cut else reply.body)
            self.close_connection = reply.cut or self.close_connection

        def log_message(self, format: str, *arguments: Any) -> None:
            pass

    return Handler
