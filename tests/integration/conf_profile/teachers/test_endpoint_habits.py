"""The kept table of endpoints' habits: a stub that behaves as public bug reports say, and what the teacher makes of it.

A row's `replies` are the stub's: the n-th answers request n, the last one all further requests; a function decides by
the request. Its outcome is texts (with reasons, where there is no whole text) or the parts of one message, and the
number of requests that it took.
"""

import asyncio
import json
import time
from collections import Counter
from dataclasses import dataclass, field

import pytest

from conf_profile import transient
from conf_profile.config import TeacherConfig
from conf_profile.errors import TeacherError
from conf_profile.teachers import openai
from conf_profile.teachers.answers import AnswerStore, AskCounts, ask
from conf_profile.teachers.protocol import Completion, Request, Usage
from conf_profile.teachers.spending import Spending
from support.teacher_server import GOOD_TEXT, Reply, completion, error, serve

MODEL = "stub-model"


@dataclass(frozen=True)
class Habit:
    """One row."""

    name: str
    replies: list = field(default_factory=lambda: [completion()])
    config: dict = field(default_factory=dict)
    texts: list = field(default_factory=lambda: [GOOD_TEXT, GOOD_TEXT])
    message: list = field(default_factory=list)
    requests: int = 2
    sends: dict = field(default_factory=dict)
    """Fields of the last request; None for one that it must not have."""


def body(data, status=200, **headers):
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return Reply(status, data if isinstance(data, bytes) else json.dumps(data).encode(), names)


def refused(status, message, code=None, param=None, kind="invalid_request_error", **headers):
    return body({"error": {"message": message, "type": kind, "param": param, "code": code}}, status, **headers)


def message(finish="stop", model=None, **parts):
    choice = {"index": 0, "finish_reason": finish, "message": {"role": "assistant", **parts}}
    return body({"choices": [choice], **({"model": model} if model else {})})


def events(*data, end=b"data: [DONE]\n\n", kind="text/event-stream"):
    lines = b"".join(b"data: " + json.dumps(event).encode() + b"\n\n" for event in data)
    return Reply(200, b": keep-alive\n\n" + lines + end, {"Content-Type": kind})


def delta(finish=None, **parts):
    return {"object": "chat.completion.chunk", "choices": [{"index": 0, "delta": parts, "finish_reason": finish}]}


def streamed(finish="stop", **reply):
    half = len(GOOD_TEXT) // 2
    usage = {"choices": [], "usage": {"completion_tokens": 30}}
    parts = [delta(role="assistant", content=""), delta(reasoning_content="a woman?"), delta(content=GOOD_TEXT[:half])]
    return events(*parts, delta(content=GOOD_TEXT[half:]), delta(finish), usage, **reply)


def unless(accepts, refusal):
    """Refuses what does not fit."""
    return lambda call: completion() if accepts(call.body) else refusal


def by_user(replies):
    """A reply for some of the users, a good one for all others."""
    return lambda call: replies.get(call.user_text, completion())


NO_MAX_TOKENS = (
    "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead."
)
NO_TEMPERATURE = (
    "Unsupported value: 'temperature' does not support 0.7 with this model. Only the default (1) value is supported."
)
TOO_LONG = (
    "This model's maximum context length is 2048 tokens. However, you requested 2500 tokens (1988 in the messages, 512 "
    "in the completion). Please reduce the length of the messages or completion."
)
FILTERED = "The response was filtered due to the prompt triggering Azure OpenAI's content management policy."
PARTS = [{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}, {"type": "text", "text": GOOD_TEXT}]
OPENROUTER_ERROR = {"error": {"code": 502, "message": "Provider returned error"}, "user_id": "x"}
CHOICE_ERROR = {"choices": [{"index": 0, "finish_reason": "error", "error": {"code": 503, "message": "overloaded"}}]}
HTML = Reply(200, b"<!doctype html><title>Welcome to nginx!</title>", {"Content-Type": "text/html"})
GOOD_PAIR = [GOOD_TEXT, GOOD_TEXT]

