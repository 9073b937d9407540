"""`conf-profile serve` with real vLLM on the model and the people of a small run: answers, a change of champion under
load, a predictor that dies, and nothing left behind."""

import json
import os
import signal
import threading
from pathlib import Path

import httpx
import numpy as np
import psutil
import pytest

from conf_profile import tables
from conf_profile.config import StorageConfig
from conf_profile.consensus import confidence
from conf_profile.errors import RolloutError
from conf_profile.registry import registry
from conf_profile.rollout import rollout, smoke
from conf_profile.storage.local_s3 import local_s3
from conf_profile.students import examples, folder
from support.local_serving import Serving, alive
from support.s3 import wait_until

pytestmark = pytest.mark.slow


def publish(run, student, thresholds):
    """A new champion: the same weights with thresholds of its own, so another version."""
    with local_s3(run / "s3") as access:
        target = registry.connect(StorageConfig(), access)
        version = target.publish(student, generated={"thresholds.json": json.dumps(thresholds).encode()})
        target.promote(version.name, {})
        return version.name


@pytest.fixture(scope="module")
def run(killed_then_finished):
    return killed_then_finished[0]


@pytest.fixture(scope="module")
def student(run):
    return Path(json.loads((run / "workspace" / "outputs.json").read_text())["student"])


@pytest.fixture(scope="module")
def serving(run, student):
    publish(run, student, {"age": 1})
    running = Serving(run, f"--run={run}", "--poll=0.5")
    yield running
    if running.process.poll() is None:
        running.stop()


@pytest.fixture(scope="module")
def people(run):
    outputs = json.loads((run / "workspace" / "outputs.json").read_text())
    return examples.users(tables.read_features(Path(outputs["features"])), ["test"])[:30]


def test_the_profile_is_what_the_pipeline_would_say(serving, student, people):
    """The same prompt, the same weights, the same partition: vLLM's arithmetic alone differs."""
    loaded = folder.load(student, "float32")
    expected, partition = loaded.answer(people, 32), folder.load_calibration(student)
    found = serving.ask(*({"user_id": person.user_id} for person in people)).json()["predictions"]
    assert [prediction["user_id"] for prediction in found] == [person.user_id for person in people]
    cells = [
        (expected.tags[row][column], expected.scores[row, column], name, prediction["profile"][name])
        for row, prediction in enumerate(found)
        for column, name in enumerate(loaded.task.names)
        if any(tag is not None for tag in expected.tags[row])  # the grammar mends what was malformed
    ]
    assert len(cells) > 30
    same = [tag == shown["tag"] for tag, _, _, shown in cells if shown["accepted"]]
    assert np.mean(same) > 0.95
    for tag, score, name, shown in cells:
        if tag is not None and tag == shown["tag"]:
            assert shown["score"] == pytest.approx(score, abs=0.02)
            assert abs(shown["level"] - confidence.apply(partition, name, np.array([score]))[0]) <= 1


def test_smoke_profiles_are_answered_as_at_the_evaluation(serving, run):
    """What a rollout asks for: the run's own smoke profiles, of the run's own model, on vLLM."""
    measured = json.loads((run / "evaluation.json").read_text())["smoke"]
    profiles = smoke.parse(json.dumps(measured).encode(), "evaluation.json")
    assert profiles, "the few users of this run share no keyphrase"
    where, version = rollout.Serving("here", url=serving.state["url"]), serving.state["version"]
    rollout.check_answers(where, version, profiles)
    liar = [
        smoke.SmokeProfile(one.features, dict.fromkeys(one.answers, smoke.ExpectedAnswer("?", 1))) for one in profiles
    ]
    with pytest.raises(RolloutError, match="are not those of the evaluation"):
        rollout.check_answers(where, version, liar)


def test_the_prompt_reaches_vllm_as_training_wrote_it(serving, student, people):
    loaded = folder.load(student, "float32")
    for person in people[:5]:
        messages = list(examples.student_messages(person, loaded.task, loaded.prompt))
        body = {"model": "conf-profile", "messages": messages, "chat_template_kwargs": {"enable_thinking": False}}
        seen = httpx.post(f"{serving.state['predictor']}/tokenize", json=body, timeout=60).json()["tokens"]
        assert seen == loaded.tokenizer(loaded.prompts([person])[0], add_special_tokens=False)["input_ids"]


