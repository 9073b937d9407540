"""The check with real stores, and a run that begins: a champion's task, relative paths, a rejected candidate."""

import json
import subprocess
import sys

import pytest
import yaml

from conf_profile.registry.registry import connect
from conf_profile.storage.local_s3 import local_s3
from support.own_tables import TASK, forms, labels, snapshots, user_ids, write_own_tables
from support.running import environment
from support.s3 import model_folder, storage

USERS = user_ids(600)


def call(place, *arguments):
    command = [sys.executable, "-m", "conf_profile", *arguments]
    return subprocess.run(command, cwd=place, env=environment(), capture_output=True, text=True, timeout=300)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A working directory with somebody's tables, and a run's folder whose champion has another task."""
    place = tmp_path_factory.mktemp("place")
    write_own_tables(place / "my_tables", snapshots(USERS), forms(USERS), labels(USERS))
    other = TASK | {"attributes": TASK["attributes"] | {"gender": ["f", "m"]}}
    promote(place / "out", place / "other", other)
    promote(place / "alike", place / "same", TASK)
    return place


def promote(run, model, task):
    model_folder(model)
    (model / "task.yaml").write_text(yaml.safe_dump(task))
    with local_s3(run / "s3") as access:
        registry = connect(storage(access, "conf-profile"), access)
        registry.promote(registry.publish(model).name, {})


OWN = ("--dataset", "parquet", "--data", "my_tables")


@pytest.mark.parametrize("command", ["check", "run"])
def test_a_champion_with_another_task_stops_a_run_before_its_first_step(place, command):
    result = call(place, command, *OWN, "--out", "out")
    assert result.returncode == 2
    said = result.stdout + result.stderr
    assert "has another task" in said
    assert "gender has the tags female, male (before: f, m)" in said
    assert "give another folder with --out, or begin another model with --set storage.model=NAME" in said
    assert not (place / "out" / "workspace" / "arguments.json").exists()


def test_both_remedies_help(place):
    for remedy in (["--out", "another"], ["--out", "out", "--set", "storage.model=mine"]):
        assert call(place, "check", *OWN, *remedy).returncode == 0


def test_a_champion_with_the_same_task_is_told(place):
    result = call(place, "check", *OWN, "--out", "alike", "--json")
    champion = json.loads(result.stdout)["champion"]
    assert champion["version"]
    assert (champion["differences"], champion["missing_features"]) == ([], [])


def test_a_rejected_candidate_is_told_where_versions_are_listed(place):
    with local_s3(place / "rejected" / "s3") as access:
        connect(storage(access, "conf-profile"), access)
    gate = {"decision": "reject", "reasons": ["FAILED: F1 0.1 is below the floor", "passed: levels rise"]}
    (place / "rejected" / "summary.json").write_text(json.dumps({"gate": gate}))
    said = call(place, "models", "list", "--run", "rejected").stdout
    assert "run the pipeline" not in said
    assert "the candidate of the last run was rejected (rejected/report.html)" in said
    assert "FAILED: F1 0.1 is below the floor" in said
