"""Asks vLLM's OpenAI server for answers: one shared client, bounded concurrency, a deadline, few retries.

Retried are connect errors and 503 only: nothing was computed yet, so trying again costs the predictor nothing. A
timeout, a 500 or a cut connection may have cost a whole generation, and is the caller's to judge.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import httpx

from conf_profile.prompts import Message
from serving.bundle import Bundle
from serving.circuit_breaker import CircuitBreaker
from serving.levels import TOP_LOGPROBS, expected_levels
from serving.metrics import BREAKER_OPEN, RETRIES
from serving.profile import Completion
from serving.settings import PredictorSettings

STATES = {"closed": 0, "half_open": 1, "open": 2}


class PredictorError(Exception):
    """The predictor gave no answer; `status` is what the caller is told."""

    status = 502


class PredictorUnavailableError(PredictorError):
    """It cannot be reached or is overloaded, and trying again did not help; or the breaker is open."""

    status = 503


class BreakerOpenError(PredictorUnavailableError):
    """The breaker is open: the predictor is not even asked."""


class DeadlineExceededError(PredictorError):
    """The request's time was over first."""

    status = 504


@dataclass(frozen=True)
class Question:
    """One user's prompt and how many samples are wanted."""

    messages: Sequence[Message]
    samples: int


class PredictorClient:
    """One for each process; `aclose` ends its connections."""

    def __init__(self, settings: PredictorSettings, bundle: Bundle) -> None:
        self._settings = settings
        self._fixed = _fixed_body(settings, bundle)
        self._places = asyncio.Semaphore(settings.concurrency)
        self._breaker = CircuitBreaker(settings.breaker_failures, settings.breaker_seconds)
        limits = httpx.Limits(max_connections=settings.concurrency, max_keepalive_connections=settings.concurrency)
        self._http = httpx.AsyncClient(base_url=settings.url, limits=limits, timeout=None)

    async def ask(self, question: Question, deadline: float, headers: Mapping[str, str]) -> list[Completion]:
        """The samples; raises PredictorError. `deadline` is a time of the monotonic clock, in seconds."""
        try:
            async with asyncio.timeout(max(0.0, deadline - time.monotonic())), self._places:
                return await self._ask(question, headers)
        except TimeoutError as error:
            # A predictor that takes requests and never answers must open the breaker, too.
            self._breaker.failed()
            raise DeadlineExceededError("the deadline passed before the predictor answered") from error

    async def ready(self) -> bool:
        """Whether the predictor says that it can answer."""
        with contextlib.suppress(httpx.HTTPError):
            return (await self._http.get("/health", timeout=2.0)).status_code == httpx.codes.OK
        return False

    async def aclose(self) -> None:
        await self._http.aclose()

    async def _ask(self, question: Question, headers: Mapping[str, str]) -> list[Completion]:
        attempt = 1
        while True:
            try:
                return await self._try(question, headers)
            except BreakerOpenError:
                raise
            except PredictorUnavailableError:
                if attempt == self._settings.max_attempts:
                    raise
            RETRIES.inc()
            await asyncio.sleep(self._settings.backoff_seconds * 2 ** (attempt - 1) * random.uniform(0.5, 1.0))
            attempt += 1

    async def _try(self, question: Question, headers: Mapping[str, str]) -> list[Completion]:
        async with self._guarded():
            try:
                response = await self._http.post(
                    "/v1/chat/completions", json=self.body(question), headers=dict(headers)
                )
            except httpx.ConnectError as error:
                raise PredictorUnavailableError(
                    f"the predictor at {self._settings.url} cannot be reached: {error}"
                ) from error
            except httpx.HTTPError as error:
                raise PredictorError(f"the predictor broke off: {type(error).__name__}: {error}") from error
            return _completions(response)

    @contextlib.asynccontextmanager
    async def _guarded(self) -> AsyncIterator[None]:
        """One try under the breaker's eye."""
        if not self._breaker.allow():
            raise BreakerOpenError("the predictor has failed too often and is left alone for a moment")
        try:
            yield
        except PredictorError:
            self._breaker.failed()
            raise
        except BaseException:
            self._breaker.gave_up()
            raise
        else:
            self._breaker.succeeded()
        finally:
            BREAKER_OPEN.set(STATES[self._breaker.state])

    def body(self, question: Question) -> dict[str, Any]:
        """The JSON that vLLM is sent."""
        several = question.samples > 1
        sampling = {"n": question.samples, "temperature": self._settings.vote_temperature if several else 0.0}
        return {**self._fixed, **sampling, "messages": list(question.messages)}


def _fixed_body(settings: PredictorSettings, bundle: Bundle) -> dict[str, Any]:
    """What every request says: as in training, the chat template writes no thinking, and nothing is hidden."""
    body: dict[str, Any] = {
        "model": settings.model,
        "max_tokens": bundle.max_completion_tokens,
        "logprobs": True,
        "top_logprobs": TOP_LOGPROBS,
        "skip_special_tokens": False,
        "chat_template_kwargs": {"enable_thinking": False},
    }
    if settings.structured_output:
        body["structured_outputs"] = {"regex": bundle.grammar}
    return body


def _completions(response: httpx.Response) -> list[Completion]:
    if response.status_code == httpx.codes.SERVICE_UNAVAILABLE:
        raise PredictorUnavailableError("the predictor is overloaded (503)")
    if response.status_code != httpx.codes.OK:
        raise PredictorError(f"the predictor answered {response.status_code}: {response.text[:300]}")
    try:
        return [_completion(choice) for choice in response.json()["choices"]]
    except (ValueError, KeyError, TypeError) as error:
        raise PredictorError(f"the predictor's answer is not a chat completion: {error}") from error


def _completion(choice: Mapping[str, Any]) -> Completion:
    logprobs = (choice.get("logprobs") or {}).get("content") or []
    return Completion(choice["message"]["content"] or "", expected_levels(logprobs))
