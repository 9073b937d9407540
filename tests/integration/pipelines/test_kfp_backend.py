"""The pipeline on a real KFP backend, where there is one: twice, the second time from the cache.

Needs, beside KFP_ENDPOINT: KFP_IMAGE, an image of the steps that the cluster can pull; KFP_VALUES, a values file with
`s3.endpoint` and `pipelines.s3Secret`; and the same object store in AWS_ENDPOINT_URL and AWS's keys, as it is reached
from here. KFP_NAMESPACE and KFP_TOKEN or KFP_TOKEN_FILE where the backend asks for them. With KUBECONFIG a pod of the
first run is killed. What came of a run is read from the registry.
"""

import json
import os
import subprocess
import sys
import time
import uuid

import pytest

from conf_profile.config import StorageConfig
from conf_profile.registry import registry
from pipelines.cluster import kfp_backend
from pipelines.cluster.runs.run_cluster import KFP_NAMESPACE

NEEDED = ("KFP_ENDPOINT", "KFP_IMAGE", "KFP_VALUES")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        any(name not in os.environ for name in NEEDED),
        reason=f"needs a KFP backend: set {', '.join(NEEDED)}, AWS_ENDPOINT_URL and AWS's keys; KUBECONFIG kills a pod",
    ),
]
MODEL = f"backend-test-{uuid.uuid4().hex[:8]}"
LEARNS = ["--users=1200", "--set=grpo.steps=4", f"--set=storage.model={MODEL}"]
"""As `make run`'s preset, with four steps of GRPO: fewer users leave a student that answers nothing."""
KILLED = "sft"
WITHIN_SECONDS = 3600
FROM_CACHE = {"features", "synthesis", "labelling", "sft", "reference", "filtering", "grpo"}


def namespace():
    return [f"--namespace={os.environ['KFP_NAMESPACE']}"] if "KFP_NAMESPACE" in os.environ else []


def start(folder):
    options = [f"--image={os.environ['KFP_IMAGE']}", f"--values={os.environ['KFP_VALUES']}", *namespace(), *LEARNS]
    result = conf_profile(folder, "submit", "--no-wait", *options)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout.rsplit("/", 1)[-1].strip()


def conf_profile(folder, *arguments):
    command = [sys.executable, "-m", "conf_profile", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True)


def show(folder, run_id):
    result = conf_profile(folder, "runs", "show", run_id, "--json", *namespace())
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


def until(folder, run_id, fact, what):
    deadline = time.monotonic() + WITHIN_SECONDS
    while time.monotonic() < deadline:
        found = show(folder, run_id)
        if fact(found):
            return found
        assert found["state"] not in kfp_backend.ENDED_STATES, f"{what}: {found}"
        time.sleep(5)
    raise AssertionError(f"waited {WITHIN_SECONDS} s in vain: {what}")


def kill_pod_of(run_id, step):
    """Deletes the pod that runs the step."""
    from kubernetes import client, config

    config.load_kube_config(os.environ["KUBECONFIG"])
    core, where = client.CoreV1Api(), os.environ.get("KFP_NAMESPACE", KFP_NAMESPACE)
    pods = core.list_namespaced_pod(where, label_selector=f"pipeline/runid={run_id}").items
    path = "workflows.argoproj.io/node-name"
    found = [
        pod.metadata.name
        for pod in pods
        if pod.status.phase == "Running" and f".{step}.executor" in (pod.metadata.annotations or {}).get(path, "")
    ]
    assert found, f"no pod of {step} runs in {where}"
    core.delete_namespaced_pod(found[0], where, grace_period_seconds=0)


def has_begun(step):
    return lambda found: any(each["name"] == step and each["state"] == "RUNNING" for each in found["steps"])


def ended(found):
    return found["state"] in kfp_backend.ENDED_STATES


def test_a_run_promotes_a_champion_and_the_next_takes_it_from_the_cache(tmp_path):
    first = start(tmp_path)
    if "KUBECONFIG" in os.environ:
        until(tmp_path, first, has_begun(KILLED), f"{KILLED} begins")
        kill_pod_of(first, KILLED)
    assert until(tmp_path, first, ended, "the first run ends")["state"] == "SUCCEEDED"
    models = registry.connect(StorageConfig(endpoint=None, model=MODEL), create_bucket=False)
    champion = models.require_champion()
    second = start(tmp_path)
    found = until(tmp_path, second, ended, "the second run ends")
    assert found["state"] == "SUCCEEDED"
    # The same student again is no better than the champion, so the gate rejects it.
    assert models.require_champion() == champion
    assert [each.name for each in models.list_versions()] == [champion.version]
    states = {each["name"]: each["state"] for each in found["steps"]}
    if not found["notes"]:
        assert {name for name, state in states.items() if state == "CACHED"} >= FROM_CACHE & set(states)
