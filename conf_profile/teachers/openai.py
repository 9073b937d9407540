"""A teacher behind any OpenAI-compatible `/chat/completions` endpoint: DeepSeek, a vLLM or KServe URL.

One HTTP request a sample, since not every endpoint knows `n`. What is retried: refused and cut connections,
timeouts, 408, 425, 429, 5xx and bodies that are not a chat completion. What is not: every other 4xx, because
asking again would not help. A `Retry-After` holds back all requests, not only the one that received it; a 429
does not use up a request's attempts while other requests are being answered.

Where the environment gives a budget of seconds (`transient`), a request that has used up its attempts goes on for as
long as that lasts: connections, timeouts, statuses, not bodies that are no chat completion. All requests share the
count of how long the server has been away, and its lines in the log.

The budget (`teacher.max_requests`) counts HTTP requests that the server may have charged for: retries count,
a refused connection and a 429 do not. What `spending` says of earlier tries counts too; kept answers cost nothing.

After a failure nothing new is asked, but requests that are under way may finish: they are paid for.

No library keeps such a budget. The openai client retries each request alone; async-batch-llm 0.28 holds back all of
them and resumes, but its budget counts the tokens of one run, from what the answers report once they are paid for.
"""

from __future__ import annotations

import asyncio
import email.utils
import itertools
import json
import math
import os
import random
import ssl
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC
from typing import Any

import httpx

from conf_profile.config import TeacherConfig
from conf_profile.dialogue.prompts import Message
from conf_profile.dialogue.thinking import strip_thinking
from conf_profile.errors import TeacherError
from conf_profile.teachers.protocol import Completion, Request
from conf_profile.teachers.spending import Spending
from conf_profile.transient import Outage, is_caused_by, retry_seconds

UNREACHED_ATTEMPTS = 3
"""Tries at connecting while the server has never answered: a wrong address should be known within seconds."""
LONGEST_RETRY_AFTER = 600.0
"""Seconds; a server that wants a longer pause ends the run, which can be started again later."""
CONNECT_SECONDS = 10.0
KEYS_SECRET = "CONF_PROFILE_TEACHER_KEY"
"""Environment variable that says in words where the key's own variable is filled from, if a cluster's secret does."""
LONGEST_BACKOFF = 30.0
"""Seconds."""
_RETRIED_STATUSES = frozenset({408, 425, 429})
_UNSENT_ERRORS = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)
_ADVICE = {
    400: "the request was refused; check teacher.model and teacher.max_tokens",
    401: "the key has expired or is wrong; put a valid one into {key} and run again, what had arrived is kept",
    402: "the account has no credit left; what had arrived is kept, so run again once it has",
    403: "the key in {key} may not use this model",
    404: "check teacher.base_url (it usually ends in /v1) and teacher.model",
    413: "the prompt is too long; lower prompt.max_keyphrases",
    422: "the request was refused; check teacher.model, teacher.temperature and teacher.max_tokens",
}
_EXAMPLE = "expected e.g. https://host/v1"


class _RetryableError(Exception):
    """An attempt that failed in a way that another one may not.

    `reached`: the server may have seen it; `throttled`: it was refused for coming too fast; `wait`: seconds
    that Retry-After asks for; `outage`: what it is called in the log if the server, or the way to it, is away.
    """

    def __init__(
        self, reason: str, reached: bool = True, throttled: bool = False, wait: float = 0.0, outage: str = ""
    ) -> None:
        super().__init__(reason)
        self.outage = outage
        self.reached = reached
        self.throttled = throttled
        self.wait = wait


@dataclass
class _Run:
    """What the workers of one call of `complete` share."""

    client: httpx.AsyncClient
    outage: Outage
    jobs: Iterator[tuple[Request, int]]
    arrivals: asyncio.Queue[Completion | None] = field(default_factory=asyncio.Queue)
    stopped: asyncio.Event = field(default_factory=asyncio.Event)
    failure: Exception | None = None
    arrived: int = 0
    reached: bool = False
    not_before: float = 0.0

    def fail(self, error: Exception) -> None:
        """Keeps the first error and wakes everyone who waits."""
        self.failure = self.failure or error
        self.stopped.set()

    async def pause(self, seconds: float) -> None:
        """Waits, but not beyond a failure elsewhere."""
        if seconds > 0:
            with suppress(TimeoutError):
                await asyncio.wait_for(self.stopped.wait(), seconds)
        if self.failure:
            raise self.failure

    async def turn(self) -> None:
        """Waits while the server wants to be left alone."""
        while (wait := self.not_before - time.monotonic()) > 0:
            await self.pause(wait)
        await self.pause(0)


