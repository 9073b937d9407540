"""Recurring runs on KFP, through its API: what is under way is never lost, and nothing starts beside it.

The server deletes as KFP does: with a recurring run goes the workflow of its run, which is RUNNING for ever after.
"""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner

from conf_profile.cli.main import cli
from conf_profile.config import resolve
from conf_profile.errors import BackendUnreachableError, PipelineError
from pipelines import resources
from pipelines.cluster import kfp_backend, schedules
from pipelines.cluster.kfp_backend import RunSettings, Version
from pipelines.cluster.submit import Submission
from support.kfp_server import run, serve, step

EVERY, LATER = "0 3 * * 0", "30 4 * * *"
SETTINGS = RunSettings("conf-profile", "runner")
ARGUMENTS = {"seed": 0, "samples": 2.0, "shards": [0, 1]}


@pytest.fixture
def server(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in (kfp_backend.TOKEN, kfp_backend.TOKEN_FILE, "KUBECONFIG"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(schedules, "SECONDS_BETWEEN_LOOKS", 0.01)
    # What is uploaded is not what these tests are about.
    monkeypatch.setattr(schedules, "upload_pipeline", lambda backend, submission, run: Version("p", "v", False))
    with serve() as found:
        found.looks = []
        yield found


@pytest.fixture
def backend(server):
    return kfp_backend.connect(server.url, None)


def make(backend, every=EVERY, now=False, declared=None):
    submission = Submission(resolve("tiny"), declared or resources.load(), "", Path("runs"), "s3://b/tables", every)
    return schedules.schedule(backend, submission, ARGUMENTS, SETTINGS, now)


def end(backend, now=False):
    return schedules.end(backend, "conf-profile", "conf-profile/conf-profile world tiny", now)


def states(server):
    return {each["recurring_run_id"]: each["status"] for each in server.kept["recurringRuns"]}


def test_an_idle_schedule_is_disabled_and_deleted_by_the_next_call(server, backend):
    made = make(backend).made
    ended = end(backend)
    assert states(server) == {made: "DISABLED"}
    assert ended.lines[0] == "recurring runs 'conf-profile/conf-profile world tiny': 1 ended"
    assert f"the next call deletes recurring run {made}" in ended.lines
    again = end(backend)
    assert states(server) == {} and f"deleted recurring run {made}" in again.lines
    assert again.lines[0].endswith(": 0 ended")


def test_a_run_under_way_outlives_the_end_of_its_schedule(server, backend):
    made = make(backend).made
    run_id = server.trigger(made)
    for _ in range(2):
        ended = end(backend)
        assert states(server) == {made: "DISABLED"}
        assert any(line.startswith(f"run {run_id} of recurring run {made} goes on") for line in ended.lines)
    server.end_run(run_id)
    assert backend.get_run(run_id).state == "SUCCEEDED"
    end(backend)
    assert states(server) == {} and server.lost == set()


def test_now_stops_the_run_before_its_recurring_run_goes(server, backend):
    made = make(backend).made
    run_id = server.trigger(made)
    ended = end(backend, now=True)
    assert states(server) == {} and server.lost == set()
    assert backend.get_run(run_id).state == "CANCELED"
    assert [f"stopped run {run_id}", f"deleted recurring run {made}"] == list(ended.lines[-2:])


def test_a_run_that_does_not_stop_in_time_keeps_its_recurring_run(server, backend, monkeypatch):
    monkeypatch.setattr(schedules, "STOP_SECONDS", 0.0)
    made = make(backend).made
    run_id = server.trigger(made)
    server.lost.add(run_id)  # Nobody tells KFP of its end.
    ended = end(backend, now=True)
    assert states(server) == {made: "DISABLED"} and "goes on" in ended.lines[-1]


def test_a_replaced_schedule_is_disabled_and_the_new_one_is_made(server, backend):
    first = make(backend).made
    change = make(backend, LATER)
    assert states(server) == {first: "DISABLED", change.made: "ENABLED"}
    assert server.kept["recurringRuns"][1]["trigger"]["cron_schedule"] == {"cron": f"0 {LATER}"}
    third = make(backend, "@daily").made
    assert states(server) == {change.made: "DISABLED", third: "ENABLED"}


def test_a_new_schedule_starts_no_run_beside_one_under_way(server, backend):
    first = make(backend).made
    run_id = server.trigger(first)
    declared = resources.load()
    change = make(backend, LATER, declared=declared)
    assert states(server) == {first: "DISABLED", change.made: "ENABLED"}
    begun = datetime.fromisoformat(server.kept["runs"][0]["created_at"])
    start = datetime.fromisoformat(server.kept["recurringRuns"][1]["trigger"]["cron_schedule"]["start_time"])
    shards = resolve("tiny").teacher.shards
    assert start - begun == timedelta(seconds=schedules.longest_seconds(declared, shards))
    assert "starts none before" in change.lines[-1]
    # The same call changes nothing while the run goes on, and takes the delay off when it has ended.
    assert make(backend, LATER).made == change.made
    server.end_run(run_id)
    last = make(backend, LATER).made
    assert states(server) == {change.made: "DISABLED", last: "ENABLED"}
    assert server.kept["recurringRuns"][-1]["trigger"]["cron_schedule"] == {"cron": f"0 {LATER}"}


def test_steps_that_have_ended_do_not_put_the_new_schedule_off(server, backend):
    server.trigger(make(backend).made)
    nodes = [*step("features", "SUCCEEDED"), *step("synthesis", "SUCCEEDED"), *step("labelling", "SUCCEEDED")]
    server.looks = [run("RUNNING", *nodes, *step("sft", "RUNNING"))]
    before = datetime.now(UTC)
    make(backend, LATER)
    after = datetime.now(UTC)
    start = datetime.fromisoformat(server.kept["recurringRuns"][1]["trigger"]["cron_schedule"]["start_time"])
    left = schedules.longest_seconds(resources.load(), 1, {"features", "synthesis", "labelling"})
    assert before <= start - timedelta(seconds=left) <= after
    assert left < schedules.longest_seconds(resources.load(), 1) - 72 * 3600


def test_a_new_schedule_with_now_stops_the_run_and_begins_at_once(server, backend):
    first = make(backend).made
    run_id = server.trigger(first)
    change = make(backend, LATER, now=True)
    assert states(server) == {change.made: "ENABLED"} and server.lost == set()
    assert backend.get_run(run_id).state == "CANCELED"
    assert "start_time" not in server.kept["recurringRuns"][0]["trigger"]["cron_schedule"]


def test_the_same_schedule_stays_and_its_run_too(server, backend):
    made = make(backend).made
    run_id = server.trigger(made)
    assert make(backend).made == made
    assert states(server) == {made: "ENABLED"} and backend.get_run(run_id).state == "RUNNING"


def test_a_new_schedule_that_cannot_be_made_leaves_the_one_before(server, backend, monkeypatch):
    first = make(backend).made

    def refuse(self, *arguments):
        raise PipelineError("no")

    monkeypatch.setattr(kfp_backend.Backend, "create_recurring_run", refuse)
    with pytest.raises(PipelineError):
        make(backend, LATER)
    assert states(server) == {first: "ENABLED"}


def test_a_run_whose_recurring_run_was_deleted_is_said_to_be_lost(server, backend):
    made = make(backend).made
    run_id = server.trigger(made)
    backend.delete_recurring_run(made)
    result = CliRunner().invoke(cli, ["runs", "show", run_id, "--endpoint", server.url, "--json"])
    shown = json.loads(result.stdout)
    assert shown["state"] == "RUNNING" and "nothing of it runs any more" in shown["notes"][-1]


def test_the_longest_run_counts_every_try_of_every_step():
    steps = {
        name: {"timeoutSeconds": 100, "retries": {"count": 1, "backoffSeconds": 10}} for name in ("sft", "synthesis")
    }
    changed = resources.Resources.model_validate(laid_over(resources.load().values(), steps))
    default = resources.load()
    before = sum(default.pipelines.steps[name].retry_seconds for name in steps)
    # Five shards, four at once: the synthesis has two rounds.
    expected = schedules.longest_seconds(default, 1) - before + (100 + 10 + 100) * 3
    assert schedules.longest_seconds(changed, 5) == expected


def laid_over(values, steps):
    for name, keys in steps.items():
        values["pipelines"]["steps"][name] |= keys
    return values


def test_a_schedule_that_cannot_be_replaced_stays(server, backend, monkeypatch):
    """Whatever fails between its end and the new one's beginning, here the look for what is under way."""
    made = make(backend).made

    def fail(*_):
        raise BackendUnreachableError("503")

    monkeypatch.setattr(type(backend), "list_running", fail)
    with pytest.raises(BackendUnreachableError):
        make(backend, LATER)
    assert states(server) == {made: "ENABLED"}
