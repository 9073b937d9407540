"""`conf-profile try`: one prompt, one answer, as it is read, before any run. A real server answers."""

import pytest
from click.testing import CliRunner

from conf_profile.cli.main import cli
from support.own_tables import forms, snapshots, user_ids, write_own_tables
from support.teacher_server import completion, error, serve

USERS = user_ids(60)
ANSWER = (
    "Sure!\n<Age>25+<level>4/5</level></Age><gender>Unknown<level>1</level></gender>"
    "<rationale>rose pruning; book 1</rationale>"
)


@pytest.fixture
def server():
    with serve() as running:
        yield running


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    users = [*forms(USERS), *forms(["refuses"], consent=False), *forms(["silent"])]
    write_own_tables(tmp_path / "my_tables", snapshots([*USERS, "refuses"]), users)
    return tmp_path


def call(server, *arguments):
    teacher = [f"teacher.base_url={server.url}", "teacher.model=m", "teacher.kind=openai"]
    options = [part for setting in teacher for part in ("--set", setting)]
    return CliRunner().invoke(cli, ["try", "--dataset", "parquet", "--data", "my_tables", *options, *arguments])


def test_the_prompt_the_answer_and_what_is_read_are_shown_and_nothing_is_written(server, place):
    server.behave = lambda number, call: completion(ANSWER)
    before = sorted(place.rglob("*"))
    result = call(server, "--user", "u0003", "--set", "teacher.price=2")
    assert result.exit_code == 0, result.output
    (asked,) = server.calls
    assert "the teacher's prompt for user u0003:" in result.output
    assert all(f"  {line}" in result.output for line in asked.user_text.splitlines())
    assert "the teacher's answer, well-formed: in another form, read\n  | Sure!\n  | <Age>25+" in result.output
    assert "read as:\n  gender  unknown, level 1\n  age     25+, level 4\n" in result.output
    assert "  its evidence: rose pruning; book 1\n" in result.output
    assert " of answer, cost about 0.000" in result.output
    assert sorted(place.rglob("*")) == before


def test_a_malformed_answer_has_its_reason_and_what_to_change(server, place):
    server.behave = lambda number, call: completion(ANSWER.replace("25+", "old\x1b[2J"))
    result = call(server)
    assert result.exit_code == 2
    assert "the teacher's answer, malformed: a tag outside the task\n" in result.output
    assert "what to change: describe the tags in task.yaml" in result.output
    assert "\x1b" not in result.output and "read as" not in result.output
    assert len(server.calls) == 1


def test_a_user_without_events_can_be_asked_about(server, place):
    server.behave = lambda number, call: completion(ANSWER)
    result = call(server, "--user", "silent")
    assert result.exit_code == 0
    assert server.calls[0].user_text == "library branch: north"


@pytest.mark.parametrize(
    ("user", "problem"), [("nobody", "has no user 'nobody'"), ("refuses", "user 'refuses' has given no consent")]
)
def test_nobody_is_asked_about_who_is_unknown_or_has_not_consented(server, place, user, problem):
    result = call(server, "--user", user)
    assert problem in str(result.exception)
    assert not server.calls


def test_a_teacher_that_refuses_is_told_as_in_a_run(server, place):
    server.script(error(401))
    result = call(server)
    assert "OPENAI_API_KEY" in str(result.exception)
    assert "the teacher's prompt for user" in result.output


def test_the_teacher_of_this_machine_needs_no_server(place):
    result = CliRunner().invoke(cli, ["try", "--dataset", "parquet", "--data", "my_tables"])
    assert "the teacher's answer, " in result.output
