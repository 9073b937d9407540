"""The OpenAI teacher and the synthesis step against a real HTTP server that misbehaves."""

import asyncio
import email.utils
import logging
import socket
import subprocess
import sys
import threading
import time
from collections import Counter

import pyarrow as pa
import pytest

from components.synthesis import step
from conf_profile import tables
from conf_profile.config import PromptConfig, TeacherConfig
from conf_profile.dialogue import task as tasks
from conf_profile.dialogue.reasons import AnswerForm
from conf_profile.errors import TeacherError
from conf_profile.teachers.answers import AnswerStore, AskCounts, ask
from conf_profile.teachers.endpoint.rate_limits import retry_after_seconds
from conf_profile.teachers.openai import OpenAITeacher
from conf_profile.teachers.protocol import Completion, Request
from support.teacher_server import GOOD_TEXT, Reply, completion, error, serve

KEY = "sk-a-secret"


@pytest.fixture
def server():
    with serve() as running:
        yield running


@pytest.fixture(autouse=True)
def key(monkeypatch):
    monkeypatch.setenv("TEACHER_KEY", KEY)


def config(server, **values):
    defaults = {
        "kind": "openai",
        "model": "deepseek-r1",
        "base_url": server if isinstance(server, str) else server.url,
        "api_key_env": "TEACHER_KEY",
        "concurrency": 1,
        "timeout_seconds": 20.0,
        "max_tokens": 64,
        "samples": 2,
        "shards": 1,
    }
    return TeacherConfig(**{**defaults, **values})


def users(count, samples=(0,)):
    return [Request(f"u{n}", ({"role": "user", "content": f"user {n}"},), samples) for n in range(count)]


def collect(teacher, requests):
    """Everything that the teacher yields, and the error that ended it."""

    async def run():
        arrived = []
        try:
            async for answer in teacher.complete(requests):
                arrived += [answer]
        except TeacherError as failure:
            return arrived, failure
        return arrived, None

    return asyncio.run(run())


def test_one_request_a_sample_in_openai_form(server):
    arrived, failure = collect(OpenAITeacher(config(server)), users(2, (0, 1)))
    assert failure is None
    assert arrived == [Completion(f"u{n}", s, GOOD_TEXT) for n in range(2) for s in range(2)]
    assert server.calls[0].path == "/v1/chat/completions"
    assert server.calls[0].headers["Authorization"] == f"Bearer {KEY}"
    assert server.calls[0].body == {
        "model": "deepseek-r1",
        "messages": [{"role": "user", "content": "user 0"}],
        "temperature": 1.0,
        "max_tokens": 64,
    }


def test_no_key_sends_none(server, monkeypatch):
    monkeypatch.delenv("TEACHER_KEY")
    collect(OpenAITeacher(config(server)), users(1))
    assert "Authorization" not in server.calls[0].headers


def test_thinking_is_taken_out(server):
    server.script(completion("<think>a woman?\n</think>\n\n" + GOOD_TEXT), completion("hm</think>" + GOOD_TEXT))
    arrived, _ = collect(OpenAITeacher(config(server)), users(2))
    assert [answer.text for answer in arrived] == [GOOD_TEXT, GOOD_TEXT]


@pytest.mark.parametrize(("text", "reason"), [("I cannot say", ""), ("<age>55+", ""), ("", "empty"), (None, "empty")])
def test_malformed_text_is_an_answer(server, text, reason):
    server.script(completion(text))
    arrived, failure = collect(OpenAITeacher(config(server)), users(1))
    assert (arrived, failure) == ([Completion("u0", 0, text or "", reason)], None)
    assert len(server.calls) == 1