TABLE = [
    # The form of the request.
    Habit("max_tokens is refused", [unless(lambda b: "max_completion_tokens" in b and "max_tokens" not in b,
          refused(400, NO_MAX_TOKENS, "unsupported_parameter", "max_tokens"))],
          requests=3, sends={"max_completion_tokens": 64, "max_tokens": None}),
    Habit("a temperature is refused", [unless(lambda b: "temperature" not in b,
          refused(400, NO_TEMPERATURE, "unsupported_value", "temperature"))],
          config={"temperature": 0.7}, requests=3, sends={"temperature": None, "max_tokens": 64}),
    Habit("both are refused, and errors stand at the top", [unless(
          lambda b: not {"temperature", "max_tokens"} & b.keys(),
          body({"object": "error", "message": "extra fields not permitted: max_tokens, temperature"}, 422))],
          requests=4, sends={"temperature": None, "max_tokens": None, "max_completion_tokens": 64}),
    Habit("further fields are sent, a null takes one of ours out",
          config={"extra_body": {"chat_template_kwargs": {"thinking": False}, "temperature": None, "top_p": 0.9}},
          sends={"chat_template_kwargs": {"thinking": False}, "temperature": None, "top_p": 0.9}),
    Habit("one's own length field takes the place of ours", config={"extra_body": {"max_completion_tokens": 900}},
          sends={"max_completion_tokens": 900, "max_tokens": None}),
    Habit("a length that is too large is not a length field that is refused",
          [refused(400, "max_tokens is too large: 64. The model supports at most 32 tokens.", None, "max_tokens")],
          texts=[], message=["answers 400", "too large", "check teacher.model, teacher.max_tokens"], requests=1),
    Habit("a temperature out of its range", [refused(400, "temperature must be in [0, 1]", None, "temperature")],
          texts=[], message=["answers 400", "temperature must be in"], requests=1),
    # The form of the answer.
    Habit("content as parts, thoughts among them", [message(content=PARTS)]),
    Habit("reasoning beside the content", [message(content=GOOD_TEXT, reasoning_content="<age>18-24</age>")]),
    Habit("the whole answer taken for reasoning", [message(content=None, reasoning_content="hm</think>" + GOOD_TEXT)]),
    Habit("the same in the newer field", [message(content="", reasoning=GOOD_TEXT)]),
    Habit("null with a refusal", [message(content=None, refusal="I cannot help with that.")],
          texts=[("", "refusal"), ("", "refusal")]),
    Habit("null without a word", [message(content=None)], texts=[("", "empty"), ("", "empty")]),
    Habit("cut by its length", [message("length", content=GOOD_TEXT[:30])], texts=[(GOOD_TEXT[:30], "length")] * 2),
    Habit("a thought that filled the length", [message("length", content=None, reasoning_content="hm " * 9)],
          texts=[("", "length")] * 2),
    Habit("filtered while it was written", [message("content_filter", content="")], texts=[("", "content_filter")] * 2),
    Habit("white space before the body", [body(b"\n\n   " + completion().body)]),
    Habit("streams unasked", [streamed()]),
    Habit("streams, and calls them JSON", [streamed(kind="application/json")]),
    Habit("a stream without its last mark", [streamed(end=b"")]),
    Habit("streams only", [unless(lambda b: b.get("stream"),
          refused(400, "This model only support stream mode, please enable the stream parameter."))],
          texts=GOOD_PAIR, requests=3, sends={"stream": True}),
    Habit("a stream that is cut is asked for again", [events(delta(content="<rat"), end=b""), streamed()], requests=3),
    Habit("a stream that is cut within an event", [events(delta(content="<rat"), end=b'data: {"cho'), streamed()],
          requests=3),
    Habit("a stream with an error inside", [events(delta(content="<rat"), {"error": {"message": "overloaded"}}),
          streamed()], requests=3),
    # Errors that come with status 200.
    Habit("200 with an error inside", [body(OPENROUTER_ERROR), completion()], requests=3),
    Habit("200 with an error in the choice", [body(CHOICE_ERROR), completion()], requests=3),
    Habit("200 with an error that stays", [body({"error": {"code": 401, "message": "No auth credentials found"}})],
          texts=[], message=["answers 401 (No auth credentials found)", "TEACHER_KEY"], requests=1),
    Habit("200 with nothing but a message", [body({"message": "model is loading"}), completion()], requests=3),
    # Limits.
    Habit("retry-after-ms", [refused(429, "slow down", retry_after_ms="40", retry_after="9999"), completion()],
          requests=3),
    Habit("x-ratelimit-reset alone", [refused(429, "slow down", x_ratelimit_reset="60ms"), completion()], requests=3),
    Habit("a reset that is far off ends the step", [refused(429, "daily limit", x_ratelimit_reset="6h0m0s")],
          texts=[], message=["asks to wait 21600 s"], requests=1),
    # What is paid for is used up.
    Habit("insufficient_quota with 429", [completion(), refused(429, "You exceeded your current quota, please check "
          "your plan and billing details.", "insufficient_quota", kind="insufficient_quota")],
          texts=[GOOD_TEXT], message=["quota is used up", "429 (insufficient_quota You exceeded", "no credit left",
          ]),
    Habit("402", [refused(402, "Insufficient Balance", kind="unknown_error")], texts=[], message=["quota is used up",
          "402"], requests=1),
    Habit("a balance that is too low with 400", [refused(400, "Your credit balance is too low to access the API.")],
          texts=[], message=["quota is used up", "run again"], requests=1),
    Habit("used up, with status 200", [body({"error": {"type": "insufficient_quota", "message": "quota"}})],
          texts=[], message=["quota is used up"], requests=1),
    # One user's prompt.
    Habit("content_filter with 400", [by_user({"user 0": refused(400, FILTERED, "content_filter", "prompt")})],
          texts=[("", "content_filter"), GOOD_TEXT]),
    Habit("a policy in the inner error", [by_user({"user 1": body({"error": {"message": "no", "code": "BadRequest",
          "innererror": {"code": "ResponsibleAIPolicyViolation"}}}, 400)})], texts=[GOOD_TEXT, ("", "content_filter")]),
    Habit("context_length_exceeded with 400", [by_user({"user 0": refused(400, "no", "context_length_exceeded")})],
          texts=[("", "context_length_exceeded"), GOOD_TEXT]),
    Habit("the same in vLLM's words", [by_user({"user 0": body({"object": "error", "message": TOO_LONG,
          "type": "BadRequestError", "code": 400}, 400)})], texts=[("", "context_length_exceeded"), GOOD_TEXT]),
    Habit("413", [by_user({"user 0": Reply(413, b"Payload Too Large")})],
          texts=[("", "context_length_exceeded"), GOOD_TEXT]),
    # Another protocol, another model, another address.
    Habit("a web page", [HTML], texts=[], message=["not a chat completion but text/html", "attempt 3",
          "check teacher.base_url (it usually ends in /v1)"], requests=3),
    Habit("another API's answer", [body({"type": "message", "content": [{"type": "text", "text": "x"}]})],
          texts=[], message=["not a chat completion", "teacher.base_url"], requests=3),
    Habit("a redirection", [Reply(308, b"", {"Location": "https://api.example.com/v1/chat/completions?x=secret"})],
          texts=[], message=["answers 308", "redirects to https://api.example.com/v1/chat/completions;",
          "teacher.base_url"], requests=1),
    Habit("plain HTTP to an HTTPS port", [Reply(400, b"Client sent an HTTP request to an HTTPS server.\n")],
          texts=[], message=["answers 400", "it seems to want https:// in teacher.base_url"], requests=1),
    Habit("another model", [message(content=GOOD_TEXT, model="other-model-mini")], texts=[GOOD_TEXT],
          message=["teacher.model is 'stub-model'", "'other-model-mini' gave them",
          "--set 'teacher.answers_as=[other-model-mini]'"], requests=1),
    Habit("another name of the same model", [message(content=GOOD_TEXT, model="azure-name")],
          config={"answers_as": ("azure-name",)}),
    Habit("the model with its date", [message(content=GOOD_TEXT, model="vendor/stub-model-2024-08-06")]),
]  # fmt: skip