def test_nobody_without_consent_gets_a_prompt(serving, run):
    arguments = json.loads((run / "workspace" / "arguments.json").read_text())
    sign_ups = tables.read(Path(arguments["demographics_uri"]), tables.DEMOGRAPHICS).to_pylist()
    refused = next(row["user_id"] for row in sign_ups if not row["consent"])
    before = serving.prompts_seen()
    found = serving.ask({"user_id": refused}, {"user_id": "nobody"}, {"user_id": "x", "features": {"watch": ["a"]}})
    reasons = [{a["reason"] for a in p["profile"].values()} for p in found.json()["predictions"]]
    assert reasons == [{"no consent"}, {"unknown user"}, {"no consent"}]
    assert serving.prompts_seen() == before


def test_thresholds_of_a_request_and_several_samples(serving, people):
    user = {"user_id": people[0].user_id}
    strict = serving.ask(user, thresholds=dict.fromkeys(("age", "gender"), 5)).json()["predictions"][0]["profile"]
    for name in ("age", "gender"):
        assert strict[name]["accepted"] is (strict[name].get("level") == 5)
        assert strict[name]["accepted"] or strict[name]["tag"] is None
    voted = serving.ask(user, samples=4, explain=True).json()["predictions"][0]
    assert "rationale" in voted and len(voted["profile"]) == 6


def test_a_request_that_breaks_the_api_is_a_400_that_says_where(serving):
    assert serving.ask().status_code == 400
    answer = serving.ask({"user_id": "u"}, thresholds={"height": 2})
    assert answer.status_code == 400 and "no attribute 'height'" in answer.text


def test_metrics_count_what_was_answered_and_no_user(serving, people):
    serving.ask({"user_id": people[0].user_id})
    text = httpx.get(f"{serving.state['url']}/metrics").text
    assert 'conf_profile_stage_seconds_count{stage="predictor"}' in text
    assert 'outcome="no_consent"' in text
    assert people[0].user_id not in text


def test_a_new_champion_takes_over_and_no_request_is_lost(serving, run, student, people):
    answers, over = [], threading.Event()

    def keep_asking():
        while not over.is_set():
            answers.append(serving.ask({"user_id": people[len(answers) % len(people)].user_id}))
            # Load, not a flood: two vLLMs share these cores while the second one starts.
            over.wait(0.2)

    thread = threading.Thread(target=keep_asking)
    thread.start()
    old = serving.state
    version = publish(run, student, {"age": 2})
    try:
        serving.state = serving.next_line()
    finally:
        over.set()
        thread.join()
    assert {answer.status_code for answer in answers} == {200}
    versions = [answer.json()["predictions"][0]["model_version"] for answer in answers]
    assert versions == sorted(versions, key=[old["version"], version].index)
    assert (versions[0], serving.state["version"]) == (old["version"], version)
    assert serving.ask({"user_id": people[0].user_id}).json()["predictions"][0]["model_version"] == version
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{old['predictor']}/health")
    serving.family = psutil.Process(serving.process.pid).children(recursive=True)


def test_a_predictor_that_dies_is_a_503_and_the_end_of_the_server(serving, people):
    port = int(serving.state["predictor"].rsplit(":", 1)[1])
    predictor, _guard = (
        child.pid for child in reversed(serving.family) if f"--port {port}" in " ".join(command_line(child))
    )
    os.kill(predictor, signal.SIGKILL)
    answer = serving.ask({"user_id": people[0].user_id})
    assert answer.status_code in (502, 503)
    assert serving.process.wait(60) == 2
    assert "the predictor ended with status" in Path(serving.log.name).read_text()
    wait_until(lambda: not any(alive(child) for child in serving.family), "the children to end")


def command_line(child):
    return child.cmdline() if alive(child) else []