@pytest.mark.parametrize(
    "bad",
    [
        error(500),
        error(503, Retry_After="0"),
        error(429, Retry_After="0"),
        error(429),
        error(408),
        Reply(200, b'{"choices": ['),
        Reply(200, b"[]"),
        Reply(200, b'{"choices": []}'),
        Reply(200, b'{"choices": [{"message": {"content": 7}}]}'),
        Reply(200, b"not json"),
        completion(cut=True),
    ],
    ids=lambda reply: f"{reply.status}-{reply.body[:12]!r}-{'cut' if reply.cut else ''}",
)
def test_what_may_pass_is_tried_again(server, bad):
    server.script(bad, bad)
    arrived, failure = collect(OpenAITeacher(config(server)), users(1))
    assert (arrived, failure) == ([Completion("u0", 0, GOOD_TEXT)], None)
    assert len(server.calls) == 3


def test_an_answer_that_is_too_slow_is_tried_again(server):
    released = threading.Event()
    server.script(completion("late", wait_for=released))
    arrived, failure = collect(OpenAITeacher(config(server, timeout_seconds=0.5)), users(1))
    released.set()
    assert (arrived, failure) == ([Completion("u0", 0, GOOD_TEXT)], None)
    assert len(server.calls) == 2


def test_retry_after_in_seconds_holds_back_everyone(server):
    server.behave = lambda number, call: error(429, Retry_After="1.5") if number < 4 else completion()
    arrived, _ = collect(OpenAITeacher(config(server, concurrency=4)), users(8))
    assert len(arrived) == 8
    first_again = min(call.at for call in server.calls[4:])
    assert first_again - max(call.at for call in server.calls[:4]) >= 1.4


def test_retry_after_as_http_date_is_honoured(server):
    moment = time.time() + 3
    server.script(error(429, Retry_After=email.utils.formatdate(moment, usegmt=True)))
    collect(OpenAITeacher(config(server)), users(1))
    # An HTTP date has whole seconds.
    assert server.calls[1].at - server.calls[0].at >= 1.5


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        (None, 0.0),
        ("7", 7.0),
        ("0.5", 0.5),
        ("-3", 0.0),
        ("soon", 0.0),
        ("Thu, 01 Jan 1970 00:01:40 GMT", 40.0),
        ("Thu, 01 Jan 1970 00:00:00 GMT", 0.0),
    ],
)
def test_retry_after_forms(header, seconds):
    assert retry_after_seconds(header, now=60.0) == seconds


def test_a_pause_of_an_hour_ends_the_run(server):
    server.script(error(429, Retry_After="3600"))
    arrived, failure = collect(OpenAITeacher(config(server)), users(1))
    assert arrived == []
    assert "asks to wait 3600 s" in str(failure)


def test_being_throttled_while_others_are_served_spends_no_attempts(server):
    refused = threading.Semaphore(0)

    def behave(number, call):
        if call.user_text != "user 0":
            # One of the others is served for each refusal.
            refused.acquire(timeout=60)
            return completion()
        if sum(c.user_text == "user 0" for c in server.calls) <= 4:
            refused.release()
            return error(429, Retry_After="0")
        refused.release(100)
        return completion()

    server.behave = behave
    arrived, failure = collect(OpenAITeacher(config(server, concurrency=2, max_attempts=3)), users(8))
    assert failure is None
    assert len(arrived) == 8


def test_when_attempts_are_spent_the_error_comes_after_what_arrived(server):
    server.behave = lambda number, call: completion() if call.user_text != "user 2" else error(500, "boom")
    arrived, failure = collect(OpenAITeacher(config(server, max_attempts=3)), users(5))
    assert [answer.user_id for answer in arrived] == ["u0", "u1"]
    assert "500" in str(failure) and "boom" in str(failure) and "run again" in str(failure)
    assert Counter(call.user_text for call in server.calls) == {"user 0": 1, "user 1": 1, "user 2": 3}


def test_requests_under_way_may_finish_after_a_failure(server):
    refused = threading.Event()

    def behave(number, call):
        if call.user_text == "user 0":
            return error(400)
        return completion(wait_for=refused)

    server.behave = behave
    teacher = OpenAITeacher(config(server, concurrency=3))

    async def run():
        stream, arrived = teacher.complete(users(9)), []
        asyncio.get_running_loop().call_later(0.3, refused.set)
        with pytest.raises(TeacherError, match="400"):
            async for answer in stream:
                arrived += [answer.user_id]
        return arrived

    assert sorted(asyncio.run(run())) == ["u1", "u2"]
    assert len(server.calls) == 3


