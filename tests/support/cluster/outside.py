"""A server of this machine as pods see it: a port on an address that the nodes reach, which can be cut off."""

from __future__ import annotations

import socket
import socketserver
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any
from urllib.parse import urlsplit

_BLOCK = 1 << 16


def address_towards(node: Mapping[str, Any]) -> str:
    """The address of this machine that the node answers to."""
    (inside,) = (each["address"] for each in node["status"]["addresses"] if each["type"] == "InternalIP")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect((inside, 9))  # sends nothing: it only chooses a route
        return str(probe.getsockname()[0])


class Relay:
    """Passes connections on to a server on 127.0.0.1; `cut` ends those there are and refuses further ones."""

    def __init__(self, host: str, target: str) -> None:
        split = urlsplit(target)
        self._target, self._port = (split.hostname or "", split.port or 0), 0
        self._host = host
        self._open: set[socket.socket] = set()
        self._server: socketserver.ThreadingTCPServer | None = None
        self.mend()

    @property
    def url(self) -> str:
        return f"http://{self._host}:{self._port}"

    def mend(self) -> None:
        """Listens, on the same port as before."""
        relay = self

        class Handler(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                relay._pass_on(self.request)

        class Server(socketserver.ThreadingTCPServer):
            allow_reuse_address = True
            daemon_threads = True

        self._server = Server((self._host, self._port), Handler)
        self._port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def cut(self) -> None:
        """Nobody gets through any more."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None
        for connection in list(self._open):
            _end(connection)

    def _pass_on(self, caller: socket.socket) -> None:
        with socket.create_connection(self._target) as server:
            ends = {caller, server}
            self._open |= ends
            back = threading.Thread(target=_copy, args=(server, caller), daemon=True)
            back.start()
            _copy(caller, server)
            back.join()
            self._open -= ends


@contextmanager
def relay(host: str, target: str) -> Iterator[Relay]:
    made = Relay(host, target)
    try:
        yield made
    finally:
        made.cut()


def _copy(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):  # cut, or left by the other side
        while block := source.recv(_BLOCK):
            target.sendall(block)
    _end(target)


def _end(connection: socket.socket) -> None:
    with suppress(OSError):  # over already
        connection.shutdown(socket.SHUT_RDWR)
