"""The job before an installation, as the tests run it: script and task of a rendering, and a folder of credentials."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Preparation:
    """What the pod of the job runs: `script` with `task` as its argument."""

    script: str
    task: dict[str, Any]

    def run(self, host: str, port: int, credentials: Path) -> subprocess.CompletedProcess[str]:
        """Runs it as its container would, with an API server at another address; `credentials` has token and ca.crt."""
        return subprocess.run(
            [sys.executable, "-c", self.script, json.dumps({**self.task, "credentials": str(credentials)})],
            env={"KUBERNETES_SERVICE_HOST": host, "KUBERNETES_SERVICE_PORT": str(port)},
            capture_output=True,
            text=True,
            timeout=60,
        )


def preparation(pod: Mapping[str, Any]) -> Preparation:
    """Of the pod's spec."""
    (container,) = pod["containers"]
    script, task = container["args"]
    return Preparation(script, json.loads(task))
