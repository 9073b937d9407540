"""A pod that asks the transformer through its Service, and runs the command line, as others in the cluster would."""

from __future__ import annotations

import json
import os
import subprocess
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from support.cluster.kube import CommandError, Release

ASKING = Path(__file__).with_name("asking.py").read_text(encoding="utf-8")
_NAME = "caller"
_SECURITY = {
    "allowPrivilegeEscalation": False,
    "runAsNonRoot": True,
    "capabilities": {"drop": ["ALL"]},
    "seccompProfile": {"type": "RuntimeDefault"},
}


class Caller:
    """The pod `caller` beside a release, with the rights of its pipeline's runs."""

    def __init__(self, release: Release, image: str, selector: Mapping[str, str], s3: str, secret: str) -> None:
        self._release, self._namespace = release, release.namespace
        self.url = f"http://{release.fullname}-transformer.{self._namespace.name}/v1/models/conf-profile:predict"
        self._namespace.apply(_pod(f"{release.fullname}-runner", image, selector, s3, secret))
        self._namespace.wait("condition=Ready", f"pod/{_NAME}")

    def ask(self, *instances: Mapping[str, Any], **parameters: Any) -> dict[str, Any]:
        """One request: `status`, `body`, `retry_after` where there is one, `seconds`."""
        body = {"instances": list(instances), "parameters": parameters}
        told = self._namespace.kubectl(*_exec("python", "-c", ASKING, self.url), given=json.dumps(body) + "\n")
        return dict(json.loads(told))

    @contextmanager
    def load(self, rate: float, users: Sequence[str]) -> Iterator[list[dict[str, Any]]]:
        """The answers, as they come, to `rate` requests a second for as long as the block runs."""
        answers: list[dict[str, Any]] = []
        command = ["kubectl", f"--namespace={self._namespace.name}"]
        command += _exec("python", "-c", ASKING, self.url, str(rate), *users)
        environment = {**os.environ, "KUBECONFIG": self._namespace.cluster.kubeconfig}
        asking = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )  # fmt: skip
        assert asking.stdin is not None and asking.stdout is not None
        lines = asking.stdout
        reader = threading.Thread(target=lambda: answers.extend(map(json.loads, lines)))
        reader.start()
        try:
            yield answers
        finally:
            asking.stdin.close()
            reader.join()
            asking.wait()

    def run(self, *command: str) -> tuple[bool, str]:
        """Whether `conf-profile COMMAND` succeeded, and all that it said."""
        try:
            return True, self._namespace.kubectl(*_exec("sh", "-c", 'conf-profile "$@" 2>&1', "sh", *command))
        except CommandError as error:
            return False, str(error)

    def rollout(self, version: str) -> tuple[bool, str]:
        where = (
            f"--inference-service={self._release.fullname}",
            f"--namespace={self._namespace.name}",
            f"--model={self._release.model}",
        )
        return self.run("rollout", version, *where)


def _exec(*command: str) -> list[str]:
    return ["exec", "--stdin", _NAME, "--", *command]


def _pod(account: str, image: str, selector: Mapping[str, str], s3: str, secret: str) -> dict[str, Any]:
    keys = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
    environment = [{"name": key, "valueFrom": {"secretKeyRef": {"name": secret, "key": key}}} for key in keys]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": _NAME},
        "spec": {
            "serviceAccountName": account,
            "automountServiceAccountToken": True,
            "nodeSelector": dict(selector),
            "terminationGracePeriodSeconds": 1,
            "containers": [
                {
                    "name": "caller",
                    "image": image,
                    "command": ["python", "-c", "import signal; signal.pause()"],
                    "env": [{"name": "AWS_ENDPOINT_URL", "value": s3}, *environment],
                    "resources": {"requests": {"cpu": "50m", "memory": "128Mi"}, "limits": {"memory": "1Gi"}},
                    "securityContext": _SECURITY,
                }
            ],
        },
    }
