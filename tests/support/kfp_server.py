"""A real HTTP server on 127.0.0.1 that answers the calls of KFP's API that are made here, as KFP 2.17 does.

It stands in for a backend, which needs a cluster and images that cannot be had everywhere. It keeps what it is given
and lets a test say how a run goes; it executes nothing. What was seen on a real backend holds here: task details
without messages, no nodes above 1 MiB of node status, states that lag behind the run's, cached steps whose executor is
skipped, and recurring runs that take the run under way with them when they are deleted.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import yaml

Body = dict[str, Any]
ROOT = "/apis/v2beta1"
START, END = "2026-06-01T10:00:00Z", "2026-06-01T10:00:07Z"
NODE_BYTES = 9_655
"""Of node status, as measured: 1.12 MB for 116 nodes."""
SHOWN_BYTES = 1 << 20
PAGE = 2
"""Runs on one page of a list, however many are asked for: a list that is not paged through is found out."""
ENDED = ("SUCCEEDED", "FAILED", "CANCELED", "SKIPPED")
DELETED = object()
"""A look at a run that somebody has deleted."""


def node(name: str, state: str, error: str = "", children: tuple[str, ...] = (), key: str = "") -> Body:
    """One of a run's nodes as the backend lists it; `key` names it for its parent."""
    return {
        "task_id": key or name, "display_name": name, "state": state, "start_time": START,
        "end_time": END if state in ENDED else "0001-01-01T00:00:00Z",
        "child_tasks": [{"pod_name": child} for child in children] or None, "pod_name": key or name,
        "error": {"code": 2, "message": error} if error else None, "executor_detail": None,
    }  # fmt: skip


def step(name: str, state: str, executor: str = "", tries: int = 1) -> list[Body]:
    """A step with the nodes that belong to it: its driver, its executor and, if that was retried, the tries."""
    keys = [f"{name}-try-{number}" for number in range(tries)] if tries > 1 else []
    inner = [node(f"executor({number})", "FAILED", key=key) for number, key in enumerate(keys)]
    if inner:
        inner[-1]["state"] = executor or state
    return [
        node(f"{name}-driver", "SUCCEEDED", children=(f"{name}-node",)),
        node(name, state, children=(f"{name}-pod",), key=f"{name}-node"),
        node("executor", executor or state, children=tuple(keys), key=f"{name}-pod"),
        *inner,
    ]


def cached(name: str) -> list[Body]:
    """A step that was taken from the cache: its executor is skipped."""
    return step(name, "SUCCEEDED", "SKIPPED")


def run(state: str, *nodes: Body) -> Body:
    """What a look at a run gives."""
    shown = list(nodes) if len(nodes) * NODE_BYTES <= SHOWN_BYTES else []
    return {"state": state, "run_details": {"task_details": shown} if shown else None, "error": None}