@pytest.mark.parametrize(
    ("status", "advice"),
    [
        (400, "teacher.model"),
        (401, "TEACHER_KEY"),
        (402, "credit"),
        (403, "TEACHER_KEY"),
        (404, "teacher.base_url"),
        (418, "documentation"),
        (307, "teacher.base_url"),
    ],
)
def test_what_asking_again_cannot_help_says_what_to_do(server, status, advice):
    server.behave = lambda number, call: error(status, f"key {KEY} refused")
    arrived, failure = collect(OpenAITeacher(config(server)), users(3))
    assert arrived == []
    assert str(status) in str(failure) and advice in str(failure)
    assert KEY not in str(failure)
    assert len(server.calls) == 1


def test_the_budget_counts_what_may_have_cost_something(server):
    server.script(error(500), error(429, Retry_After="0"))
    arrived, failure = collect(OpenAITeacher(config(server, max_requests=4)), users(9))
    # One 500 and three answers; the 429 was free.
    assert len(arrived) == 3
    assert "budget of 4 requests" in str(failure)
    assert len(server.calls) == 5


def test_no_more_requests_than_configured_at_once(server):
    full = threading.Event()

    def behave(number, call):
        if server.running == 3:
            full.set()
        return completion(wait_for=full)

    server.behave = behave
    collect(OpenAITeacher(config(server, concurrency=3)), users(30))
    assert server.most_running == 3


def closed_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_an_unreachable_teacher_is_given_up_after_few_attempts():
    teacher = OpenAITeacher(config(f"http://127.0.0.1:{closed_port()}/v1", concurrency=8, max_attempts=100))
    arrived, failure = collect(teacher, users(50))
    assert arrived == []
    assert "cannot be reached" in str(failure) and "attempt 3" in str(failure)


@pytest.mark.parametrize("url", ["localhost:1/v1", "ftp://host/v1", "https://", "http://[::1/v1", "http://u:p@host/v1"])
def test_a_wrong_url_is_told_at_once(url):
    with pytest.raises(TeacherError, match=r"teacher\.base_url"):
        OpenAITeacher(config(url))


def test_a_query_in_the_url_is_sent_and_not_shown(server):
    server.script(error(401))
    teacher = OpenAITeacher(config(server.url + "/?token=hidden"))
    _, failure = collect(teacher, users(1))
    assert server.calls[0].path == "/v1/chat/completions?token=hidden"
    assert "hidden" not in str(failure) + teacher.fingerprint


def test_an_error_that_comes_with_status_200_is_told(server):
    server.behave = lambda number, call: Reply(200, b'{"error": {"message": "no provider left"}}')
    _, failure = collect(OpenAITeacher(config(server, max_attempts=2)), users(1))
    assert "no provider left" in str(failure)


def test_a_key_with_a_line_break_is_refused_without_showing_it(server, monkeypatch):
    monkeypatch.setenv("TEACHER_KEY", "sk-a\nsecret")
    with pytest.raises(TeacherError, match="TEACHER_KEY") as caught:
        OpenAITeacher(config(server))
    assert "secret" not in str(caught.value)


def test_neither_key_nor_user_text_is_logged(server, caplog):
    server.script(error(500), error(429, Retry_After="0"))
    with caplog.at_level(logging.DEBUG):
        collect(OpenAITeacher(config(server)), users(2))
    assert KEY not in caplog.text
    assert "user 0" not in "".join(r.getMessage() for r in caplog.records if r.levelno >= logging.INFO)
    assert KEY not in OpenAITeacher(config(server)).fingerprint


def test_a_consumer_that_leaves_stops_the_requests(server):
    async def run():
        stream = OpenAITeacher(config(server, concurrency=2)).complete(users(500))
        async for _ in stream:
            break
        await stream.aclose()
        return len(server.calls)

    assert asyncio.run(run()) < 500


