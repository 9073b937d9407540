"""A real HTTP server on 127.0.0.1 that answers the few calls of KFP's API v2beta1 that `kfp.Client` makes here.

It stands in for a backend, which needs a cluster and images that cannot be had everywhere. It keeps what it is given
and lets a test say how a run goes; it executes nothing.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

Body = dict[str, Any]
ROOT = "/apis/v2beta1"
START, END = "2026-06-01T10:00:00Z", "2026-06-01T10:00:07Z"


def node(name: str, state: str, error: str = "", children: tuple[str, ...] = (), key: str = "") -> Body:
    """One of a run's nodes as the backend lists it; `key` names it for its parent."""
    found: Body = {
        "task_id": key or name, "display_name": name, "state": state, "start_time": START, "end_time": END,
        "child_tasks": [{"pod_name": child} for child in children], "pod_name": key or name,
    }  # fmt: skip
    return found | ({"error": {"code": 2, "message": error}} if error else {})


def run(state: str, *nodes: Body) -> Body:
    """What a look at a run gives."""
    return {"run_id": "run-1", "display_name": "a run", "state": state, "run_details": {"task_details": list(nodes)}}


@dataclass
class KfpServer:
    """What was asked and kept. `looks` are the answers to looks at the run, the last one for ever; None hangs up."""

    url: str = ""
    multi_user: bool = False
    refuse: int = 0
    health: bytes | None = None
    looks: list[Body | None] = field(default_factory=lambda: [run("SUCCEEDED")])
    calls: list[tuple[str, str]] = field(default_factory=list)
    tokens: set[str | None] = field(default_factory=set)
    kept: dict[str, list[Body]] = field(default_factory=lambda: {name: [] for name in KINDS})
    packages: dict[str, str] = field(default_factory=dict)

    def answer(self, method: str, path: str, query: dict[str, str], body: bytes) -> tuple[int, Body | None]:
        self.calls.append((method, path))
        if self.refuse:
            return self.refuse, {"code": 16, "message": "the token is not valid"}
        if path == "/healthz":
            return 200, {"multi_user": self.multi_user}
        if path == "/pipelines/upload_version":
            return 200, self._upload(query, body.decode(errors="replace"))
        if method == "GET" and path.startswith("/runs/"):
            return 200, self.looks.pop(0) if len(self.looks) > 1 else self.looks[0]
        return self._kept(method, path, query, body)

    def _upload(self, query: dict[str, str], package: str) -> Body:
        version = self._keep("pipeline_versions", {"pipeline_id": query["pipelineid"], "display_name": query["name"]})
        # One part of a multipart form: headers, an empty line, the file, the boundary.
        self.packages[query["name"]] = package.split("\r\n\r\n", 1)[1].rsplit("\r\n--", 1)[0]
        return version

    def _kept(self, method: str, path: str, query: dict[str, str], body: bytes) -> tuple[int, Body]:
        kind = "pipeline_versions" if re.fullmatch(r"/pipelines/[^/]+/versions", path) else _KIND_OF[path.split("/")[1]]
        if method == "POST":
            return 200, self._keep(kind, json.loads(body))
        if method == "DELETE":
            self.kept[kind] = [each for each in self.kept[kind] if not path.endswith(f"/{each[KINDS[kind]]}")]
            return 200, {}
        wanted = [p["stringValue"] for p in json.loads(query.get("filter", "{}")).get("predicates", ())]
        return 200, {kind: [each for each in self.kept[kind] if not wanted or each["display_name"] in wanted]}

    def _keep(self, kind: str, body: Body) -> Body:
        number = sum(call[0] == "POST" for call in self.calls)
        made = {**body, KINDS[kind]: f"{kind}-{number}"}
        self.kept[kind].append(made)
        return made


KINDS = {
    "pipelines": "pipeline_id",
    "pipeline_versions": "pipeline_version_id",
    "experiments": "experiment_id",
    "runs": "run_id",
    "recurringRuns": "recurring_run_id",
}
_KIND_OF = {"pipelines": "pipelines", "experiments": "experiments", "runs": "runs", "recurringruns": "recurringRuns"}


@contextmanager
def serve() -> Iterator[KfpServer]:
    """Starts a server on a free port and stops it at the end of the block."""
    server = KfpServer()
    http = ThreadingHTTPServer(("127.0.0.1", 0), _handler(server))
    server.url = f"http://127.0.0.1:{http.server_address[1]}"
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        http.shutdown()
        http.server_close()
        thread.join()


def _handler(server: KfpServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _any(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            parts = urlsplit(self.path)
            query = {name: values[-1] for name, values in parse_qs(parts.query).items()}
            server.tokens.add(self.headers.get("Authorization"))
            path = parts.path.removeprefix(ROOT)
            if path == "/healthz" and server.health is not None:
                self._send(200, server.health, "text/html")
                return
            status, answer = server.answer(self.command, path, query, body)
            if answer is None:
                self.close_connection = True
                return
            self._send(status, json.dumps(answer).encode(), "application/json")

        do_GET = do_POST = do_DELETE = _any

        def _send(self, status: int, body: bytes, kind: str) -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *arguments: Any) -> None:
            pass

    return Handler