@dataclass
class KfpServer:
    """What was asked and kept. `looks` are the answers to looks at a run, the last one for ever; None hangs up.

    A run whose `looks` are none is what was kept of it.
    """

    url: str = ""
    multi_user: bool = False
    version: str = "2.17.0"
    refuse: int = 0
    health: bytes | None = None
    looks: list[Any] = field(default_factory=lambda: [run("SUCCEEDED")])
    on_look: Callable[[], None] = lambda: None
    node_logs: dict[str, str] = field(default_factory=dict)
    logs_as_page: bool = False
    calls: list[tuple[str, str]] = field(default_factory=list)
    tokens: set[str | None] = field(default_factory=set)
    kept: dict[str, list[Body]] = field(default_factory=lambda: {name: [] for name in KINDS})
    packages: dict[str, str] = field(default_factory=dict)
    lost: set[str] = field(default_factory=set)

    def trigger(self, recurring_run_id: str) -> str:
        """Begins a run of a recurring run, as its schedule would; its id."""
        (found,) = self._found("recurringRuns", recurring_run_id)
        assert found["status"] == "ENABLED"
        inherited = {key: found.get(key) for key in ("experiment_id", "runtime_config", "display_name")}
        return str(
            self._keep("runs", {**inherited, "recurring_run_id": recurring_run_id, "state": "RUNNING"})["run_id"]
        )

    def start_run(self, name: str, experiment: str = "conf-profile") -> str:
        """Begins a run as somebody else would; its id."""
        found = [each for each in self.kept["experiments"] if each["display_name"] == experiment]
        kept = found[0] if found else self._keep("experiments", {"display_name": experiment})
        begun = self._keep("runs", {"display_name": name, "experiment_id": kept["experiment_id"]})
        return str(begun["run_id"])

    def end_run(self, run_id: str, state: str = "SUCCEEDED") -> None:
        """A run that was kept ends, unless its workflow is gone."""
        if run_id not in self.lost:
            self._found("runs", run_id)[0].update(state=state, finished_at=END)

    def answer(self, method: str, path: str, query: dict[str, str], body: bytes) -> tuple[int, Body | None]:
        self.calls.append((method, path.removeprefix(ROOT)))
        if self.refuse:
            return self.refuse, {"code": 16, "message": "the token is not valid"}
        if path.startswith("/apis/v1beta1/healthz"):
            return 200, {"tag_name": self.version, "multi_user": self.multi_user}
        if self.version.startswith("1.") or not path.startswith(ROOT):
            return 404, {"code": 5, "message": "Not Found"}
        return self._answer(method, path.removeprefix(ROOT), query, body)

    def _answer(self, method: str, path: str, query: dict[str, str], body: bytes) -> tuple[int, Body | None]:
        if path == "/healthz":
            return 200, {"commit_sha": "0", "tag_name": self.version, "multi_user": self.multi_user}
        if path == "/pipelines/upload_version":
            return 200, self._upload(query, body.decode(errors="replace"))
        if match := re.fullmatch(r"/(runs|recurringruns)/([^/:]+)(:\w+)?", path):
            return self._one(method, _KIND_OF[match[1]], match[2], match[3] or "")
        return self._many(method, path, query, body)

    def _upload(self, query: dict[str, str], package: str) -> Body:
        # One part of a multipart form: headers, an empty line, the file, the boundary.
        text = package.split("\r\n\r\n", 1)[1].rsplit("\r\n--", 1)[0]
        self.packages[query["name"]] = text
        pipeline, *platform = yaml.safe_load_all(text)
        spec = {"pipeline_spec": pipeline, "platform_spec": platform[0]} if platform else pipeline
        kept = {"pipeline_id": query["pipelineid"], "display_name": query["name"], "pipeline_spec": spec}
        return self._keep("pipeline_versions", kept)

    def _one(self, method: str, kind: str, key: str, action: str) -> tuple[int, Body | None]:
        found = self._found(kind, key)
        if not found:
            return 404, {"code": 5, "message": f"{kind} {key} not found."}
        if method == "DELETE":
            self._delete(kind, key)
            return 200, {}
        if action in (":enable", ":disable"):
            found[0].update(status=f"{action[1:].upper()}D", mode=action[1:].upper())
        if action == ":terminate" and key not in self.lost and found[0]["state"] not in ENDED:
            found[0]["state"] = "CANCELING"
        if method == "POST":
            return 200, {}
        return self._look(found[0]) if kind == "runs" else (200, found[0])

    def _look(self, kept: Body) -> tuple[int, Body | None]:
        self.on_look()
        if kept["state"] in ("CANCELING", "CANCELED"):
            answer = dict(kept)
            kept["state"] = "CANCELED"
            return 200, answer
        if not self.looks:
            return 200, kept
        look = self.looks.pop(0) if len(self.looks) > 1 else self.looks[0]
        if look is DELETED:
            return 404, {"code": 5, "message": "Run not found."}
        if look is not None:
            kept["state"] = look["state"]
        return 200, None if look is None else {**kept, **look}

    def _delete(self, kind: str, key: str) -> None:
        self.kept[kind] = [each for each in self.kept[kind] if each[KINDS[kind]] != key]
        # The workflow goes with its owner, and nobody is left to tell of its end.
        orphans = [each for each in self.kept["runs"] if each.get("recurring_run_id") == key]
        self.lost |= {each["run_id"] for each in orphans if each["state"] not in ENDED}

    def _many(self, method: str, path: str, query: dict[str, str], body: bytes) -> tuple[int, Body]:
        kind = "pipeline_versions" if re.match(r"/pipelines/[^/]+/versions", path) else _KIND_OF[path.split("/")[1]]
        if method == "POST":
            return 200, self._keep(kind, json.loads(body))
        if match := re.fullmatch(r"/pipelines/[^/]+/versions/([^/]+)", path):
            return 200, self._found(kind, match[1])[0]
        if match := re.fullmatch(r"/experiments/([^/]+)", path):
            return 200, self._found(kind, match[1])[0]
        wanted = [p["stringValue"] for p in json.loads(query.get("filter", "{}")).get("predicates", ())]
        found = [each for each in self.kept[kind] if not wanted or each["display_name"] in wanted]
        if experiment := query.get("experiment_id"):
            found = [each for each in found if each["experiment_id"] == experiment]
        if query.get("sort_by") == "created_at desc":
            found.reverse()
        return 200, _page(kind, found, int(query.get("page_token") or 0))

    def _found(self, kind: str, key: str) -> list[Body]:
        return [each for each in self.kept[kind] if each[KINDS[kind]] == key]

    def _keep(self, kind: str, body: Body) -> Body:
        number = sum(map(len, self.kept.values())) + sum(call[0] == "DELETE" for call in self.calls)
        made = {"state": "PENDING"} if kind == "runs" else {}
        made |= {**body, KINDS[kind]: f"{kind}-{number}", "created_at": _now(number)}
        if kind == "recurringRuns":
            made["status"] = "ENABLED" if body.get("mode") == "ENABLE" else "DISABLED"
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


def _page(kind: str, found: list[Body], start: int) -> Body:
    if kind != "runs":
        return {kind: found}
    rest = len(found) > start + PAGE
    return {kind: found[start : start + PAGE], "next_page_token": str(start + PAGE) if rest else ""}


def _now(number: int) -> str:
    return (datetime.now(UTC) + timedelta(milliseconds=number)).isoformat().replace("+00:00", "Z")


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
            if parts.path == f"{ROOT}/healthz" and server.health is not None:
                self._send(200, server.health, "text/html")
            elif match := re.fullmatch(r"/apis/v1alpha1/runs/[^/]+/nodes/([^/]+)/log", parts.path):
                self._send_log(unquote(match[1]))
            else:
                self._send_answer(*server.answer(self.command, parts.path, query, body))

        do_GET = do_POST = do_DELETE = _any

        def _send_answer(self, status: int, answer: Body | None) -> None:
            if answer is None:
                self.close_connection = True
                return
            self._send(status, json.dumps(answer).encode(), "application/json")

        def _send_log(self, key: str) -> None:
            if server.logs_as_page:
                self._send(200, b"<html></html>", "text/html")
            elif key in server.node_logs:
                self._send(200, server.node_logs[key].encode(), "text/plain")
            else:
                body = {"error_message": f'pods "{key}" not found', "error_details": "a stack of Go"}
                self._send(500, json.dumps(body).encode(), "application/json")

        def _send(self, status: int, body: bytes, kind: str) -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *arguments: Any) -> None:
            pass

    return Handler
