"""Seconds from `helm install --wait` to an InferenceService that is ready, and of each of its pods.

    python -m benchmarks.cluster -n profiles -- conf-profile charts/conf-profile --values my-values.yaml

What stands behind `--` is handed to `helm install`. Images must be on the nodes, or their download is measured, and a
champion must be promoted. Then the transformer's pod is deleted three times. A pod's seconds are those between its
creation and its becoming ready, which Kubernetes tells in whole seconds. The release stays installed. Prints JSON.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import time
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from benchmarks.teacher_vllm import machine

STARTS = 3


def main() -> None:
    """Measures on the cluster of KUBECONFIG."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "-n", "--namespace", required=True, help="it holds the Secret of the object store, and no release"
    )
    parser.add_argument("helm", nargs="+", metavar="ARGUMENT", help="of `helm install`: release, chart, values")
    given = parser.parse_args()
    print(json.dumps(measure(given.namespace, given.helm), indent=2))


def measure(namespace: str, arguments: Sequence[str]) -> dict[str, Any]:
    """One installation, then starts of the transformer."""
    began = time.perf_counter()
    run("helm", "install", f"--namespace={namespace}", "--wait", "--timeout=15m", *arguments)
    installed = time.perf_counter() - began
    found = {component: measure_readiness(namespace, component) for component in ("predictor", "transformer")}
    return {
        "helm_install_wait_seconds": round(installed, 1),
        "pod_ready_seconds": found,
        "transformer_again_seconds": [restart_transformer(namespace) for _ in range(STARTS)],
        "machine": machine(),
    }


def restart_transformer(namespace: str) -> float:
    """With everything else in place."""
    run("kubectl", f"--namespace={namespace}", "delete", "pod", "--selector=component=transformer")
    return measure_readiness(namespace, "transformer")


def measure_readiness(namespace: str, component: str) -> float:
    """Of the component's youngest pod; waits for it."""
    kubectl = ("kubectl", f"--namespace={namespace}")
    selector = f"--selector=component={component}"
    run(*kubectl, "wait", "--for=condition=Ready", "pod", selector, "--timeout=10m")
    pods = json.loads(run(*kubectl, "get", "pods", selector, "--output=json"))["items"]
    pod = max(pods, key=lambda one: one["metadata"]["creationTimestamp"])
    (ready,) = (each["lastTransitionTime"] for each in pod["status"]["conditions"] if each["type"] == "Ready")
    return (parse_time(ready) - parse_time(pod["metadata"]["creationTimestamp"])).total_seconds()


def parse_time(text: str) -> datetime:
    """Kubernetes's spelling of a time."""
    return datetime.fromisoformat(text)


def run(*command: str) -> str:
    """What it prints; its errors go to the terminal."""
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


if __name__ == "__main__":
    main()