def test_a_restart_pays_nothing_twice(server, tmp_path):
    server.behave = lambda number, call: completion() if number < 7 else error(401)
    teacher, requests = OpenAITeacher(config(server, concurrency=1)), users(5, (0, 1))

    def asking():
        with AnswerStore(tmp_path, teacher.fingerprint) as store:
            return asyncio.run(ask(teacher, requests, store))

    with pytest.raises(TeacherError, match="401"):
        asking()
    server.behave = lambda number, call: completion()
    assert asking() == AskCounts(asked=3, kept_before=7)
    assert asking() == AskCounts(asked=0, kept_before=10)
    assert len(server.calls) == 7 + 1 + 3


# The synthesis step, in a process that is killed.

SYNTHESIS = """
import sys
from pathlib import Path
from components.synthesis import step
from conf_profile.config import PromptConfig, TeacherConfig, parse_section
folder = Path(sys.argv[1])
print(step.run(folder / "features.parquet", folder / "task.yaml", None, folder / "candidates.parquet",
    parse_section(TeacherConfig, sys.argv[2]), PromptConfig(), 0, 0, folder / "answers"))
"""

TAXONOMY = tasks.parse({"attributes": {"gender": ["female", "male"]}})


def write_inputs(folder, count=12):
    rows = [
        {
            "user_id": f"u{n:02d}",
            "split": ("train", "second_stage", "validation", "test")[n % 4],
            "watch": [f"phrase of user {n:02d}"],
            "search": [],
            "submit": [],
            "self_age": None,
            "self_gender": None,
            "signature": None,
            "region": None,
        }
        for n in reversed(range(count))
    ]
    tables.write(folder / "features.parquet", tables.from_rows(rows, tables.FEATURES), tables.FEATURES)
    TAXONOMY.save(folder / "task.yaml")


def wait_until(condition):
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "nothing happened for a minute"
        time.sleep(0.01)


def kept(folder):
    return sum(file.read_bytes().count(b"\n") - 1 for file in (folder / "answers").glob("*.jsonl"))


def test_a_killed_synthesis_goes_on_and_repeats_no_answered_request(server, tmp_path):
    write_inputs(tmp_path)
    never, answered = threading.Event(), []

    def behave(number, call):
        if number >= 10:
            return completion(wait_for=never)
        answered.append(call.user_text)
        return completion()

    server.behave = behave
    settings = config(server, concurrency=4, samples=3).for_step()
    command = [sys.executable, "-c", SYNTHESIS, str(tmp_path), settings]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        wait_until(lambda: kept(tmp_path) == 10 and len(server.calls) == 14)
    finally:
        process.kill()
        process.wait()
        never.set()
    assert not (tmp_path / "candidates.parquet").exists()

    server.behave = lambda number, call: completion()
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "{'users': 9, 'asked': 17, 'kept_before': 10, 'malformed': 0}"
    # 27 answers; only the four that were under way at the kill are asked for again.
    assert len(server.calls) == 27 + 4
    again = Counter(answered) + Counter(call.user_text for call in server.calls[14:])
    assert set(again.values()) == {3} and len(again) == 9
    candidates = tables.read(tmp_path / "candidates.parquet", tables.CANDIDATES)
    assert len(candidates) == 27


def test_candidates_are_ordered_and_malformed_answers_have_no_tags(server, tmp_path):
    write_inputs(tmp_path, 4)
    server.behave = lambda number, call: completion("what?" if "user 02" in call.user_text else GOOD_TEXT)
    counts = run_step(server, tmp_path)
    assert counts == {"users": 3, "asked": 6, "kept_before": 0, "malformed": 2}
    assert "user 01" not in "".join(call.user_text for call in server.calls)
    good = {
        "attribute": "gender",
        "tag": "female",
        "level": 4,
        "rationale": "rose pruning",
        "well_formed": True,
        "form": AnswerForm.EXACT,
    }
    bad = {
        **dict.fromkeys(("tag", "level", "rationale")),
        "attribute": "gender",
        "well_formed": False,
        "form": AnswerForm.NO_ANSWER,
    }
    assert tables.read(tmp_path / "candidates.parquet", tables.CANDIDATES).to_pylist() == [
        {"user_id": user, "sample": sample, **row}
        for user, row in (("u00", good), ("u02", bad), ("u03", good))
        for sample in (0, 1)
    ]


