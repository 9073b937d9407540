"""`conf-profile rollout` against a real API server, KServe and S3; pods are played, answers come from a small server.

What it is about is order and state: what is pinned when, what is put back, who is refused.
"""

import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import yaml
from click.testing import CliRunner

from conf_profile.cli.main import cli
from conf_profile.config import StorageConfig
from conf_profile.registry.registry import connect
from conf_profile.rollout import smoke
from conf_profile.rollout import state as rollout_state
from conf_profile.rollout.serving_cluster import ServingCluster
from conf_profile.storage import object_store
from conf_profile.storage.local_s3 import local_s3
from support.chart_manifests import EXAMPLE, PRESETS
from support.cluster.kube import until
from support.cluster.simulated_nodes import AVOIDED, node, simulated

POOL = {"conf-profile-test": "rollout"}
VALUES = {
    "nodePools": {"cpu": {"nodeSelector": POOL}},
    "features": {"enabled": False},
    "pipelines": {"enabled": True, "s3Secret": {"name": "object-store"}},
}
AGE = {"age": smoke.ExpectedAnswer("25-34", 4), "gender": smoke.ExpectedAnswer(None, None)}
PROFILES = [smoke.SmokeProfile({"watch": ("trail running",), "search": (), "submit": ()}, AGE)]


@pytest.fixture(scope="module")
def nodes(cluster):
    """One node has room for all; it may be closed to new pods."""
    with simulated(cluster, node(POOL, [AVOIDED])) as (name,):
        yield name


@pytest.fixture(scope="module")
def access(tmp_path_factory):
    with local_s3(tmp_path_factory.mktemp("s3")) as found:
        yield found


@pytest.fixture
def models(access, namespace, tmp_path):
    """Two versions, `one` and `two`; the second is the champion."""
    registry = connect(StorageConfig(model=namespace.name), access)
    for name in ("one", "two"):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "model.safetensors").write_text(name)
        registry.publish(folder, name, generated={smoke.SMOKE: json.dumps(smoke.render(PROFILES)).encode()})
        registry.promote(name, {})
    return registry


@pytest.fixture
def release(namespace, kserve, nodes, models):
    """The chart, its pods ready, serving version one."""
    namespace.secret("object-store", AWS_ACCESS_KEY_ID="key", AWS_SECRET_ACCESS_KEY="secret")
    made = namespace.release()
    made.install(EXAMPLE, PRESETS["cpu"], VALUES, {"s3": {"model": models.model}, "serving": {"version": "one"}})
    until("KServe has made both deployments", lambda: len(namespace.get("deployments")) == 2)
    namespace.wait("condition=Available", "deployments", "--all")
    return made


