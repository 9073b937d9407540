"""What an endpoint's headers, names and errors mean: literals in, literals out."""

import json

import pytest
from multidict import CIMultiDict

from conf_profile.config import ConfigError, TeacherConfig, resolve
from conf_profile.errors import TeacherError
from conf_profile.teachers.endpoint import advice
from conf_profile.teachers.endpoint.model_names import same_model
from conf_profile.teachers.endpoint.rate_limits import parse_reset, seconds_to_wait
from conf_profile.teachers.endpoint.refusals import read_hidden_refusal, read_refusal
from conf_profile.teachers.openai import OpenAITeacher

NOW = 1_760_000_000.0


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1s", 1.0),
        ("6m0s", 360.0),
        ("250ms", 0.25),
        ("1h2m3.5s", 3723.5),
        ("1d", 86400.0),
        ("7m", 420.0),
        ("1m500ms", 60.5),
        ("30", 30.0),
        ("0", 0.0),
        ("-5", 0.0),
        ("1760000012", 12.0),
        ("1760000012500", 12.5),
        ("1759999999", 0.0),
        ("2025-10-09T08:53:25Z", 5.0),
        ("2025-10-09t08:53:25z", 5.0),
        ("2025-10-09T10:53:25+02:00", 5.0),
        ("soon", 0.0),
        ("", 0.0),
        ("nan", 0.0),
        ("inf", 0.0),
    ],
)
def test_forms_of_a_reset(text, seconds):
    assert parse_reset(text, NOW) == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, 0.0),
        ({"Retry-After-Ms": "1500", "Retry-After": "2"}, 1.5),
        ({"Retry-After": "7", "X-RateLimit-Reset": "60"}, 7.0),
        ({"Retry-After": "0", "X-RateLimit-Reset": "60"}, 0.0),
        ({"Retry-After": "Thu, 09 Oct 2025 08:53:30 GMT"}, 10.0),
        ({"X-RateLimit-Reset": "1760000012500"}, 12.5),
        ({"RateLimit-Reset": "30"}, 30.0),
        ({"x-ratelimit-reset-requests": "1s", "x-ratelimit-reset-tokens": "6m0s"}, 1.0),
        (
            {
                "x-ratelimit-reset-requests": "1s",
                "x-ratelimit-remaining-requests": "59",
                "x-ratelimit-reset-tokens": "6m0s",
                "x-ratelimit-remaining-tokens": "0",
            },
            360.0,
        ),
        (
            {
                "anthropic-ratelimit-tokens-reset": "2025-10-09T08:53:25Z",
                "anthropic-ratelimit-tokens-remaining": "0",
                "anthropic-ratelimit-requests-reset": "2025-10-09T08:53:21Z",
                "anthropic-ratelimit-requests-remaining": "4",
            },
            5.0,
        ),
    ],
)
def test_the_most_exact_header_wins(headers, seconds):
    assert seconds_to_wait(CIMultiDict(headers), NOW) == pytest.approx(seconds)


def test_limits_that_were_not_hit_are_no_reason_to_wait():
    headers = CIMultiDict({"x-ratelimit-reset-tokens": "6m0s", "x-ratelimit-remaining-tokens": "0"})
    assert seconds_to_wait(headers, NOW, throttled=False) == 0.0
    assert seconds_to_wait(CIMultiDict({"Retry-After": "3"}), NOW, throttled=False) == 3.0


@pytest.mark.parametrize(
    ("asked", "answered", "same"),
    [
        ("gpt-4o", "gpt-4o", True),
        ("gpt-4o", "gpt-4o-2024-08-06", True),
        ("gpt-4o", "gpt-4o-mini", False),
        ("gpt-4o-mini", "gpt-4o", False),
        ("openai/gpt-4o", "gpt-4o-2024-08-06", True),
        ("deepseek-chat", "deepseek-chat-v3-0324", True),
        ("deepseek-reasoner", "deepseek-chat", False),
        ("mistral-large-latest", "mistral-large-2411", True),
        ("Qwen/Qwen3-8B", "qwen3-8b", True),
        ("/models/Qwen3-8B/", "Qwen3-8B", True),
        ("meta-llama/llama-3-8b:free", "meta-llama/llama-3-8b", True),
        ("llama-3-8b", "llama-3-70b", False),
        ("qwen3-8b", "qwen3-80b", False),
        ("gpt-4", "gpt-4.1", False),
        ("o1", "o1-2024-12-17", True),
        ("my-deployment", "gpt-4o-2024-11-20", False),
    ],
)
def test_which_names_may_be_those_of_one_model(asked, answered, same):
    assert same_model(asked, answered) is same


