"""The cluster: the one that KUBECONFIG names, else a kind cluster, else the tests are skipped.

A test gets a namespace of its own; what happened in it is printed when the test fails.
"""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from support.cluster.kube import Cluster, CommandError, until

KIND_NAME = "conf-profile-tests"
HOW = "set KUBECONFIG to a cluster's and call `make test-cluster`"
OPEN_CLUSTER = pytest.StashKey[Cluster]()
HERE = Path(__file__).parent


def pytest_collection_modifyitems(items):
    for item in items:
        if HERE in item.path.parents:
            item.add_marker("cluster")


@pytest.fixture(scope="session")
def cluster(request, tmp_path_factory):
    """The cluster, which must answer."""
    for program in ("kubectl", "helm"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed; {HOW}")
    kubeconfig = os.environ.get("KUBECONFIG")
    kind = None if kubeconfig else _kind(request.config, tmp_path_factory.mktemp("kind") / "kubeconfig")
    made = Cluster(kubeconfig or str(kind))
    made.kubectl("get", "--raw=/readyz")
    request.config.stash[OPEN_CLUSTER] = made
    try:
        yield made
        until("the tests' namespaces are gone", lambda: not made.ending(), seconds=180)
    finally:
        if kind:
            subprocess.run(["kind", "delete", "cluster", f"--name={KIND_NAME}"], check=True)


@pytest.fixture
def namespace(cluster):
    """A namespace of the test's own, which enforces Pod Security `restricted`."""
    with cluster.namespace() as made:
        yield made


@pytest.fixture(scope="module")
def module_namespace(cluster):
    """The same for a whole module, for tests that leave nothing in it."""
    with cluster.namespace() as made:
        yield made


@pytest.fixture(scope="session")
def kserve(cluster):
    """Skips where the cluster has no KServe."""
    if not cluster.serves("inferenceservices.serving.kserve.io"):
        pytest.skip("the cluster has no KServe; install it (Standard mode) to run this")


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item):
    outcome = yield
    report = outcome.get_result()
    cluster = item.config.stash.get(OPEN_CLUSTER, None)
    if not report.failed or cluster is None:
        return
    for namespace in cluster.open:
        try:
            report.sections.append((f"namespace {namespace.name}", namespace.report()))
        except CommandError as error:
            report.sections.append((f"namespace {namespace.name}", str(error)))


def _kind(config, kubeconfig):
    """A kind cluster; only for whoever asked for the cluster's tests, since it takes a minute and an engine."""
    engine = shutil.which("docker") or shutil.which("podman")
    if config.option.markexpr != "cluster" or shutil.which("kind") is None or engine is None:
        pytest.skip(f"no KUBECONFIG, nor kind with docker or podman under `make test-cluster`; {HOW}")
    command = ["kind", "create", "cluster", f"--name={KIND_NAME}", f"--kubeconfig={kubeconfig}", "--wait=180s"]
    subprocess.run(command, check=True)
    return kubeconfig
