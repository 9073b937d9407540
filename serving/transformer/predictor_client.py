"""Asks vLLM's OpenAI server for answers: one shared client, bounded concurrency, a deadline, few retries.

Retried are connect errors, 503, and a predictor that goes away before it has answered a word: a pod that is replaced
ends its connections, and drops what came too late. A retry takes a new connection, since the old ones may all lead to
that pod. A timeout, a 500 or an answer that breaks off may have cost a whole generation, and is the caller's to judge.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, TypeVar

import orjson

from conf_profile.dialogue.prompts import Message
from serving.circuit_breaker import CircuitBreaker
from serving.model.bundle import UNRELEASED_VERSION, Bundle
from serving.model.levels import TOP_LOGPROBS, expected_levels
from serving.model.profile import Completion
from serving.settings import PredictorSettings
from serving.telemetry.metrics import BREAKER_OPEN, RETRIES
from serving.transformer.predictor_http import BrokeOffError, NotConnectedError, PredictorHTTP, Response, WentAwayError

T = TypeVar("T")

STATES = {"closed": 0, "half_open": 1, "open": 2}
LOOK_SECONDS = 2.0
"""For an answer without a prompt."""
REFUSALS = (HTTPStatus.BAD_REQUEST, HTTPStatus.REQUEST_ENTITY_TOO_LARGE, HTTPStatus.UNPROCESSABLE_ENTITY)
"""What says nothing against the predictor: the next prompt may be in order."""
ABORT_REASON = "abort"
"""vLLM's reason for an answer that it dropped because it is ending."""


class PredictorError(Exception):
    """The predictor gave no answer; `status` is what the caller is told."""

    status = 502


class PredictorUnavailableError(PredictorError):
    """It cannot be reached or is overloaded, and trying again did not help; or the breaker is open."""

    status = 503


class BreakerOpenError(PredictorUnavailableError):
    """The breaker is open: the predictor is not even asked."""


class PredictorGoneError(PredictorUnavailableError):
    """It went away before it answered."""


class OtherVersionError(PredictorUnavailableError):
    """It does not serve the version that was asked for."""


class RefusedError(PredictorError):
    """It says that the request is wrong, such as a prompt that is too long: no sign that it fails."""


class DeadlineExceededError(PredictorError):
    """The request's time was over first."""

    status = 504


@dataclass(frozen=True)
class Question:
    """One user's prompt and how many samples are wanted.

    `patient`: there is as much time as the server allows. Where a caller allows less, a deadline that passes tells
    nothing against the predictor.
    """

    messages: Sequence[Message]
    samples: int
    patient: bool = True


