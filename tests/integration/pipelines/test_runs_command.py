"""`conf-profile runs list | show | stop` against a server that speaks KFP's API."""

import json

import pytest
from click.testing import CliRunner

from conf_profile.cli.main import cli
from conf_profile.errors import RunNotFoundError
from pipelines.cluster import kfp_backend
from support.kfp_server import cached, run, serve, step

REASON = "ValueError: no user is left"
FAILURE = f"it began\nTraceback (most recent call last):\n{REASON}\nlauncher: exit status 1\n"


@pytest.fixture(autouse=True)
def environment(monkeypatch, tmp_path):
    """Neither a token nor a cluster nor an object store is known here."""
    for name in (kfp_backend.TOKEN, kfp_backend.TOKEN_FILE, "KFP_ENDPOINT", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "no-kubeconfig"))
    monkeypatch.setenv("HOME", str(tmp_path))


@pytest.fixture
def server():
    with serve() as found:
        yield found


@pytest.fixture
def run_id(server):
    return server.start_run("a run")


def command(server, *arguments):
    return CliRunner().invoke(cli, [*arguments, "--endpoint", server.url], catch_exceptions=True)


def test_runs_are_listed_the_newest_first(server, run_id):
    later = [server.start_run(f"run {number}") for number in range(4)]
    server.start_run("of others", "another")
    listed = json.loads(command(server, "runs", "list", "--json").stdout)
    assert [each["run_id"] for each in listed] == [*reversed(later), run_id]
    assert listed[0]["state"] == "PENDING" and listed[0]["link"] == f"{server.url}/#/runs/details/{later[-1]}"
    lines = command(server, "runs", "list", "--limit", "1").stdout.splitlines()
    assert len(lines) == 1 and lines[0].startswith(f"{later[-1]}  PENDING") and lines[0].endswith("run 3")
    assert "'nothing' has no run" in command(server, "runs", "list", "--experiment", "nothing").stdout


def test_a_run_is_shown(server, run_id):
    server.looks = [run("FAILED", *cached("features"), *step("sft", "FAILED"))]
    server.node_logs = {"sft-pod": FAILURE}
    shown = json.loads(command(server, "runs", "show", run_id, "--json").stdout)
    assert (shown["state"], shown["reason"]) == ("FAILED", f"step 'sft' failed: {REASON}")
    assert shown["steps"] == [
        {"name": "features", "state": "CACHED", "seconds": 7.0},
        {"name": "sft", "state": "FAILED", "seconds": 7.0},
    ]
    assert shown["failures"][0]["log"]["last_lines"][-2] == REASON
    text = command(server, "runs", "show", run_id).stdout
    assert f"step 'sft' failed: {REASON}" in text and shown["link"] in text


def test_a_log_is_shown(server, run_id):
    server.looks = [run("RUNNING", *step("sft", "SUCCEEDED"), *step("grpo", "RUNNING"))]
    server.node_logs = {"sft-pod": "epoch 1\nepoch 2\n"}
    assert command(server, "runs", "show", run_id, "--logs", "sft").stdout == "epoch 1\nepoch 2\n"
    assert "log of grpo could not be read" in str(command(server, "runs", "show", run_id, "--logs", "grpo").exception)
    unknown = command(server, "runs", "show", run_id, "--logs", "nothing").exception
    assert "has no step 'nothing' so far; it has grpo, sft" in str(unknown)


@pytest.mark.parametrize("verb", ["show", "stop"])
def test_a_run_that_is_not_there_is_a_clear_error(server, verb):
    error = command(server, "runs", verb, "no-such-run").exception
    assert isinstance(error, RunNotFoundError) and "there is no run no-such-run" in str(error)


def test_a_run_is_stopped(server, run_id):
    server.looks = [run("RUNNING")]
    assert f"KFP is stopping run {run_id}" in command(server, "runs", "stop", run_id).stdout
    server.looks = []
    assert json.loads(command(server, "runs", "show", run_id, "--json").stdout)["state"] == "CANCELING"
    assert "has ended already (CANCELED)" in command(server, "runs", "stop", run_id).stdout