def run_step(server, folder, shard=0, **values):
    return step.run(
        folder / "features.parquet",
        folder / "task.yaml",
        None,
        folder / "candidates.parquet",
        config(server, **values),
        PromptConfig(),
        seed=0,
        shard=shard,
        answers_folder=folder / "answers",
    )


def test_shards_share_the_users_and_the_budget(server, tmp_path):
    write_inputs(tmp_path, 40)
    seen = []
    for shard in range(3):
        counts = run_step(server, tmp_path, shard, shards=3, max_requests=90)
        seen += tables.read(tmp_path / "candidates.parquet", tables.CANDIDATES).column("user_id").to_pylist()
        assert counts["users"] > 0
    assert Counter(seen) == {f"u{n:02d}": 2 for n in range(40) if n % 4 != 1}
    with pytest.raises(TeacherError, match="budget of 1 requests"):
        run_step(server, tmp_path, shards=3, max_requests=3, temperature=0.5)


def test_all_tries_of_a_shard_share_one_budget(server, tmp_path):
    write_inputs(tmp_path)
    server.script(error(500), error(429, Retry_After="0"))
    for _ in range(3):
        with pytest.raises(TeacherError, match="budget of 5 requests"):
            run_step(server, tmp_path, max_requests=5)
    # One 500 and four answers; the 429 was free.
    assert len(server.calls) == 6
    counts = run_step(server, tmp_path, max_requests=5 + 14)
    assert counts == {"users": 9, "asked": 14, "kept_before": 4, "malformed": 0}
    with pytest.raises(TeacherError, match="budget of 19 requests"):
        run_step(server, tmp_path, max_requests=19, samples=3)
    assert len(server.calls) == 20


def test_other_users_have_a_budget_of_their_own(server, tmp_path):
    for count in (12, 16):
        write_inputs(tmp_path, count)
        with pytest.raises(TeacherError, match="budget of 5 requests"):
            run_step(server, tmp_path, max_requests=5)
    assert len(server.calls) == 10


def test_requests_under_way_at_a_kill_are_counted(server, tmp_path):
    write_inputs(tmp_path)
    never = threading.Event()
    server.behave = lambda number, call: completion(wait_for=never if number >= 10 else None)
    settings = config(server, concurrency=4, max_requests=14)
    process = subprocess.Popen(
        [sys.executable, "-c", SYNTHESIS, str(tmp_path), settings.for_step()], stderr=subprocess.DEVNULL
    )
    try:
        wait_until(lambda: answered(tmp_path) == 10 and len(server.calls) == 14)
    finally:
        process.kill()
        process.wait()
        never.set()
    with pytest.raises(TeacherError, match="budget of 14 requests"):
        run_step(server, tmp_path, max_requests=14)
    assert len(server.calls) == 14


def answered(folder):
    return sum(file.read_bytes().count(b'"text"') for file in (folder / "answers").glob("*.jsonl"))


def test_another_number_of_shards_finds_the_same_answers(server, tmp_path):
    write_inputs(tmp_path, 16)
    asked = [run_step(server, tmp_path, shard, shards=2)["asked"] for shard in range(2)]
    assert sum(asked) == 24
    assert run_step(server, tmp_path)["asked"] == 0


def test_no_users_make_an_empty_table(server, tmp_path):
    write_inputs(tmp_path, 4)
    empty = pa.table({name: [] for name in tables.FEATURES.schema.names}, schema=tables.FEATURES.schema)
    tables.write(tmp_path / "features.parquet", empty, tables.FEATURES)
    assert run_step(server, tmp_path) == {"users": 0, "asked": 0, "kept_before": 0, "malformed": 0}
    assert len(tables.read(tmp_path / "candidates.parquet", tables.CANDIDATES)) == 0