class OpenAITeacher:
    """Asks `teacher.model` at `teacher.base_url`, `teacher.concurrency` requests at a time."""

    def __init__(self, config: TeacherConfig, spending: Spending | None = None) -> None:
        """Reads the key from the environment; no key means none is sent (a server of your own).

        `spending` is what counts against the budget, from now on or from earlier tries on.
        """
        self._config = config
        self._spending = spending or Spending()
        self._url = _endpoint(config.base_url or "")
        # A query may hold a key; it is sent and never shown.
        self._name = str(self._url.copy_with(query=None))
        self._key = _key(config.api_key_env)
        self._retry_seconds = retry_seconds()

    @property
    def fingerprint(self) -> str:
        """Endpoint, model, temperature and length; never the key."""
        config = self._config
        parts = {"url": self._name, "model": config.model, "temperature": config.temperature}
        return json.dumps({"kind": "openai", **parts, "max_tokens": config.max_tokens})

    async def complete(self, requests: Sequence[Request]) -> AsyncIterator[Completion]:
        """Yields each completion as it arrives; see the module for retries, budget and errors."""
        jobs = ((request, sample) for request in requests for sample in request.samples)
        workers = min(self._config.concurrency, sum(len(request.samples) for request in requests))
        async with self._client() as client:
            run = _Run(client, Outage(f"the teacher at {self._name}", self._retry_seconds), jobs)
            tasks = [asyncio.create_task(self._work(run)) for _ in range(workers)]
            try:
                while workers:
                    completion = await run.arrivals.get()
                    if completion is None:
                        workers -= 1
                    else:
                        yield completion
            finally:
                await _cancel(tasks)
        if run.failure:
            raise run.failure

    async def aclose(self) -> None:
        """Nothing to do: connections live as long as one call of `complete`."""

    def _client(self) -> httpx.AsyncClient:
        seconds = self._config.timeout_seconds
        return httpx.AsyncClient(
            headers={"Authorization": f"Bearer {self._key}"} if self._key else {},
            timeout=httpx.Timeout(seconds, connect=min(CONNECT_SECONDS, seconds)),
            limits=httpx.Limits(max_connections=self._config.concurrency),
        )

    async def _work(self, run: _Run) -> None:
        try:
            for request, sample in run.jobs:
                text = await self._answer(run, request.messages)
                run.arrived += 1
                run.outage.end()
                run.arrivals.put_nowait(Completion(request.user_id, sample, text))
                if run.failure:
                    break
        except Exception as error:
            run.fail(error)
        finally:
            run.arrivals.put_nowait(None)

    async def _answer(self, run: _Run, messages: Sequence[Message]) -> str:
        """One sample, tried until it arrives, or the attempts and the time for retries are spent."""
        attempts, arrived, failed = 0, run.arrived, math.inf
        for tries in itertools.count(1):
            await run.turn()
            began = run.outage.now()
            try:
                return await self._attempt(run, messages)
            except _RetryableError as error:
                # Being throttled while others are served is no sign of trouble.
                served = error.throttled and run.arrived > arrived
                attempts, arrived = 0 if served else attempts + 1, run.arrived
                failed, pause = min(failed, run.outage.now()), None
                if error.outage and self._retry_seconds and not served:
                    pause = run.outage.next_pause("get an answer", error.outage, began, failed, tries)
                if pause is None and attempts >= self._allowed_attempts(run, error):
                    raise self._exhausted_error(run, error, attempts, failed) from error
                await run.pause(error.wait + (_backoff(tries) if pause is None else pause))
        raise AssertionError("unreachable")

    def _allowed_attempts(self, run: _Run, error: _RetryableError) -> int:
        allowed = self._config.max_attempts
        return allowed if run.reached or error.reached else min(allowed, UNREACHED_ATTEMPTS)

    def _exhausted_error(self, run: _Run, error: _RetryableError, attempts: int, failed: float) -> TeacherError:
        problem = "does not answer properly" if error.reached else "cannot be reached"
        given_up = TeacherError(
            f"{self._name}: the teacher {problem}: {error} (attempt {attempts}). Check teacher.base_url "
            "and that the server runs; what had arrived is kept, so run again"
        )
        return run.outage.add_duration(given_up, failed) if error.outage and self._retry_seconds else given_up

    async def _attempt(self, run: _Run, messages: Sequence[Message]) -> str:
        self._spend()
        try:
            response = await self._post(run, messages)
        except _UNSENT_ERRORS as error:
            self._spending.add(-1)
            raise _RetryableError(_describe(error), reached=False, outage=_outage(error)) from error
        except (httpx.TransportError, httpx.DecodingError, TimeoutError) as error:
            raise _RetryableError(_describe(error), outage=type(error).__name__) from error
        run.reached = True
        return self._read(run, response)

    def _spend(self) -> None:
        budget = self._config.max_requests
        if budget is not None and self._spending.requests >= budget:
            raise TeacherError(
                f"{self._name}: the budget of {budget} requests (teacher.max_requests) is spent; "
                "what had arrived is kept, so raise it and run again for the rest"
            )
        self._spending.add(1)

    async def _post(self, run: _Run, messages: Sequence[Message]) -> httpx.Response:
        body = {
            "model": self._config.model,
            "messages": list(messages),
            "temperature": self._config.temperature,
            "max_tokens": self._config.max_tokens,
        }
        # httpx limits each read; a server that drips single bytes would pass that for ever.
        async with asyncio.timeout(self._config.timeout_seconds):
            return await run.client.post(self._url, json=body)

    def _read(self, run: _Run, response: httpx.Response) -> str:
        if response.status_code == 200:
            return strip_thinking(self._content(response))
        if response.status_code in _RETRIED_STATUSES or response.status_code >= 500:
            raise self._throttled_error(run, response)
        advice = _ADVICE.get(response.status_code, "check teacher.base_url and the server's documentation")
        raise TeacherError(
            f"{self._name}: the teacher answers {response.status_code} ({self._excerpt(response)}): "
            + advice.format(key=_place_of_key(self._config.api_key_env))
        )

    def _content(self, response: httpx.Response) -> str:
        """The answer's text; no content (a thought that filled the limit) is an empty, malformed answer."""
        try:
            content: Any = response.json()["choices"][0]["message"]["content"]
        except (ValueError, KeyError, IndexError, TypeError) as error:
            # Some providers send an error's text with status 200; an answer's text stays out of messages.
            told = f": {self._excerpt(response)}" if b'"error"' in response.content else ""
            raise _RetryableError(f"the body is not a chat completion{told}") from error
        if content is not None and not isinstance(content, str):
            raise _RetryableError("the completion's content is not text")
        return content or ""

    def _throttled_error(self, run: _Run, response: httpx.Response) -> Exception:
        wait = retry_after_seconds(response.headers.get("Retry-After"), time.time())
        reason = f"{response.status_code} {self._excerpt(response)}"
        if wait > max(LONGEST_RETRY_AFTER, self._retry_seconds):
            return TeacherError(
                f"{self._name}: the teacher answers {reason} and asks to wait {wait:.0f} s; what had arrived "
                "is kept, so run again then"
            )
        run.not_before = max(run.not_before, time.monotonic() + wait)
        throttled = response.status_code == 429
        if throttled:
            self._spending.add(-1)
        outage = f"status {response.status_code}"
        return _RetryableError(reason, throttled=throttled, wait=wait, outage=outage)

    def _excerpt(self, response: httpx.Response) -> str:
        text = " ".join(response.text.split())
        return (text.replace(self._key, "***") if self._key else text)[:200] or "no text"