class PredictorClient:
    """Asks for one model version; `aclose` ends its connections."""

    def __init__(self, settings: PredictorSettings, bundle: Bundle) -> None:
        self._settings = settings
        self._fixed = _fixed_body(settings, bundle)
        self._places = asyncio.Semaphore(settings.concurrency)
        self._breaker = CircuitBreaker(settings.breaker_failures, settings.breaker_seconds)
        self._http = PredictorHTTP(settings.url, settings.concurrency)

    def for_bundle(self, bundle: Bundle) -> PredictorClient:
        """A client for another version behind the same address: same connections, same breaker."""
        other = copy.copy(self)
        other._fixed = _fixed_body(self._settings, bundle)
        return other

    @contextlib.asynccontextmanager
    async def open_one_pod(self) -> AsyncIterator[PredictorClient]:
        """A client with one new connection: what it is told and what it is answered come from the same pod."""
        alone = copy.copy(self)
        alone._http = PredictorHTTP(self._settings.url, 1)
        try:
            yield alone
        finally:
            await alone.aclose()

    async def ask(self, question: Question, deadline: float, headers: Mapping[str, str]) -> list[Completion]:
        """The samples; raises PredictorError. `deadline` is a time of the monotonic clock, in seconds."""
        began = self._breaker.clock()
        try:
            async with asyncio.timeout(max(0.0, deadline - time.monotonic())), self._places:
                return await self._retry(lambda attempt: self._try(question, headers, anew=attempt > 1))
        except TimeoutError as error:
            # A predictor that takes requests and never answers must open the breaker, too.
            if question.patient:
                self._breaker.record_timeout(began)
            raise DeadlineExceededError("the deadline passed before the predictor answered") from error
        finally:
            BREAKER_OPEN.set(STATES[self._breaker.state])

    async def served_names(self) -> list[str]:
        """The names under which the predictor serves its model, its version among them; raises PredictorError."""
        response = await self._retry(lambda _: self._get("/v1/models"))
        try:
            return [str(item["id"]) for item in orjson.loads(response.body)["data"]]
        except (ValueError, LookupError, TypeError) as error:
            raise PredictorError(f"the predictor's list of models is not one: {error}") from error

    async def is_ready(self) -> bool:
        """Whether the predictor says that it can answer."""
        with contextlib.suppress(PredictorError):
            return bool(await self._get("/health"))
        return False

    async def aclose(self) -> None:
        await self._http.close()

    async def _get(self, path: str) -> Response:
        """What is there without a prompt; PredictorUnavailableError where nothing is."""
        try:
            response = await self._http.get(path, LOOK_SECONDS)
        except (NotConnectedError, WentAwayError, BrokeOffError, TimeoutError) as error:
            raise PredictorUnavailableError(f"the predictor does not answer {path}: {error}") from error
        if response.status != HTTPStatus.OK:
            raise PredictorUnavailableError(f"the predictor answered {path} with {response.status}")
        return response

    async def _retry(self, once: Callable[[int], Awaitable[T]]) -> T:
        """What `once` gives, which is told the number of the try, from 1; again where the predictor was not there."""
        attempt = 1
        while True:
            try:
                return await once(attempt)
            except (BreakerOpenError, OtherVersionError):
                raise
            except PredictorUnavailableError:
                if attempt == self._settings.max_attempts:
                    raise
            RETRIES.inc()
            await asyncio.sleep(self._settings.backoff_seconds * 2 ** (attempt - 1) * random.uniform(0.5, 1.0))
            attempt += 1

    async def _try(self, question: Question, headers: Mapping[str, str], anew: bool) -> list[Completion]:
        body = orjson.dumps(self.body(question))
        async with self._guard():
            return _completions(await self._answer(body, headers, anew), str(self._fixed["model"]))

    async def _answer(self, body: bytes, headers: Mapping[str, str], anew: bool) -> Response:
        try:
            return await self._http.post("/v1/chat/completions", body, headers, anew)
        except NotConnectedError as error:
            raise PredictorUnavailableError(
                f"the predictor at {self._settings.url} cannot be reached: {error}"
            ) from error
        except WentAwayError as error:
            raise PredictorGoneError(f"the predictor went away: {error}") from error
        except BrokeOffError as error:
            raise PredictorError(f"the predictor broke off: {error}") from error

    @contextlib.asynccontextmanager
    async def _guard(self) -> AsyncIterator[None]:
        """One try under the breaker's eye."""
        if not self._breaker.allow():
            raise BreakerOpenError("the predictor has failed too often and is left alone for a moment")
        try:
            yield
        except (PredictorGoneError, OtherVersionError, RefusedError):
            # Dozens at once when one pod of several ends, and no word about the others. And a front that refuses a
            # prompt says nothing of the engine behind it.
            self._breaker.release_trial()
            raise
        except PredictorError:
            self._breaker.record_failure()
            raise
        except BaseException:
            self._breaker.release_trial()
            raise
        else:
            self._breaker.record_success()

    def body(self, question: Question) -> dict[str, Any]:
        """The JSON that vLLM is sent."""
        several = question.samples > 1
        sampling = {"n": question.samples, "temperature": self._settings.vote_temperature if several else 0.0}
        return {**self._fixed, **sampling, "messages": list(question.messages)}


def asks_by_version(settings: PredictorSettings, bundle: Bundle) -> bool:
    """Whether the predictor is asked for this very version; one that no registry has published has no name."""
    return settings.by_version and bundle.version != UNRELEASED_VERSION


def _fixed_body(settings: PredictorSettings, bundle: Bundle) -> dict[str, Any]:
    """What every request says: as in training, the chat template writes no thinking, and nothing is hidden."""
    body: dict[str, Any] = {
        "model": bundle.version if asks_by_version(settings, bundle) else settings.model,
        "max_tokens": bundle.max_completion_tokens,
        "logprobs": True,
        "top_logprobs": TOP_LOGPROBS,
        "skip_special_tokens": False,
        "chat_template_kwargs": {"enable_thinking": False},
    }
    if settings.structured_output:
        body["structured_outputs"] = {"regex": bundle.grammar}
    return body


def _completions(response: Response, model: str) -> list[Completion]:
    if response.status == HTTPStatus.SERVICE_UNAVAILABLE:
        raise PredictorUnavailableError("the predictor is overloaded (503)")
    if response.status == HTTPStatus.NOT_FOUND:
        raise OtherVersionError(f"the predictor does not serve {model}")
    if response.status != HTTPStatus.OK:
        kind = RefusedError if response.status in REFUSALS else PredictorError
        raise kind(f"the predictor answered {response.status}{_reason(response)}")
    try:
        choices = orjson.loads(response.body)["choices"]
        if any(choice.get("finish_reason") == ABORT_REASON for choice in choices):
            raise PredictorGoneError("the predictor is ending and dropped the request")
        found = [_completion(choice) for choice in choices]
    except (ValueError, LookupError, TypeError, AttributeError, ArithmeticError) as error:
        raise PredictorError(f"the predictor's answer is not a chat completion: {type(error).__name__}") from error
    if not found:
        raise PredictorError("the predictor's answer is not a chat completion: it has no choice")
    return found


def _reason(response: Response) -> str:
    """What vLLM says of a request that it refuses; of a fault of its own callers only learn that there was one."""
    if response.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return ""
    with contextlib.suppress(ValueError, LookupError, TypeError, AttributeError):
        return ": " + str(orjson.loads(response.body)["error"]["message"]).partition("\n")[0][:300]
    return ""


def _completion(choice: Mapping[str, Any]) -> Completion:
    logprobs = (choice.get("logprobs") or {}).get("content") or []
    text = choice["message"]["content"] or ""
    if not isinstance(text, str):
        raise TypeError("content is not a text")
    return Completion(text, expected_levels(logprobs))
