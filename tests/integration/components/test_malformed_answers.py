"""What a step does with answers that are malformed, or only look so: a real server, the step's own files."""

import json

import pytest

from components.labelling import step as labelling
from components.synthesis import step as synthesis
from components.synthesis.inspection import FIRST_ANSWERS
from conf_profile import tables
from conf_profile.config import LabellingConfig, PromptConfig, TeacherConfig
from conf_profile.dialogue import task as tasks
from conf_profile.dialogue.reasons import AnswerForm
from conf_profile.errors import MalformedAnswersError, TeacherError
from support.teacher_server import GOOD_TEXT, Reply, completion, serve

USERS, SAMPLES = 33, 9
ANSWERS = USERS * SAMPLES
FENCED = f"Here is the profile:\n```xml\n{GOOD_TEXT}\n```"
OUTSIDE = GOOD_TEXT.replace("female", "woman")
SECRET = "what user 7 has watched"


@pytest.fixture
def server():
    with serve() as running:
        yield running


@pytest.fixture
def folder(tmp_path):
    rows = [
        {"user_id": f"u{n:02d}", "split": "train", "watch": [f"phrase {n}"], "search": [], "submit": []}
        for n in range(USERS)
    ]
    tables.write(tmp_path / "features.parquet", tables.from_rows(rows, tables.FEATURES), tables.FEATURES)
    tasks.parse({"attributes": {"gender": ["female", "male"]}}).save(tmp_path / "task.yaml")
    return tmp_path


def ask(server, folder, **config):
    settings = {"kind": "openai", "model": "m", "base_url": server.url, "samples": SAMPLES, "shards": 1}
    return synthesis.run(
        folder / "features.parquet",
        folder / "task.yaml",
        None,
        folder / "candidates.parquet",
        TeacherConfig(**{**settings, "concurrency": 16, **config}),
        PromptConfig(),
        seed=0,
        shard=0,
        answers_folder=folder / "answers",
    )


def label(folder):
    labelling.run(
        candidates=[folder / "candidates.parquet"],
        task_file=folder / "task.yaml",
        features=None,
        pseudo_labels=folder / "pseudo_labels.parquet",
        calibration=folder / "calibration.json",
        report=folder / "report.json",
        config=LabellingConfig(),
        samples=SAMPLES,
    )
    return json.loads((folder / "report.json").read_text(encoding="utf-8"))


def test_four_of_five_answers_in_code_fences_are_read_and_counted(server, folder):
    server.behave = lambda number, call: completion(GOOD_TEXT if number % 5 == 0 else FENCED)
    assert ask(server, folder) == {"users": USERS, "asked": ANSWERS, "kept_before": 0, "malformed": 0}
    report = label(folder)
    assert report["malformed_share"] == 0
    assert report["answers"] == {"forms": {AnswerForm.OTHER_FORM: ANSWERS - 60, AnswerForm.EXACT: 60}, "reasons": {}}


@pytest.mark.parametrize("every", [1, 5], ids=["all", "four of five"])
def test_malformed_answers_end_the_step_before_the_others_are_paid_for(server, folder, every, capfd, caplog):
    def behave(number, call):
        return completion(GOOD_TEXT if every > 1 and number % every == 0 else f"{OUTSIDE} ({SECRET})")

    server.behave = behave
    malformed = FIRST_ANSWERS - (FIRST_ANSWERS // every if every > 1 else 0)
    told = f"{malformed} of the first {FIRST_ANSWERS} answers .*{malformed} a tag outside the task.*task.yaml"
    with pytest.raises(MalformedAnswersError, match=told) as error:
        ask(server, folder)
    assert len(server.calls) == FIRST_ANSWERS
    assert not (folder / "candidates.parquet").exists()
    output = capfd.readouterr()
    assert SECRET not in str(error.value) + output.out + output.err + caplog.text

    # Another try pays for nothing: the same answers are looked at again.
    with pytest.raises(MalformedAnswersError, match=told):
        ask(server, folder)
    assert len(server.calls) == FIRST_ANSWERS


def test_whoever_allows_malformed_answers_gets_the_others_and_pays_for_no_answer_twice(server, folder):
    server.behave = lambda number, call: completion(OUTSIDE if number % 5 else GOOD_TEXT)
    with pytest.raises(MalformedAnswersError):
        ask(server, folder)
    counts = ask(server, folder, malformed_limit=1.0)
    assert (counts["asked"], counts["kept_before"]) == (ANSWERS - FIRST_ANSWERS, FIRST_ANSWERS)
    assert len(server.calls) == ANSWERS
    assert label(folder)["answers"]["reasons"] == {AnswerForm.OTHER_TAG: counts["malformed"]}


def test_answers_that_an_earlier_release_could_not_read_are_read_from_what_is_kept(server, folder):
    server.behave = lambda number, call: completion(FENCED)
    ask(server, folder)
    (folder / "candidates.parquet").unlink()
    calls = len(server.calls)
    assert ask(server, folder) == {"users": USERS, "asked": 0, "kept_before": ANSWERS, "malformed": 0}
    assert len(server.calls) == calls


def test_a_failure_says_what_is_left_of_the_shard(server, folder):
    """Also in the middle of the first answers, which are asked for by themselves."""
    quota = Reply(429, json.dumps({"error": {"code": "insufficient_quota", "message": "pay"}}).encode())
    server.behave = lambda number, call: completion(GOOD_TEXT) if number < 10 else quota
    with pytest.raises(
        TeacherError, match=r"quota is used up.*of this shard's 297 answers are left to ask for"
    ) as told:
        ask(server, folder, concurrency=1, samples_per_request=1)
    assert f"({ANSWERS - 10} of this" in str(told.value)


def test_an_endpoint_that_copies_one_answer_is_told_once(server, folder, caplog):
    def behave(number, call):
        choice = json.loads(completion(GOOD_TEXT).body)["choices"][0]
        return Reply(body=json.dumps({"choices": [choice] * call.body.get("n", 1)}).encode())

    server.behave = behave
    ask(server, folder)
    (told,) = [record for record in caplog.records if "whether the endpoint copies one answer" in record.getMessage()]
    assert "each of the first 10 requests" in told.getMessage()