def retry_after_seconds(header: str | None, now: float) -> float:
    """Seconds that a Retry-After header asks for: a number or an HTTP date; 0 where it says nothing.

    `now` is in seconds since the epoch.
    """
    if not header:
        return 0.0
    try:
        return max(0.0, float(header))
    except ValueError:
        return _seconds_until(header, now)


def _seconds_until(date: str, now: float) -> float:
    try:
        moment = email.utils.parsedate_to_datetime(date)
    except ValueError:
        return 0.0
    return max(0.0, (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() - now)


def _backoff(tries: int) -> float:
    return random.uniform(0.0, min(LONGEST_BACKOFF, 0.25 * 2 ** min(tries, 16)))


def _describe(error: Exception) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


def _outage(error: Exception) -> str:
    """What a lost connection is called in the log; empty for a certificate, which will not hold later either."""
    return "" if is_caused_by(error, ssl.SSLCertVerificationError) else type(error).__name__


def _endpoint(base_url: str) -> httpx.URL:
    try:
        url = httpx.URL(base_url)
    except httpx.InvalidURL as error:
        raise TeacherError(f"teacher.base_url is not a URL: {error}; {_EXAMPLE}") from error
    if url.scheme not in ("http", "https") or not url.host:
        raise TeacherError(f"teacher.base_url {base_url!r} is not an http(s) URL; {_EXAMPLE}")
    if url.userinfo:
        raise TeacherError("teacher.base_url holds a password; the key belongs into teacher.api_key_env")
    return url.copy_with(path=url.path.rstrip("/") + "/chat/completions")


def _place_of_key(variable: str) -> str:
    secret = os.environ.get(KEYS_SECRET)
    return f"the environment variable {variable}" + (f" ({secret})" if secret else "")


def _key(variable: str) -> str:
    key = os.environ.get(variable, "").strip()
    if not key.isascii() or not key.isprintable():
        raise TeacherError(f"the environment variable {variable} holds unprintable characters, not a key")
    return key


async def _cancel(tasks: Sequence[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
