"""A real HTTP server on 127.0.0.1 that answers as a Kubernetes API server would about pods and ConfigMaps.

It holds what a test puts there, checks the token, and writes the kubeconfig that leads to it.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import yaml

Body = dict[str, Any]
TOKEN = "token-of-the-cluster"


def pod(name: str, run_id: str, path: str, status: Body) -> Body:
    """A pod of a run as Argo makes it; `path` is the way to its node, such as `root.sft.executor`."""
    annotations = {"workflows.argoproj.io/node-name": f"workflow-abc.{path}"}
    metadata = {"name": name, "labels": {"pipeline/runid": run_id}, "annotations": annotations}
    return {"metadata": metadata, "status": {"phase": "Pending", **status}}


def waiting(reason: str, message: str = "") -> Body:
    """The status of a pod whose main container waits."""
    state = {"waiting": {"reason": reason, "message": message}}
    return {"containerStatuses": [{"name": "main", "state": state}]}


def unschedulable(message: str) -> Body:
    """The status of a pod without a node."""
    return {"conditions": [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message}]}


@dataclass
class PodsServer:
    """Pods and the launchers' ConfigMap by namespace; `refuse` is a status for every request."""

    url: str = ""
    refuse: int = 0
    pods: dict[str, list[Body]] = field(default_factory=dict)
    roots: dict[str, str] = field(default_factory=dict)
    asked: int = 0

    def kubeconfig(self, folder: Path) -> Path:
        """Writes the file that KUBECONFIG names."""
        path = folder / "kubeconfig.yaml"
        named = {
            "clusters": [{"name": "c", "cluster": {"server": self.url}}],
            "users": [{"name": "u", "user": {"token": TOKEN}}],
            "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
        }
        path.write_text(yaml.safe_dump({"apiVersion": "v1", "kind": "Config", "current-context": "x", **named}))
        return path

    def answer(self, path: str, query: dict[str, list[str]]) -> tuple[int, Body]:
        self.asked += 1
        if self.refuse:
            return self.refuse, {"kind": "Status", "message": "no"}
        if match := re.fullmatch(r"/api/v1/namespaces/([^/]+)/pods", path):
            run_id = query["labelSelector"][0].removeprefix("pipeline/runid=")
            found = self.pods.get(match[1], [])
            return 200, {"items": [one for one in found if one["metadata"]["labels"]["pipeline/runid"] == run_id]}
        if (match := re.fullmatch(r"/api/v1/namespaces/([^/]+)/configmaps/kfp-launcher", path)) and match[
            1
        ] in self.roots:
            return 200, {"data": {"defaultPipelineRoot": self.roots[match[1]]}}
        return 404, {"kind": "Status", "message": "not found"}


@contextmanager
def serve_pods() -> Iterator[PodsServer]:
    """Starts a server on a free port and stops it at the end of the block."""
    server = PodsServer()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            known = self.headers.get("Authorization") == f"Bearer {TOKEN}"
            status, answer = server.answer(parts.path, parse_qs(parts.query)) if known else (401, {})
            body = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *arguments: Any) -> None:
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.url = f"http://127.0.0.1:{http.server_address[1]}"
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        http.shutdown()
        http.server_close()
        thread.join()