@pytest.mark.parametrize(
    ("status", "body", "quota", "reason", "passes"),
    [
        (429, {"error": {"code": "insufficient_quota", "message": "no"}}, True, "", True),
        (429, {"error": {"code": "rate_limit", "message": "You exceeded your current quota"}}, False, "", True),
        (429, {"error": {"code": "rate_limit", "message": "context window of the limiter"}}, False, "", True),
        (403, {"error": {"type": "insufficient_user_quota", "message": "x"}}, True, "", False),
        (400, {"error": {"message": "Content Exists Risk", "code": "invalid"}}, False, "content_filter", False),
        (400, {"code": "data_inspection_failed", "message": "may contain"}, False, "content_filter", False),
        (400, {"detail": "the prompt is too long"}, False, "context_length_exceeded", False),
        (400, [{"error": {"code": 400, "message": "bad"}}], False, "", False),
        (400, {"error": "the request exceeds the available context size"}, False, "context_length_exceeded", False),
        (401, {"error": {"message": "no key", "code": "invalid_api_key"}}, False, "", False),
        (503, {"error": {"message": "overloaded"}}, False, "", True),
        (409, {"error": None}, False, "", True),
    ],
)  # fmt: skip
def test_whose_fault_an_error_is(status, body, quota, reason, passes):
    refusal = read_refusal(status, json.dumps(body).encode())
    assert (refusal.is_quota, refusal.prompt_reason, refusal.may_pass) == (quota, reason, passes)


def test_an_answer_hides_no_error():
    assert read_hidden_refusal({"choices": [{"message": {"content": "x"}}], "error": None}) is None
    assert read_hidden_refusal({"choices": []}) is None
    assert read_hidden_refusal([]) is None


@pytest.mark.parametrize(
    ("base_url", "shown"),
    [
        ("https://Host.Example:443/v1/", "https://host.example/v1/chat/completions"),
        ("http://h/ü x/v1", "http://h/%C3%BC%20x/v1/chat/completions"),
        ("https://münchen.de/v1?key=secret", "https://xn--mnchen-3ya.de/v1/chat/completions"),
        ("http://[::1]:8000", "http://[::1]:8000/chat/completions"),
    ],
)
def test_the_address_is_written_as_kept_answers_name_it(base_url, shown):
    assert str(advice.endpoint_url(base_url).with_query(None)) == shown


def config(**values):
    return TeacherConfig(kind="openai", base_url="https://host/v1", model="m", **values)


def test_the_fingerprint_names_further_fields_and_stays_as_it_was_without_them():
    plain = OpenAITeacher(config()).fingerprint
    assert plain == (
        '{"kind": "openai", "url": "https://host/v1/chat/completions", "model": "m", "temperature": 1.0, '
        '"max_tokens": 512}'
    )
    assert OpenAITeacher(config(answers_as=("x",), samples_per_request=1)).fingerprint == plain
    assert '"extra_body": {"top_p": 0.9}' in OpenAITeacher(config(extra_body={"top_p": 0.9})).fingerprint


@pytest.mark.parametrize(
    ("field", "remedy"), [("n", "samples_per_request"), ("model", "teacher.model"), ("messages", "")]
)
def test_fields_that_have_a_key_of_their_own_are_refused(field, remedy):
    with pytest.raises(ConfigError, match=f"teacher.extra_body must not hold '{field}': .*{remedy}"):
        resolve(values={"teacher": {"kind": "openai", "base_url": "https://h", "model": "m", "extra_body": {field: 1}}})


def test_further_fields_travel_to_the_step():
    given = config(
        extra_body={"chat_template_kwargs": {"enable_thinking": False}, "temperature": None, "stop": ["</x>"]}
    )
    assert TeacherConfig.model_validate_json(given.for_step()) == given
    resolved = resolve(overrides=["teacher.extra_body={reasoning_effort: low}", "teacher.answers_as=[gpt-4o]"])
    assert (resolved.teacher.extra_body, resolved.teacher.answers_as) == ({"reasoning_effort": "low"}, ("gpt-4o",))


def test_a_key_that_is_no_key_is_told(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-ü")
    with pytest.raises(TeacherError, match="OPENAI_API_KEY"):
        OpenAITeacher(config())