@pytest.fixture
def server():
    with serve() as running:
        yield running


@pytest.fixture(autouse=True)
def settings(monkeypatch):
    monkeypatch.setenv("TEACHER_KEY", "sk-a-secret")
    monkeypatch.delenv(transient.RETRY_SECONDS, raising=False)
    # Whether it waits is not what is tested here.
    monkeypatch.setattr(openai, "LONGEST_BACKOFF", 0.01)


def teacher(server, spending=None, **values):
    given = {"kind": "openai", "model": MODEL, "base_url": server.url, "api_key_env": "TEACHER_KEY", "concurrency": 1,
             "max_tokens": 64, "samples": 1, "shards": 1, "timeout_seconds": 20.0}  # fmt: skip
    return openai.OpenAITeacher(TeacherConfig(**{**given, **values}), spending)


def users(count, samples=(0,)):
    return [Request(f"u{n}", ({"role": "user", "content": f"user {n}"},), samples) for n in range(count)]


def collect(asked, requests):
    """Everything that the teacher yields, and the error that ended it."""

    async def run():
        arrived = []
        try:
            async for answer in asked.complete(requests):
                arrived += [answer]
        except TeacherError as failure:
            return arrived, failure
        return arrived, None

    return asyncio.run(run())


def play(server, replies):
    def behave(number, call):
        reply = replies[min(number, len(replies) - 1)]
        return reply(call) if callable(reply) else reply

    server.behave = behave


