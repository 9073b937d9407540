"""A real HTTP proxy on 127.0.0.1: forwards plain requests, tunnels TLS, and asks for a password where it has one."""

from __future__ import annotations

import base64
import http.client
import selectors
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit


@dataclass
class ForwardProxy:
    """`seen` are the targets that came through, `password` is NAME:PASSWORD or empty."""

    password: str = ""
    url: str = ""
    seen: list[str] = field(default_factory=list)

    @property
    def address(self) -> str:
        return self.url.removeprefix("http://")

    def admits(self, given: str | None) -> bool:
        expected = base64.b64encode(self.password.encode()).decode()
        return not self.password or given == f"Basic {expected}"


@contextmanager
def forwarding(password: str = "") -> Iterator[ForwardProxy]:
    """A running proxy."""
    proxy = ForwardProxy(password)
    server = _Server(("127.0.0.1", 0), _handler(proxy))
    proxy.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that hang up are part of the tests."""


def _handler(proxy: ForwardProxy) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_CONNECT(self) -> None:
            self.close_connection = True
            if not self.admitted():
                return
            host, _, port = self.path.partition(":")
            with socket.create_connection((host, int(port))) as target:
                self.send_response(200)
                self.end_headers()
                tunnel(self.connection, target)

        def do_POST(self) -> None:
            self.close_connection = True
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            if not self.admitted():
                return
            target = urlsplit(self.path)
            connection = http.client.HTTPConnection(target.netloc, timeout=60)
            headers = {name: value for name, value in self.headers.items() if not name.lower().startswith("proxy-")}
            connection.request("POST", f"{target.path}?{target.query}".rstrip("?"), body, headers)
            answer = connection.getresponse()
            text = answer.read()
            connection.close()
            self.send_response(answer.status)
            self.send_header("Content-Type", answer.getheader("Content-Type", ""))
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def admitted(self) -> bool:
            proxy.seen.append(self.path)
            if proxy.admits(self.headers.get("Proxy-Authorization")):
                return True
            self.send_response(407)
            self.send_header("Proxy-Authenticate", "Basic")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return False

        def log_message(self, *_: object) -> None:
            """Nothing of it on the screen."""

    return Handler


def tunnel(first: socket.socket, second: socket.socket) -> None:
    """Copies bytes both ways until one side has no more."""
    with selectors.DefaultSelector() as selector:
        selector.register(first, selectors.EVENT_READ, second)
        selector.register(second, selectors.EVENT_READ, first)
        while True:
            for key, _ in selector.select(60):
                source = key.fileobj
                assert isinstance(source, socket.socket)
                data = source.recv(65536)
                if not data:
                    return
                key.data.sendall(data)
