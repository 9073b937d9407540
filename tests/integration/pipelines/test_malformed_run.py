"""A whole run whose teacher does not answer in any form: it ends early, and says on the terminal what to change."""

import subprocess
import sys

from components.synthesis.inspection import FIRST_ANSWERS
from support.own_tables import forms, snapshots, user_ids, write_own_tables
from support.running import environment
from support.teacher_server import completion, serve

USERS = user_ids(120)


def test_a_run_stops_before_the_money_is_spent_and_shows_two_answers_to_its_user_alone(tmp_path):
    write_own_tables(tmp_path / "my_tables", snapshots(USERS), forms(USERS))
    teacher = ["teacher.kind=openai", "teacher.model=m", "teacher.shards=1", "teacher.samples=3"]
    with serve() as server:
        server.behave = lambda number, call: completion(f"{call.user_text}: surely a woman ({number})")
        settings = [part for value in (*teacher, f"teacher.base_url={server.url}") for part in ("--set", value)]
        options = ["--dataset", "parquet", "--data", "my_tables", "--out", "run", "--until", "labelling"]
        result = subprocess.run(
            [sys.executable, "-m", "conf_profile", "run", *options, *settings],
            cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=300,
        )  # fmt: skip
    assert result.returncode == 2
    assert len(server.calls) == FIRST_ANSWERS
    assert result.stderr.count("the teacher's answer, malformed: neither elements nor JSON\n  | borrowed: rose") == 2
    assert f"step 'synthesis' failed: {FIRST_ANSWERS} of the first {FIRST_ANSWERS} answers" in result.stderr
    assert "conf-profile try" in result.stderr
    log = (tmp_path / "run" / "run.log").read_text(encoding="utf-8")
    assert "surely a woman" not in log and "rose pruning" not in log