@pytest.mark.parametrize("habit", TABLE, ids=lambda habit: habit.name)
def test_an_endpoint_with_this_habit(server, habit):
    play(server, habit.replies)
    arrived, failure = collect(teacher(server, **habit.config), users(2))
    given = {answer.user_id: (answer.text, answer.reason) for answer in arrived}
    expected = [text if isinstance(text, tuple) else (text, "") for text in habit.texts]
    assert [given[user] for user in sorted(given)] == expected
    for part in habit.message:
        assert part.lower() in str(failure).lower()
    assert (failure is None) == (not habit.message)
    assert len(server.calls) == habit.requests
    sent = server.calls[-1].body
    assert {name: sent.get(name) for name in habit.sends} == habit.sends
    assert not [name for name, value in habit.sends.items() if value is None and name in sent]


def test_the_names_of_the_table_are_unique():
    assert max(Counter(habit.name for habit in TABLE).values()) == 1


def test_what_a_refusal_taught_is_kept_and_costs_nothing(server):
    play(server, [unless(lambda b: "max_completion_tokens" in b, refused(400, NO_MAX_TOKENS, None, "max_tokens"))])
    spending = Spending()
    asked = teacher(server, spending, max_requests=8, concurrency=4)
    assert len(collect(asked, users(4))[0]) == 4
    assert len(collect(asked, users(4))[0]) == 4
    # At most the four that were sent before the first refusal came.
    assert 9 <= len(server.calls) <= 12
    assert all("max_completion_tokens" in call.body for call in server.calls[-4:])
    assert spending.requests == 8


@pytest.mark.parametrize("code", ["content_filter", "context_length_exceeded"])
def test_when_nearly_all_prompts_are_refused_the_step_stops_and_keeps_none_of_them(server, tmp_path, code):
    play(server, [lambda call: completion() if call.user_text == "user 0" else refused(400, "no", code)])
    asked = teacher(server, concurrency=4)
    with AnswerStore(tmp_path, asked.fingerprint) as store:
        with pytest.raises(TeacherError) as stopped:
            asyncio.run(ask(asked, users(200), store))
        assert len(store) == 1
    assert f"times {code})" in str(stopped.value)
    assert ("prompt.max_keyphrases" in str(stopped.value)) == (code == "context_length_exceeded")
    assert 19 <= len(server.calls) <= 19 + 1 + 4


