"""A whole run whose teacher is not understood: it ends early, says on the terminal what to change, and goes on then."""

import subprocess
import sys

import pytest

from components.synthesis.inspection import FIRST_ANSWERS
from support.own_tables import forms, snapshots, user_ids, write_own_tables
from support.running import environment
from support.teacher_server import completion, serve

pytestmark = pytest.mark.slow
USERS = user_ids(120)
FENCED = "```json\n" + '{"gender": {"tag": "female", "level": 4}, "age": {"tag": "25+", "level": 2}}' + "\n```"


def run(place, server, *settings):
    teacher = ["teacher.kind=openai", "teacher.model=m", "teacher.shards=1", "teacher.samples=3", "teacher.price=1"]
    values = [*teacher, f"teacher.base_url={server.url}", *settings]
    options = ["--dataset", "parquet", "--data", "my_tables", "--out", "run", "--until", "labelling"]
    command = [sys.executable, "-m", "conf_profile", "run", *options, *(f"--set={value}" for value in values)]
    return subprocess.run(command, cwd=place, env=environment(), capture_output=True, text=True, timeout=300)


def test_a_run_stops_before_the_money_is_spent_and_shows_two_answers_to_its_user_alone(tmp_path):
    write_own_tables(tmp_path / "my_tables", snapshots(USERS), forms(USERS))
    with serve() as server:
        server.behave = lambda number, call: completion(f"{call.user_text}: surely a woman ({number})")
        stopped = run(tmp_path, server)
        assert (stopped.returncode, len(server.calls)) == (2, FIRST_ANSWERS), stopped.stderr
        log = (tmp_path / "run" / "run.log").read_text(encoding="utf-8")
        server.behave = lambda number, call: completion(FENCED)
        finished = run(tmp_path, server, "teacher.temperature=0.5")
        asked = len(server.calls) - FIRST_ANSWERS

    said = stopped.stderr
    assert said.count("the teacher's answer, malformed: neither elements nor JSON\n  | borrowed: rose pruning") == 2
    assert f"step 'synthesis' failed: {FIRST_ANSWERS} of the first {FIRST_ANSWERS} answers" in said
    assert "conf-profile try" in said
    assert "synthesis 1 0/" in log and "surely a woman" not in log and "rose pruning" not in log

    assert finished.returncode == 0, finished.stderr
    assert f"synthesis 1 {asked}/{asked} answers, 100.0% of {asked} new ones well-formed, cost about" in finished.stderr
    assert f"Teacher: {asked} answers, 100.0% well-formed\n" in finished.stdout
