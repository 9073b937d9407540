"""The address and the key of an endpoint, and what to do about what it refuses: place and remedy, in words."""

from __future__ import annotations

import os

from yarl import URL

from conf_profile.errors import TeacherError
from conf_profile.teachers.endpoint.refusals import CONTEXT_LENGTH, Refusal

KEYS_SECRET = "CONF_PROFILE_TEACHER_KEY"
"""Environment variable that says in words where the key's own variable is filled from, if a cluster's secret does."""
QUOTA = "the account has no credit left, or has reached its limit; what had arrived is kept, so run again once it has"
_EXAMPLE = "expected e.g. https://host/v1"
_BY_STATUS = {
    400: "the request was refused; check teacher.model, teacher.max_tokens and teacher.extra_body",
    401: "the key has expired or is wrong; put a valid one into {key} and run again, what had arrived is kept",
    403: "the key in {key} may not use this model",
    404: "check teacher.base_url (it usually ends in /v1) and teacher.model",
    422: "the request was refused; check teacher.model, teacher.temperature, teacher.max_tokens and teacher.extra_body",
}


def endpoint_url(base_url: str) -> URL:
    """Where completions are asked for. TeacherError for what is no address, or holds a password."""
    try:
        url = URL(base_url)
    except ValueError as error:
        raise TeacherError(f"teacher.base_url is not a URL: {error}; {_EXAMPLE}") from error
    if url.scheme not in ("http", "https") or not url.host:
        raise TeacherError(f"teacher.base_url {base_url!r} is not an http(s) URL; {_EXAMPLE}")
    if url.raw_user is not None or url.raw_password is not None:
        raise TeacherError("teacher.base_url holds a password; the key belongs into teacher.api_key_env")
    return url.with_path(url.raw_path.rstrip("/") + "/chat/completions", encoded=True, keep_query=True)


def read_key(variable: str) -> str:
    """The key that an environment variable holds, empty where there is none. TeacherError for what is no key."""
    key = os.environ.get(variable, "").strip()
    if not key.isascii() or not key.isprintable():
        raise TeacherError(f"the environment variable {variable} holds unprintable characters, not a key")
    return key


def for_refusal(refusal: Refusal, url: URL, key_variable: str, location: str) -> str:
    """What to do about a refusal that asking again cannot help. `location` is that of a redirection."""
    if 300 <= refusal.status < 400 and location:
        return f"it redirects to {location.partition('?')[0]}; put the right address into teacher.base_url"
    if url.scheme == "http" and "https" in refusal.message.lower():
        return "it seems to want https:// in teacher.base_url"
    advice = _BY_STATUS.get(refusal.status, "check teacher.base_url and the server's documentation")
    return advice.format(key=_place_of_key(key_variable))


def for_failed_attempts(url: URL, reason: str, throttled: bool) -> str:
    """What to do when the attempts are used up."""
    if "the proxy " in reason:
        return "Check HTTP_PROXY, HTTPS_PROXY and ALL_PROXY, or name the teacher's host in NO_PROXY"
    if throttled:
        return "Lower teacher.concurrency"
    if "WRONG_VERSION_NUMBER" in reason or "record layer failure" in reason:
        return "The server speaks no TLS there: write http:// or another port in teacher.base_url"
    if "speaks no HTTP" in reason and url.scheme == "http":
        return "Check host and port of teacher.base_url, and whether it should begin with https://"
    if "teacher.timeout_seconds" in reason:
        return "Raise teacher.timeout_seconds, or lower teacher.concurrency or teacher.max_tokens"
    if "ServerDisconnected" in reason and url.scheme == "http":
        return "Check teacher.base_url (does it end in /v1, does the server want https://?) and that the server runs"
    return "Check teacher.base_url (it usually ends in /v1) and that the server runs"


def for_refused_prompts(reason: str) -> str:
    """What to do when nearly every prompt is refused."""
    if reason == CONTEXT_LENGTH:
        return "lower prompt.max_keyphrases or teacher.max_tokens, or ask a model with a longer context"
    return "ask another model, or have the filter of this one changed"


def _place_of_key(variable: str) -> str:
    secret = os.environ.get(KEYS_SECRET)
    return f"the environment variable {variable}" + (f" ({secret})" if secret else "")
