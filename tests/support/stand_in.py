"""A real HTTP server on 127.0.0.1 whose answers a test gives: for services that cannot run here, or not go wrong."""

from __future__ import annotations

import datetime
import ipaddress
import json
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import yaml


@dataclass(frozen=True)
class Answer:
    status: int
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)


@contextmanager
def answering(answer: Callable[[str], Answer], certificate: Path | None = None) -> Iterator[str]:
    """The address of a server that answers GET and HEAD of a path; with a certificate (key and chain) it speaks TLS."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            found = answer(self.path)
            self.send_response(found.status)
            for name, value in found.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(found.body)))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(found.body)

        do_HEAD = do_GET

        def log_message(self, *_: object) -> None:
            """Nothing of it on the screen."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    if certificate:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"{'https' if certificate else 'http'}://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def self_signed(path: Path) -> Path:
    """A certificate of 127.0.0.1 that nobody has signed, with its key, in one file."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.datetime.now(datetime.UTC)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path.write_bytes(private + made.public_bytes(serialization.Encoding.PEM))
    return path


@dataclass
class KubeApi:
    """Kubernetes' API as far as it is read: path -> object. `refusals` are statuses, by path or, at "", for all."""

    objects: dict[str, Any] = field(default_factory=dict)
    refusals: dict[str, int] = field(default_factory=dict)

    def answer(self, path: str) -> Answer:
        where = path.partition("?")[0]
        status = self.refusals.get(where) or self.refusals.get("") or (200 if where in self.objects else 404)
        body = self.objects[where] if status == 200 else {"kind": "Status", "code": status, "message": "no"}
        return Answer(status, json.dumps(body).encode(), {"Content-Type": "application/json"})


def write_kubeconfig(path: Path, server: str) -> Path:
    named = {"name": "stand-in"}
    context = {"cluster": "stand-in", "user": "stand-in"}
    path.write_text(
        yaml.safe_dump(
            {
                "clusters": [{**named, "cluster": {"server": server}}],
                "users": [{**named, "user": {"token": "token"}}],
                "contexts": [{**named, "context": context}],
                "current-context": "stand-in",
            }
        )
    )
    return path