def test_some_refused_prompts_are_kept_with_their_reason_and_asked_once(server, tmp_path):
    play(server, [lambda call: refused(400, "no", "content_filter") if call.user_text.endswith("3") else completion()])
    asked, requests = teacher(server, samples=3, samples_per_request=1, concurrency=2), users(40, (0, 1, 2))
    with AnswerStore(tmp_path, asked.fingerprint) as store:
        assert asyncio.run(ask(asked, requests, store)) == AskCounts(asked=120, kept_before=0)
        reasons = [store.reason(r.user_id, r.messages, sample) for r in requests for sample in r.samples]
    assert Counter(reasons) == {"": 108, "content_filter": 12}
    # The samples of a refused prompt that are not under way yet are not asked for.
    assert 108 + 4 <= len(server.calls) <= 108 + 8
    with AnswerStore(tmp_path, asked.fingerprint) as store:
        assert asyncio.run(ask(asked, requests, store)) == AskCounts(asked=0, kept_before=120)


def test_four_users_are_ground_to_stop_where_nobody_was_answered(server):
    play(server, [refused(400, "no", "content_filter")])
    arrived, failure = collect(teacher(server), users(4))
    assert arrived == []
    assert "refuses the prompts of 4 of the first 4 users (4 times content_filter)" in str(failure)


def test_few_users_are_no_ground_to_stop(server):
    play(server, [refused(400, "no", "content_filter")])
    arrived, failure = collect(teacher(server), users(3))
    assert failure is None
    assert [answer.reason for answer in arrived] == ["content_filter"] * 3


def test_a_limit_without_any_header_is_waited_for_longer_than_attempts_last(server, monkeypatch):
    play(server, [refused(429, "slow down")] * 9 + [completion()])
    assert collect(teacher(server, max_attempts=2), users(1))[1] is None
    monkeypatch.setattr(openai, "THROTTLED_SECONDS", 0.0)
    server.calls.clear()
    _, failure = collect(teacher(server, max_attempts=2), users(1))
    assert "(attempt 2). Lower teacher.concurrency" in str(failure)


@pytest.mark.parametrize("headers", [{"x_ratelimit_reset": "1s"}, {"retry_after_ms": "1000"}])
def test_a_pause_holds_back_everyone(server, headers):
    server.behave = lambda number, call: refused(429, "slow down", **headers) if number < 4 else completion()
    arrived, _ = collect(teacher(server, concurrency=4), users(8))
    assert len(arrived) == 8
    assert min(call.at for call in server.calls[4:]) - max(call.at for call in server.calls[:4]) >= 0.9


def test_an_epoch_of_the_reset_is_waited_for(server):
    play(server, [refused(429, "slow down", x_ratelimit_reset=str(int((time.time() + 1.5) * 1000))), completion()])
    collect(teacher(server), users(1))
    assert server.calls[1].at - server.calls[0].at >= 0.5


# Several samples in one request.


def several(call, most=100, **change):
    asked = call.body.get("n", 1)
    choices = [
        {"index": n, "finish_reason": "stop", "message": {"role": "assistant", "content": f"{call.user_text} #{n}"}}
        for n in range(min(asked, most))
    ]
    return body({"choices": choices[::-1], **change})


def samples_of(arrived):
    return Counter((answer.user_id, answer.sample) for answer in arrived)


def all_samples(users, samples):
    return Counter((f"u{n}", sample) for n in range(users) for sample in range(samples))


def test_several_samples_come_in_one_request_where_the_endpoint_gives_as_many(server):
    play(server, [several])
    arrived, failure = collect(teacher(server, samples=5, concurrency=10), users(6, tuple(range(5))))
    assert failure is None
    assert samples_of(arrived) == all_samples(6, 5)
    assert all(answer.text == f"user {answer.user_id[1:]} #{answer.sample}" for answer in arrived)
    assert [call.body["n"] for call in server.calls] == [5] * 6


def test_no_more_answers_are_under_way_than_configured(server):
    play(server, [several])
    collect(teacher(server, samples=5, concurrency=12), users(40, tuple(range(5))))
    assert server.most_running <= 2
    server.calls.clear()
    collect(teacher(server, samples=5, concurrency=3), users(4, tuple(range(5))))
    assert Counter(call.body.get("n", 1) for call in server.calls) == {3: 4, 2: 4}