class Answers(BaseHTTPRequestHandler):
    """A transformer that says of everybody what `server.tag` and `server.version` are, after it did `server.first`."""

    def do_POST(self):
        self.server.first()
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        assert self.path == "/v1/models/conf-profile:predict"
        profile = {
            "age": {"tag": self.server.tag, "level": 4, "accepted": True},
            "gender": {"tag": None, "accepted": False, "reason": "the evidence says nothing"},
        }
        entry = {"model_version": self.server.version, "profile": profile}
        body = json.dumps({"predictions": [entry for _ in asked["instances"]]}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        """Not into the tests' output."""


@pytest.fixture
def transformer():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    server.tag, server.version, server.first = "25-34", "two", lambda: None
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def run(cluster, access, models, release, transformer, monkeypatch):
    """Calls the command line as a user of this cluster would."""
    monkeypatch.setenv("KUBECONFIG", cluster.kubeconfig)
    for name, value in access.environment().items():
        monkeypatch.setenv(name, value)

    def run(*command, model=models.model, ready_seconds=120):
        return CliRunner().invoke(
            cli,
            [
                *command,
                f"--inference-service={release.fullname}",
                f"--namespace={release.namespace.name}",
                f"--url=http://127.0.0.1:{transformer.server_port}",
                f"--model={model}",
                f"--ready-seconds={ready_seconds}",
            ],
        )

    return run


def served(release):
    """What predictor and transformer are told to use; both must agree."""
    references = rollout_state.find_model_references(release.namespace.get("inferenceservice", release.fullname))
    assert len(references) == 2
    (found,) = set(references.values())
    return found


def pods_of(release, uri):
    """Pods that were made for this model; both of the release's, and nobody else's."""
    found = release.namespace.pods(f"serving.kserve.io/inferenceservice={release.fullname}")
    named = [{"spec": pod["spec"], "annotations": pod["metadata"]["annotations"]} for pod in found]
    return len(found) == 2 and all(json.dumps(uri) in json.dumps(pod) for pod in named)


def failure(result):
    assert result.exception is not None
    return str(result.exception)


def test_the_champion_goes_into_service(release, models, run):
    result = run("rollout")
    assert result.exit_code == 0, result.output
    assert f"{models.uri('two')} is in service" in result.output
    assert served(release) == models.uri("two") and pods_of(release, models.uri("two"))
    # The chart leaves it there, and the next one may begin.
    release.install(EXAMPLE, PRESETS["cpu"], VALUES, {"s3": {"model": models.model}})
    assert served(release) == models.uri("two")
    assert run("rollout", "two").exit_code == 0


def test_answers_that_are_not_the_evaluations_bring_everything_back(release, models, run, transformer):
    transformer.tag = "55+"
    told = failure(run("rollout"))
    assert "1 of 2 answers are not those of the evaluation (age 1)" in told
    assert "the champion is one again" in told and f"serves {models.uri('one')} as before" in told
    assert served(release) == models.uri("one") and pods_of(release, models.uri("one"))
    assert models.require_champion().version == "one"


def test_pods_that_find_no_node_bring_everything_back(cluster, release, models, run, nodes):
    before = {pod["metadata"]["uid"] for pod in release.namespace.pods()}
    cluster.kubectl("cordon", nodes)
    try:
        told = failure(run("rollout", ready_seconds=8))
    finally:
        cluster.kubectl("uncordon", nodes)
    assert "after 8 s" in told and "has no node" in told and "as before" in told
    assert served(release) == models.uri("one") and models.require_champion().version == "one"
    # The old pods have been there all the time.
    assert {pod["metadata"]["uid"] for pod in release.namespace.pods()} == before


def test_a_second_rollout_is_refused_and_changes_nothing(release, models, run):
    with ServingCluster(release.namespace.name, release.fullname).rollout("two"):
        for command in (["rollout"], ["models", "rollback"]):
            told = failure(run(*command))
            assert "is rolling out" in told and "wait for its end" in told
    assert served(release) == models.uri("one") and models.require_champion().version == "two"


def test_after_a_kill_the_next_one_knows_what_was_served_before(release, models, run, transformer):
    cluster = ServingCluster(release.namespace.name, release.fullname)
    with cluster.rollout("two") as killed:
        killed.note(models.uri("one"))
        cluster.pin(models.uri("two"))
        lease = release.namespace.get("lease", f"{release.fullname}-rollout")
    # An uninstalled release takes it along.
    assert [each["kind"] for each in lease["metadata"]["ownerReferences"]] == ["InferenceService"]
    release.namespace.kubectl("replace", "--filename=-", given=yaml.safe_dump(expired(release, lease)))
    transformer.tag = "55+"
    assert f"serves {models.uri('one')} as before" in failure(run("rollout"))
    assert served(release) == models.uri("one")


def test_a_rollout_that_was_silent_for_too_long_undoes_nothing_of_the_next_ones(release, models, run, transformer):
    def another_takes_over():
        lease = release.namespace.get("lease", f"{release.fullname}-rollout")
        lease["spec"]["holderIdentity"] = "another"
        release.namespace.kubectl("replace", "--filename=-", given=yaml.safe_dump(lease))

    transformer.tag, transformer.first = "55+", another_takes_over
    told = failure(run("rollout"))
    assert "are not those of the evaluation" in told and "the other rollout decides" in told
    assert served(release) == models.uri("two") and models.require_champion().version == "two"
    lease = release.namespace.get("lease", f"{release.fullname}-rollout")
    assert lease["spec"]["holderIdentity"] == "another" and "is rolling out" in failure(run("rollout"))


def expired(release, lease):
    """The lease as a process left it that died long ago."""
    now = release.namespace.get("lease", lease["metadata"]["name"])["metadata"]["resourceVersion"]
    spec = {**lease["spec"], "renewTime": "2020-01-01T00:00:00.000000Z"}
    return {**lease, "spec": spec, "metadata": {**lease["metadata"], "resourceVersion": now}}


def test_back_to_the_version_before_and_not_where_it_does_not_answer(release, models, run, transformer):
    assert run("rollout").exit_code == 0
    transformer.tag, transformer.version = "55+", "one"
    told = failure(run("models", "rollback"))
    assert "the champion is two again" in told
    assert served(release) == models.uri("two") and models.require_champion().version == "two"
    transformer.tag = "25-34"
    assert run("models", "rollback").exit_code == 0
    assert served(release) == models.uri("one") and models.require_champion().version == "one"


def test_a_run_of_the_pipeline_may_do_this_and_no_more(cluster, release, models, run, monkeypatch, tmp_path):
    with as_runner(cluster, release, tmp_path) as kubeconfig:
        monkeypatch.setenv("KUBECONFIG", kubeconfig)
        result = run("rollout")
        assert result.exit_code == 0, failure(result)
        told = failure(CliRunner().invoke(cli, ["rollout", "--inference-service=other", f"--model={models.model}"]))
        assert "forbidden" in told and "the chart's role" in told


@contextmanager
def as_runner(cluster, release, folder):
    """A KUBECONFIG of the runs' service account."""
    config = yaml.safe_load(cluster.kubectl("config", "view", "--raw", "--minify"))
    token = release.namespace.kubectl("create", "token", f"{release.fullname}-runner").strip()
    config["users"][0]["user"] = {"token": token}
    path = folder / "kubeconfig"
    path.write_text(yaml.safe_dump(config))
    yield str(path)


def test_another_models_service_is_left_alone(release, models, run, access, tmp_path):
    stranger = connect(StorageConfig(model=f"{models.model}-other"), access)
    (tmp_path / "stranger").mkdir()
    (tmp_path / "stranger" / "model.safetensors").write_text("x")
    stranger.publish(tmp_path / "stranger", "v1")
    stranger.promote("v1", {})
    told = failure(run("rollout", model=stranger.model))
    assert f"serves {models.uri('one')}, not {stranger.uri()}" in told
    assert served(release) == models.uri("one") and stranger.require_champion().version == "v1"
    assert not release.namespace.kubectl("get", "leases", "--output=name")


def test_a_version_that_is_not_complete_never_begins(release, models, run, access):
    client = object_store.s3_client(access.endpoint, access.region, access.access_key, access.secret_key)
    client.delete_object(Bucket=models.bucket, Key=f"models/{models.model}/versions/two/model.safetensors")
    assert "model.safetensors is missing or cut" in failure(run("rollout"))
    assert served(release) == models.uri("one")
    assert not release.namespace.kubectl("get", "leases", "--output=name")
