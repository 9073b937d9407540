"""Serving without vLLM: the same routes, the same grammar, the same levels, on an untrained student."""

import json
import re
import subprocess
import sys

import httpx
import psutil
import pytest

from conf_profile.config import PromptConfig, StorageConfig, StudentConfig
from conf_profile.dialogue import task as tasks
from conf_profile.dialogue.prompts import UserFeatures
from conf_profile.registry import registry
from conf_profile.storage.local_s3 import local_s3
from conf_profile.students import examples, folder, model
from conf_profile.students.rollouts import rollouts
from conf_profile.students.rollouts.rollouts import expected_levels, generate
from serving.local import processes
from serving.model import levels
from serving.predictor import transformers_server
from serving.predictor.arguments import PredictorArguments
from serving.predictor.grammar_decoding import GrammarDecoder, Sampling
from support.running import environment, wait_until_ended

TAGS = tasks.parse({"attributes": {"gender": ["female", "male"]}})
BRIEF = PromptConfig(student_style="brief")
SMALL = StudentConfig(
    hidden_size=32, layers=1, heads=2, key_value_heads=1, max_prompt_tokens=128, max_completion_tokens=64
)
PEOPLE = [UserFeatures(f"u{number}", watch=[f"rose pruning {number}"]) for number in range(5)]
SHORT = "<rationale>[a-z]{0,2}</rationale><gender>(female|male|unknown)<level>[1-5]</level></gender>"
"""An untrained student would never end a rationale by itself."""


@pytest.fixture(scope="module")
def student(tmp_path_factory):
    prompts = [examples.student_messages(person, TAGS, BRIEF)[-1]["content"] for person in PEOPLE]
    network, pieces = model.build_base(SMALL, prompts, TAGS, seed=0)
    path = tmp_path_factory.mktemp("model") / "student"
    folder.save(network, pieces, TAGS, BRIEF, SMALL, PEOPLE, 4, path)
    return path


@pytest.fixture(scope="module")
def server(student, tmp_path_factory):
    given = PredictorArguments(port=processes.free_port())
    url = f"http://127.0.0.1:{given.port}"
    child = processes.start(
        "server", transformers_server.command(student, given), {}, tmp_path_factory.mktemp("log") / "log"
    )
    with httpx.Client(base_url=url, timeout=60) as client:

        def answers():
            try:
                return client.get("/health").status_code == 200
            except httpx.TransportError:
                return False

        try:
            child.wait_until(answers, 120)
            yield client
        finally:
            child.stop()


def body(**given):
    return {
        "model": "conf-profile",
        "messages": list(examples.student_messages(PEOPLE[0], TAGS, BRIEF)),
        "max_tokens": 64,
        "temperature": 0.0,
        "logprobs": True,
        "top_logprobs": levels.TOP_LOGPROBS,
        "structured_outputs": {"regex": SHORT},
        "chat_template_kwargs": {"enable_thinking": False},
        **given,
    }


def ask(server, **given):
    return server.post("/v1/chat/completions", json=body(**given))


def test_an_answer_keeps_to_the_grammar(server):
    (choice,) = ask(server).json()["choices"]
    text, content = choice["message"]["content"], choice["logprobs"]["content"]
    assert re.fullmatch(SHORT, text) and choice["finish_reason"] == "stop"
    assert "".join(token["token"] for token in content) == text
    for token in content:
        likeliest = [other["logprob"] for other in token["top_logprobs"]]
        assert len(likeliest) == levels.TOP_LOGPROBS and likeliest == sorted(likeliest, reverse=True)
        assert token["logprob"] <= likeliest[0]


def test_levels_are_those_of_training(student):
    loaded = folder.load(student, "float32")
    (prompt,) = loaded.prompts(PEOPLE[:1])
    ids = loaded.tokenizer(prompt, add_special_tokens=False)["input_ids"]
    # An untrained student finds other tokens as likely as digits: all of them are looked at.
    sampling = Sampling(max_tokens=64, top_logprobs=len(loaded.tokenizer), grammar=SHORT)
    (answer,) = GrammarDecoder(loaded.model, loaded.tokenizer).answer(ids, sampling)
    found = levels.expected_levels([transformers_server.to_content(token) for token in answer.tokens])
    (expected,) = expected_levels(loaded.model, loaded.tokenizer, [prompt], [answer.text], 1)
    assert found == pytest.approx(list(expected), abs=1e-3)


def test_without_a_grammar_the_answer_is_generates_own(student):
    loaded = folder.load(student, "float32")
    (prompt,) = loaded.prompts(PEOPLE[:1])
    ids = loaded.tokenizer(prompt, add_special_tokens=False)["input_ids"]
    (answer,) = GrammarDecoder(loaded.model, loaded.tokenizer).answer(ids, Sampling(max_tokens=20))
    ((expected,),) = generate(loaded.model, loaded.tokenizer, [prompt], rollouts.Sampling(0.0, 1, 1, 20, seed=0))
    assert answer.text == expected


def test_samples_differ_and_greedy_answers_do_not(server):
    sampled = ask(server, n=8, temperature=1.0).json()["choices"]
    assert [choice["index"] for choice in sampled] == list(range(8))
    texts = {choice["message"]["content"] for choice in sampled}
    assert len(texts) > 1 and all(re.fullmatch(SHORT, text) for text in texts)
    assert ask(server).json() == ask(server).json()


def test_what_does_not_fit_ends_where_max_tokens_says(server):
    (choice,) = ask(server, max_tokens=3).json()["choices"]
    assert choice["finish_reason"] == "length" and len(choice["logprobs"]["content"]) == 3


def test_a_request_that_cannot_be_answered_says_why(server):
    assert [model["id"] for model in server.get("/v1/models").json()["data"]] == ["conf-profile"]
    assert ask(server, model="other").status_code == 404
    too_long = ask(server, max_tokens=200)
    assert too_long.status_code == 400
    assert "maximum context length is 192 tokens" in too_long.json()["error"]["message"]
    for wrong in (
        {"structured_outputs": {"regex": "("}},
        {"n": 0},
        {"messages": "x"},
        {"temperature": "hot"},
        {"top_logprobs": 21},
    ):
        assert ask(server, **wrong).status_code == 400, wrong
    assert server.post("/v1/chat/completions", content=b"{").status_code == 400


def test_serve_answers_without_vllm_and_a_killed_one_leaves_nobody_behind(student, tmp_path):
    with local_s3(tmp_path / "s3") as access:
        target = registry.connect(StorageConfig(), access)
        version = target.publish(student)
        target.promote(version.name, {})
        command = [sys.executable, "-m", "conf_profile", "serve", "--port=0", "--engine=transformers"]
        process = subprocess.Popen(
            [*command, f"--work={tmp_path / 'work'}"], env=environment() | access.environment(), text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        try:
            state = json.loads(process.stdout.readline())
            family = psutil.Process(process.pid).children(recursive=True)
            instance = {"user_id": "u", "features": {"watch": ["rose pruning"], "consent": True}}
            url = f"{state['url']}/v1/models/conf-profile:predict"
            answer = httpx.post(url, json={"instances": [instance]}, timeout=60)
            assert answer.status_code == 200
            assert answer.json()["predictions"][0]["model_version"] == version.name
        finally:
            process.kill()
            _, errors = process.communicate(timeout=60)
        wait_until_ended(family)
        assert len(family) >= 4
        assert "transformers answers: one request after another and far slower" in errors