@pytest.mark.parametrize(
    ("behave", "requests"),
    [
        (lambda call: several(call, most=1), 12),
        (lambda call: several(call) if "n" not in call.body else refused(400, "'n' must be 1", None, "n"), 13),
        (lambda call: several(call) if "n" not in call.body else refused(422, "what?"), 13),
        (lambda call: several(call) if "n" not in call.body else refused(500, "n is not implemented"), 13),
        (lambda call: several(call) if "n" not in call.body else body({"choices": []}), 13),
        (lambda call: several(call) if "n" not in call.body else Reply(gone=True), 13),
        (lambda call: several(call, most=2), 11),
    ],
    ids=["ignored", "refused", "refused without a word", "fails", "no choices", "hangs up", "fewer"],
)
def test_an_endpoint_without_several_samples_is_asked_for_single_ones(server, behave, requests):
    play(server, [behave])
    arrived, failure = collect(teacher(server, samples=4, concurrency=4), users(3, (0, 1, 2, 3)))
    assert failure is None
    assert samples_of(arrived) == all_samples(3, 4)
    assert len(server.calls) <= requests
    assert [call for call in server.calls[1:] if "n" in call.body] == []


def test_a_limit_of_samples_that_shows_later_is_no_failure(server):
    play(server, [lambda call: several(call) if call.body.get("n", 1) <= 2 else refused(400, "n must be at most 2")])
    mixed = [*users(1, (0, 1)), *users(3, (0, 1, 2, 3))[1:]]
    arrived, failure = collect(teacher(server, samples=4, concurrency=4), mixed)
    assert failure is None
    assert samples_of(arrived) == Counter({("u0", 0): 1, ("u0", 1): 1}) + all_samples(3, 4) - all_samples(1, 4)


def test_single_requests_where_the_configuration_says_so(server):
    play(server, [several])
    collect(teacher(server, samples=4, concurrency=8, samples_per_request=1), users(2, (0, 1, 2, 3)))
    assert [call.body.get("n") for call in server.calls] == [None] * 8


def test_each_of_several_samples_is_kept_by_itself_and_none_is_asked_for_again(server, tmp_path):
    replies = iter([several, several])
    play(server, [lambda call: next(replies, lambda call: error(401))(call)])
    asked, requests = teacher(server, samples=4, concurrency=4), users(5, (0, 1, 2, 3))
    with AnswerStore(tmp_path, asked.fingerprint) as store, pytest.raises(TeacherError, match="401"):
        asyncio.run(ask(asked, requests, store))
    play(server, [several])
    with AnswerStore(tmp_path, asked.fingerprint) as store:
        assert asyncio.run(ask(asked, requests, store)) == AskCounts(asked=12, kept_before=8)
        assert store.text("u1", requests[1].messages, 2) == "user 1 #2"


def test_what_the_endpoint_counted_is_shared_out_over_the_samples(server):
    play(server, [lambda call: several(call, usage={"prompt_tokens": 700, "completion_tokens": 61})])
    arrived, _ = collect(teacher(server, samples=3, concurrency=3), users(1, (0, 1, 2)))
    assert [answer.usage for answer in arrived] == [Usage(700, 21), Usage(0, 20), Usage(0, 20)]
    play(server, [lambda call: several(call, usage={"total_tokens": 9})])
    assert [answer.usage for answer in collect(teacher(server), users(1))[0]] == [None]


def test_streams_bring_several_samples(server):
    chunks = [
        {"choices": [{"index": n, "delta": {"content": f"part {part} of {n};"}, "finish_reason": None}]}
        for part in range(2)
        for n in (1, 0)
    ]
    ends = [
        {"choices": [{"index": n, "delta": {}, "finish_reason": finish}]} for n, finish in ((0, "stop"), (1, "length"))
    ]
    play(server, [events(*chunks, *ends)])
    arrived, _ = collect(teacher(server, samples=2, concurrency=2), users(1, (0, 1)))
    assert arrived == [
        Completion("u0", 0, "part 0 of 0;part 1 of 0;"),
        Completion("u0", 1, "part 0 of 1;part 1 of 1;", "length"),
    ]
