"""What is told of a run on KFP: against servers that speak KFP's API, Kubernetes' API and S3 (a real SeaweedFS).

The runs are begun through the API, not by `submit`, so that nothing is compiled or uploaded here but once.
"""

import io
import signal
import subprocess
import sys
from itertools import count

import kfp_server_api
import pytest
from rich.console import Console

from conf_profile.config import resolve
from conf_profile.errors import BackendUnreachableError, PipelineError, RunNotFoundError
from conf_profile.storage.local_s3 import local_s3
from conf_profile.storage.object_store import ObjectStore, s3_client
from pipelines import resources
from pipelines.cluster import kfp_backend
from pipelines.cluster.kfp_backend import RunSettings
from pipelines.cluster.kfp_connection import explain_errors
from pipelines.cluster.runs import run_progress
from pipelines.cluster.runs.run_cluster import RunCluster
from pipelines.cluster.runs.run_report import RunReader
from pipelines.compile import compile_to
from pipelines.training import PIPELINE_NAME
from support.kfp_server import DELETED, cached, node, run, serve, step
from support.pods_server import pod, serve_pods, unschedulable, waiting

BUCKET = "artefacts"
ROOT = f"s3://{BUCKET}/kfp"
STEPS = [
    "features", "synthesis", "labelling", "sft", "rejection", "reference", "filtering", "grpo",
    "evaluation", "gate", "promotion", "report",
]  # fmt: skip
FAILURE = """2026-06-01 step began
Traceback (most recent call last):
  File "task.py", line 3, in run
conf_profile.errors.DataError: no training user has a pseudo-label; lower labelling.threshold
I0601 10:00:07 launcher: failed to execute component: exit status 1
"""
REASON = "conf_profile.errors.DataError: no training user has a pseudo-label; lower labelling.threshold"
_ROOTS = count()


@pytest.fixture(scope="module")
def access(tmp_path_factory):
    with local_s3(tmp_path_factory.mktemp("s3")) as found:
        yield found


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    path = tmp_path_factory.mktemp("package") / "pipeline.yaml"
    compile_to(path, resolve("tiny"), resources.load(), "registry/training:abc", caching=True)
    return path


