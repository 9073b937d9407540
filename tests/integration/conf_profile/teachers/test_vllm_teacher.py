"""Real vLLM on the CPU with the real SmolLM2: a minute and a half, most of it the engine's start."""

import asyncio
import os

import pytest

from conf_profile.config import PromptConfig, TeacherConfig
from conf_profile.dialogue.output_format import parse, parse_or_none
from conf_profile.dialogue.prompts import UserFeatures, render_messages
from conf_profile.dialogue.task import parse as parse_task
from conf_profile.errors import TeacherError
from conf_profile.students.smollm2 import smollm2_folder
from conf_profile.teachers.answers import AnswerStore, AskCounts, ask
from conf_profile.teachers.factory import make_teacher
from conf_profile.teachers.protocol import Request

pytestmark = [pytest.mark.slow, pytest.mark.engine]

TAXONOMY = parse_task({"attributes": {"gender": ["female", "male"], "age": ["18-24", "25-34", "55+"]}})
MOST_AT_ONCE = 2


def config(model, **values):
    defaults = {
        "kind": "vllm",
        "model": str(model),
        "temperature": 0.7,
        "max_tokens": 96,
        # Refilling starts at 4 x 2 samples.
        "engine_arguments": {"max_num_seqs": MOST_AT_ONCE, "max_model_len": 1024, "enforce_eager": True},
    }
    return TeacherConfig(**{**defaults, **values})


@pytest.fixture(scope="module")
def model():
    return smollm2_folder()


@pytest.fixture(scope="module")
def environment():
    """The engine's variables must not reach other tests."""
    before = dict(os.environ)
    os.environ["VLLM_CPU_KVCACHE_SPACE"] = "1"
    yield
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture(scope="module")
def teacher(model, environment):
    running = make_teacher(config(model), TAXONOMY, None, seed=0)
    yield running
    asyncio.run(running.aclose())


def request(number, samples):
    user = UserFeatures(f"u{number}", watch=(f"rose pruning {number}", "pension calculator"))
    messages = render_messages(user, TAXONOMY, "full", PromptConfig().max_keyphrases)
    return Request(user.user_id, tuple(messages), samples)


def asking(teacher, requests, folder):
    with AnswerStore(folder, teacher.fingerprint) as store:
        return asyncio.run(ask(teacher, requests, store))


def texts(teacher, requests, folder):
    with AnswerStore(folder, teacher.fingerprint) as store:
        return [store.text(r.user_id, r.messages, sample) for r in requests for sample in r.samples]


def test_every_sample_arrives_in_the_grammar_and_none_is_drawn_twice(teacher, tmp_path):
    # 12 samples: more than the engine is handed at once.
    requests = [request(number, (0, 1)) for number in range(6)]
    assert asking(teacher, requests, tmp_path) == AskCounts(asked=12, kept_before=0)
    answers = texts(teacher, requests, tmp_path)
    for text in answers:
        assert set(parse(text, TAXONOMY).answers) == {"gender", "age"}
    assert len(set(answers)) > 6
    assert asking(teacher, requests, tmp_path) == AskCounts(asked=0, kept_before=12)


def test_samples_that_are_missing_in_between_are_drawn(teacher, tmp_path):
    asking(teacher, [request(1, (1,))], tmp_path)
    requests = [request(1, (0, 1, 2, 4))]
    assert asking(teacher, requests, tmp_path) == AskCounts(asked=3, kept_before=1)
    assert None not in texts(teacher, requests, tmp_path)


def test_a_sample_has_its_seed_whatever_it_is_asked_with(teacher):
    together, alone = teacher.sampling(request(1, (0, 1, 2))), teacher.sampling(request(1, (2,)))
    assert (together.n, alone.n) == (3, 1)
    assert alone.seed == together.seed + 2
    assert teacher.sampling(request(2, (0,))).seed != together.seed


def test_a_prompt_that_is_too_long_is_an_error_after_the_others_arrived(teacher, tmp_path):
    long = Request("long", ({"role": "user", "content": "pension " * 3000},), (0,))
    requests = [request(number, (0, 1, 2, 3)) for number in range(2)]
    with pytest.raises(TeacherError, match=r"prompt\.max_keyphrases"):
        asking(teacher, [*requests, long], tmp_path)
    assert asking(teacher, requests, tmp_path) == AskCounts(asked=0, kept_before=8)


def test_a_consumer_that_leaves_frees_the_engine(teacher):
    async def run():
        stream = teacher.complete([request(number, (0,)) for number in range(12)])
        async for _ in stream:
            break
        await stream.aclose()

    asyncio.run(run())
    assert not teacher.llm.llm_engine.has_unfinished_requests()


def test_without_structured_output_the_model_says_what_it_likes(model, teacher, tmp_path):
    free = make_teacher(config(model, structured_output=False, max_tokens=16), TAXONOMY, None, seed=0)
    # One engine serves both.
    free._engine = teacher.llm
    requests = [request(1, (0, 1))]
    assert asking(free, requests, tmp_path) == AskCounts(asked=2, kept_before=0)
    assert [parse_or_none(text, TAXONOMY) for text in texts(free, requests, tmp_path)] == [None, None]


def test_greedy_samples_are_asked_one_by_one(model, teacher, tmp_path):
    greedy = make_teacher(
        config(model, temperature=0.0, max_tokens=16, structured_output=False), TAXONOMY, None, seed=0
    )
    greedy._engine = teacher.llm
    assert asking(greedy, [request(1, (0, 1))], tmp_path) == AskCounts(asked=2, kept_before=0)


def test_an_answer_that_cannot_fit_is_told_before_the_engine_starts(model):
    with pytest.raises(TeacherError, match=r"teacher\.max_tokens 20 is too small"):
        make_teacher(config(model, max_tokens=20), TAXONOMY, None, seed=0)


def test_a_folder_without_a_model_is_a_clear_error(environment, tmp_path):
    missing = make_teacher(config(tmp_path), TAXONOMY, None, seed=0)
    with pytest.raises(TeacherError, match=r"(?s)cannot start the model .*teacher\.model"):
        asking(missing, [request(1, (0,))], tmp_path / "answers")
