"""Plays the pods of the job before an installation where no node has the project's images: the real script of the real
pod, with the token of its service account, against the real API server. Only the container is not one.
"""

from __future__ import annotations

import base64
import json
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml

from support.chart_hooks import preparation
from support.cluster.kube import Namespace

UNPLACED: Mapping[str, Any] = {
    "nodePools": {"nowhere": {"nodeSelector": {"conf-profile-test": "nowhere"}}},
    "prepare": {"pool": "nowhere"},
}
"""Values with which no node, real or simulated, takes the pod."""
SELECTOR = "app.kubernetes.io/component=prepare"
_PAUSE_SECONDS = 0.3


@contextmanager
def played_hooks(namespace: Namespace) -> Iterator[list[str]]:
    """While it is open each such pod of the namespace runs here; gives what they printed."""
    said: list[str] = []
    ended = threading.Event()
    failures: list[BaseException] = []

    def play() -> None:
        done: set[str] = set()
        try:
            while not ended.wait(_PAUSE_SECONDS):
                for pod in namespace.pods(SELECTOR):
                    if pod["metadata"]["uid"] not in done and pod["status"].get("phase") == "Pending":
                        done.add(pod["metadata"]["uid"])
                        said.append(_run(namespace, pod))
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=play)
    thread.start()
    try:
        yield said
    finally:
        ended.set()
        thread.join()
    if failures:
        raise failures[0]


def _run(namespace: Namespace, pod: Mapping[str, Any]) -> str:
    """Runs it and tells the API server how it ended, as a kubelet would; what it printed."""
    name, spec = pod["metadata"]["name"], pod["spec"]
    cluster = yaml.safe_load(namespace.cluster.kubectl("config", "view", "--raw", "--minify"))["clusters"][0]["cluster"]
    address = urlsplit(cluster["server"])
    with tempfile.TemporaryDirectory() as folder:
        token = namespace.kubectl("create", "token", spec["serviceAccountName"]).strip()
        (Path(folder) / "token").write_text(token)
        (Path(folder) / "ca.crt").write_bytes(base64.b64decode(cluster["certificate-authority-data"]))
        ended = preparation(spec).run(str(address.hostname), address.port or 443, Path(folder))
    container = {
        "name": spec["containers"][0]["name"],
        "image": spec["containers"][0]["image"],
        "imageID": "",
        "ready": False,
        "restartCount": 0,
        "state": {"terminated": {"exitCode": ended.returncode, "message": ended.stderr}},
    }
    phase = "Failed" if ended.returncode else "Succeeded"
    patch = json.dumps({"status": {"phase": phase, "containerStatuses": [container]}})
    namespace.kubectl("patch", "pod", name, "--subresource=status", f"--patch={patch}")
    return ended.stdout + ended.stderr