@pytest.fixture(autouse=True)
def environment(access, monkeypatch, tmp_path):
    for name, value in access.environment().items():
        monkeypatch.setenv(name, value)
    for name in (kfp_backend.TOKEN, kfp_backend.TOKEN_FILE, "KFP_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "no-kubeconfig"))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(run_progress, "SECONDS_BETWEEN_LOOKS", 0.01)


@pytest.fixture
def server():
    with serve() as found:
        yield found


@pytest.fixture
def pods(monkeypatch, tmp_path):
    with serve_pods() as found:
        monkeypatch.setenv("KUBECONFIG", str(found.kubeconfig(tmp_path)))
        monkeypatch.setattr(run_progress, "PENDING_SECONDS", 0.0)
        monkeypatch.setattr(run_progress, "SECONDS_BETWEEN_QUESTIONS", 0.0)
        yield found


@pytest.fixture
def store(access):
    client = s3_client(access.endpoint, access.region, access.access_key, access.secret_key)
    found = ObjectStore(client, BUCKET)
    found.ensure_bucket(create=True)
    return found


class Started:
    """A run that has begun, and everything that looks at it."""

    def __init__(self, server, package, root=None):
        self.server = server
        self.backend = kfp_backend.connect(server.url, None)
        version = self.backend.upload(package, "conf-profile-training", "v1")
        self.id = self.backend.run(version, "a run", {}, RunSettings("conf-profile", None, root))
        self.root = root

    def wait(self, pipeline_root="", namespace=None):
        """What `submit` shows, and the error that it ends with."""
        console = Console(width=200, record=True, file=io.StringIO())
        error = None
        try:
            run_progress.wait(RunReader(self.backend, RunCluster(namespace), self.id, pipeline_root), console)
        except PipelineError as raised:
            error = raised
        return console.export_text(), error

    def leave(self, store, name, *files, salt="s1", **contents):
        """Objects as KFP's launcher puts them."""
        bodies = dict.fromkeys(files, b"x") | {key.replace("_", "-"): text.encode() for key, text in contents.items()}
        for file, body in bodies.items():
            store.write_new(f"kfp/{PIPELINE_NAME}/{self.id}/{name}/{salt}/{file}", body)


@pytest.fixture
def started(server, package):
    return Started(server, package)


@pytest.fixture
def rooted(server, package):
    """Its artefacts are in SeaweedFS, in a folder of its own: ids of runs begin anew with each server."""
    server.kept["experiments"] += [
        {"experiment_id": f"e-{number}", "display_name": f"other-{number}"} for number in range(next(_ROOTS))
    ]
    return Started(server, package, ROOT)


def marks(shown):
    return [line[:1] + line.split()[1] for line in shown.splitlines() if line[:1] in "✓✗" and line.strip()]


def test_steps_are_shown_as_they_end_and_once(server, started):
    server.looks = [
        run("PENDING"),
        run("RUNNING", *cached("features"), *step("synthesis", "RUNNING")),
        run("RUNNING", *cached("features"), *step("synthesis", "SUCCEEDED"), *step("labelling", "PENDING")),
        # The run's state is ahead of its nodes'.
        run("SUCCEEDED", *cached("features"), *step("synthesis", "SUCCEEDED"), *step("labelling", "RUNNING")),
    ]
    shown, error = started.wait()
    assert error is None
    assert marks(shown) == ["✓features", "✓synthesis", "✓labelling"]
    assert "features 7 s (from the cache)" in shown


def test_a_failed_step_is_told_with_the_end_of_its_log(server, started):
    server.looks = [run("FAILED", *step("features", "SUCCEEDED"), *step("labelling", "FAILED"))]
    server.node_logs = {"labelling-pod": FAILURE}
    shown, error = started.wait()
    assert f"step 'labelling' failed: {REASON}\n" in str(error)
    assert f"{server.url}/#/runs/details/{started.id}" in str(error)
    assert marks(shown) == ["✓features", "✗labelling"]
    assert "    Traceback (most recent call last):" in shown and f"    {REASON}" in shown
    assert f"/apis/v1alpha1/runs/{started.id}/nodes/labelling-pod/log" in shown


def test_of_a_retried_step_the_last_try_is_read(server, started):
    server.looks = [run("FAILED", *step("grpo", "FAILED", tries=2))]
    server.node_logs = {"grpo-try-0": "RuntimeError: the first\n", "grpo-try-1": "RuntimeError: the second\n"}
    assert "step 'grpo' failed: RuntimeError: the second" in str(started.wait()[1])


def test_a_failed_step_may_show_after_its_run(server, started):
    server.looks = [run("FAILED", *step("sft", "RUNNING")), run("FAILED", *step("sft", "FAILED"))]
    server.node_logs = {"sft-pod": "launcher: exit status 137\n"}
    assert "step 'sft' failed: killed, most likely for memory" in str(started.wait()[1])


def test_the_log_is_read_from_the_runs_root_first(server, rooted, store):
    rooted.leave(store, "labelling", executor_logs=FAILURE)
    rooted.leave(store, "features", "features", executor_logs="all is well\n")
    server.looks = [run("FAILED", *step("features", "SUCCEEDED"), *step("labelling", "FAILED"))]
    shown, error = rooted.wait()
    assert REASON in str(error)
    assert f"{ROOT}/{PIPELINE_NAME}/{rooted.id}/labelling/s1/executor-logs" in shown


def test_a_log_of_a_shard_that_went_well_is_not_taken_for_the_failed_ones(server, rooted, store):
    rooted.leave(store, "synthesis", "candidates", executor_logs="all is well\n")
    server.looks = [run("FAILED", *step("synthesis", "FAILED"))]
    server.node_logs = {"synthesis-pod": FAILURE}
    assert REASON in str(rooted.wait()[1])


def test_where_no_log_can_be_had_it_says_so(server, started):
    server.looks = [run("FAILED", *step("sft", "FAILED"))]
    server.logs_as_page = True
    shown, error = started.wait()
    assert "step 'sft' failed: its log could not be read" in str(error)
    assert "the log of sft could not be read" in shown and "use the address of ml-pipeline" in shown


def test_no_secret_and_no_terminal_command_of_a_log_is_shown(server, started, monkeypatch):
    monkeypatch.setenv(kfp_backend.TOKEN, "token-of-the-user")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret-of-the-store")
    server.looks = [run("FAILED", *step("sft", "FAILED"))]
    server.node_logs = {
        "sft-pod": "\x1b]0;title\x07\x1b[31mred\nAuthorization: Bearer abcdefghij\n"
        "http://u:password@h/x token-of-the-user secret-of-the-store "
        "?api_key=k-1234567890 sk-abcdefghijklmnop1234\nValueError: [bold]no[/bold] secret-of-the-store\n"
    }
    shown, error = started.wait()
    assert "step 'sft' failed: ValueError: [bold]no[/bold] ***" in str(error)
    assert not [
        part
        for part in ("\x1b", "abcdefghij", "k-1234", "password", "token-of", "secret-of")
        if part in shown + str(error)
    ]


WHOLE = [node for name in STEPS[:9] for node in step(name, "SUCCEEDED")]
LARGE = [node("driver", "SUCCEEDED", key=f"d{number}") for number in range(116)]


def test_a_run_whose_nodes_vanish_is_followed_to_its_end(server, rooted, store):
    for name in STEPS[:10]:
        rooted.leave(store, name, "out", executor_logs="well\n")
    server.looks = [run("RUNNING", *WHOLE), run("RUNNING", *WHOLE, *LARGE), run("SUCCEEDED", *WHOLE, *LARGE)]
    assert server.looks[1]["run_details"] is None
    shown, error = rooted.wait()
    assert error is None
    assert sorted(marks(shown)) == sorted(f"✓{name}" for name in STEPS)
    assert "KFP shows no nodes of this run any more" in shown


def test_without_nodes_and_root_a_success_still_shows_the_compiled_steps(server, started):
    server.looks = [run("RUNNING", *WHOLE), run("SUCCEEDED", *WHOLE, *LARGE)]
    shown, error = started.wait()
    assert error is None and sorted(marks(shown)) == sorted(f"✓{name}" for name in STEPS)
    assert "give it with --pipeline-root (no cluster: set KUBECONFIG" in shown


@pytest.mark.parametrize("log", [FAILURE, "killed without a word\n"])
def test_a_late_failure_is_named_by_the_root(server, rooted, store, log):
    for name in STEPS[:9]:
        rooted.leave(store, name, "out", executor_logs="well\n")
    rooted.leave(store, "promotion", executor_logs=log)
    server.looks = [run("RUNNING", *WHOLE), run("FAILED", *WHOLE, *LARGE)]
    shown, error = rooted.wait()
    assert "step 'promotion' failed: " + (REASON if log == FAILURE else "its log does not say why") in str(error)
    assert "✗promotion" in marks(shown) and log.splitlines()[-1] in shown


def test_a_late_failure_that_cannot_be_named_says_so(server, started):
    server.looks = [run("RUNNING", *WHOLE), run("FAILED", *WHOLE, *LARGE)]
    _, error = started.wait()
    assert "the run ended as FAILED: KFP shows no nodes" in str(error)
    assert "which step failed cannot be told from here" in str(error) and "/#/runs/details/" in str(error)


def test_the_root_is_the_given_one_or_the_clusters(server, started, store, pods):
    pods.roots = {"kubeflow": ROOT}
    started.leave(store, "gate", executor_logs=FAILURE)
    server.looks = [run("FAILED", *WHOLE, *LARGE)]
    assert f"step 'gate' failed: {REASON}" in str(started.wait()[1])
    pods.roots = {}
    assert "which step failed cannot be told" in str(started.wait()[1])
    assert f"step 'gate' failed: {REASON}" in str(started.wait(pipeline_root=f"{ROOT}?region=us-east-1")[1])


def test_a_root_that_cannot_be_read_is_told_and_keeps_nothing_up(server, started):
    server.looks = [run("SUCCEEDED", *WHOLE, *LARGE)]
    shown, error = started.wait(pipeline_root="s3://no-such-bucket/kfp")
    assert error is None and "the bucket does not exist" in shown and "✓report" in marks(shown)
    shown, error = started.wait(pipeline_root="gs://bucket/kfp")
    assert error is None and "is not in S3" in shown


def test_a_run_that_is_deleted_meanwhile(server, started):
    server.looks = [run("RUNNING", *step("sft", "RUNNING")), DELETED]
    _, error = started.wait()
    assert isinstance(error, RunNotFoundError) and f"there is no run {started.id}" in str(error)


def test_silence_is_borne_for_a_while_and_a_refusal_not_at_all(server, started):
    # The client itself tries four times.
    server.looks = [None] * 8 + [run("SUCCEEDED")]
    assert started.wait()[1] is None
    server.looks = [None]
    assert isinstance(started.wait()[1], BackendUnreachableError)
    server.refuse = 403
    error = started.wait()[1]
    assert not isinstance(error, BackendUnreachableError) and "403" in str(error)


PULL = waiting("ImagePullBackOff", 'Back-off pulling image "registry/training:abc"')


def test_a_step_that_waits_is_told_once_with_each_reason(server, started, pods):
    here = pods.pods.setdefault("kubeflow", [])
    here[:] = [pod("p1", started.id, "root.sft.executor(0)", PULL), pod("p2", "another", "root.sft.executor", PULL)]
    server.looks = [run("RUNNING", *step("sft", "RUNNING", "PENDING"))] * 4 + [run("SUCCEEDED")]
    looks = count()

    def change():
        if next(looks) == 2:
            here[:] = [
                pod("p1", started.id, "root.sft.executor(0)", unschedulable("0/3 nodes: Insufficient nvidia.com/gpu"))
            ]

    server.on_look = change
    shown, _ = started.wait()
    told = [line.split(" s: ", 1)[1] for line in shown.splitlines() if line.startswith("sft: pending for ")]
    assert told == [
        'ImagePullBackOff: Back-off pulling image "registry/training:abc"',
        "Unschedulable: 0/3 nodes: Insufficient nvidia.com/gpu",
    ]


@pytest.mark.parametrize(("driver", "shown_as"), [("grpo-driver", "grpo"), ("root-driver", "root-driver")])
def test_a_driver_that_waits_is_told_too(server, started, pods, driver, shown_as):
    pods.pods["team-a"] = [pod("p1", started.id, f"root.{driver}", PULL)]
    server.looks = [run("RUNNING", node(driver, "PENDING"))] * 2 + [run("SUCCEEDED")]
    shown, _ = started.wait(namespace="team-a")
    assert f"{shown_as}: pending for 0 s: ImagePullBackOff" in shown


def test_a_run_that_nobody_begins_is_told(server, started, pods):
    server.looks = [run("PENDING")] * 2 + [run("SUCCEEDED")]
    assert "the run: pending for 0 s: the cluster gives no reason" in started.wait()[0]


@pytest.mark.parametrize(
    ("status", "told"),
    [(403, "may not list the run's pods in namespace kubeflow: 403"), (0, "the cluster gives no reason")],
)
def test_a_step_that_waits_is_told_without_a_reason(server, started, pods, status, told):
    pods.refuse = status
    server.looks = [run("RUNNING", *step("sft", "PENDING"))] * 3 + [run("SUCCEEDED")]
    shown, _ = started.wait()
    assert shown.count("sft: pending for ") == 1 and told in shown


def test_a_step_that_waits_is_told_without_a_cluster(server, started, monkeypatch):
    monkeypatch.setattr(run_progress, "PENDING_SECONDS", 0.0)
    server.looks = [run("RUNNING", *step("sft", "PENDING"))] * 2 + [run("SUCCEEDED")]
    assert "sft: pending for 0 s: the cluster was not asked: no cluster: set KUBECONFIG" in started.wait()[0]


def test_a_step_that_has_waited_for_less_than_a_minute_is_not_told(server, started):
    server.looks = [run("RUNNING", *step("sft", "PENDING"))] * 3 + [run("SUCCEEDED")]
    assert "pending" not in started.wait()[0]


def heed_interrupts():
    """What runs in the background of a shell ignores SIGINT, and so do its children, these tests' among them."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def interrupted_submit(server, *options):
    """A real `conf-profile submit`, with Ctrl-C as soon as it shows a first step; its status, what it said, the run."""
    server.looks = [run("RUNNING", *step("features", "SUCCEEDED"), *step("sft", "RUNNING"))]
    command = [sys.executable, "-m", "conf_profile", "submit", "--endpoint", server.url, "--users=30", *options]
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, preexec_fn=heed_interrupts
    )
    for line in process.stderr:
        if "features" in line:
            break
    process.send_signal(signal.SIGINT)
    said = process.communicate(timeout=120)[1]
    return process.returncode, said, server.kept["runs"][0]["run_id"]


def test_ctrl_c_leaves_the_run_alone(server):
    status, said, run_id = interrupted_submit(server)
    assert status == 130
    assert f"run {run_id} goes on" in said and "Traceback" not in said
    assert f"conf-profile runs show {run_id} --endpoint {server.url}" in said
    assert f"conf-profile runs stop {run_id} --endpoint {server.url}" in said
    assert not [path for _, path in server.calls if path.endswith(":terminate")]


def test_ctrl_c_stops_the_run_where_that_was_asked_for(server):
    status, said, run_id = interrupted_submit(server, "--cancel-on-interrupt")
    assert status == 130 and f"KFP is stopping run {run_id}" in said
    assert ("POST", f"/runs/{run_id}:terminate") in server.calls


@pytest.mark.parametrize(("status", "passes"), [(429, True), (502, True), (503, True), (504, True), (403, False)])
def test_what_stands_before_a_restarting_api_server_says_nothing_of_the_run(status, passes):
    with pytest.raises(PipelineError) as caught, explain_errors("http://kfp", "look at the run"):
        raise kfp_server_api.ApiException(status=status, reason="a proxy's")
    assert isinstance(caught.value, BackendUnreachableError) is passes
