"""The KServe transformer: features, prompt, vLLM, thresholds. One process serves one model version at a time.

    python -m serving --settings FILE [--http_port 8080 ...]

preprocess reads the features of all users of a request in one go and writes the prompts; predict asks vLLM for all
of them at once; postprocess parses, calibrates and decides. Nobody without consent gets a prompt. A user for whom the
feature store or the predictor gave no answer has an error beside the others' profiles; only when nobody was answered
for the request fails (502, 503, 504).
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import kserve
from fastapi import HTTPException
from kserve.errors import InvalidInput

from conf_profile.dialogue.reasons import Reason
from serving.model import profile
from serving.model.bundle import UNJUDGED_STATUS, Bundle
from serving.model.profile import Attribute, Profile
from serving.telemetry import metrics, tracing
from serving.telemetry.logs import FIELDS
from serving.transformer import request, write_back
from serving.transformer.features import (
    BadFeaturesError,
    FeatureLookup,
    FeaturesError,
    OnlineFeatures,
    read_request_features,
)
from serving.transformer.predictor_client import PredictorError, Question
from serving.transformer.request import BadRequestError, Instance, ProfileRequest
from serving.transformer.versions import Reply, ServedVersion, ask

logger = logging.getLogger(__name__)

DEADLINE_HEADER = "x-deadline-ms"
REQUEST_ID = "x-request-id"
MAX_REQUEST_ID = 200
"""A longer name of a request is nobody's name."""
MAX_MESSAGE = 1000
"""Characters of a refusal: it quotes what was wrong, which may be long."""


@dataclass(frozen=True)
class PredictRequest:
    """A request after preprocess: what is known of each user, and the prompts of those who have one."""

    served: ServedVersion
    wanted: ProfileRequest
    known: Sequence[FeatureLookup]
    questions: Mapping[int, Question]
    deadline: float


@dataclass(frozen=True)
class PredictOutcome:
    """A request after predict: the reply, or the error, of each user who has a prompt."""

    asked: PredictRequest
    replies: Mapping[int, Reply | PredictorError]


class ProfileTransformer(kserve.Model):  # type: ignore[misc]  # kserve is not analysed
    """Answers POST /v1/models/NAME:predict in the form that docs/serving.md fixes."""

    def __init__(self, served: ServedVersion, features: OnlineFeatures | None) -> None:
        super().__init__(served.settings.name)
        self._features = features
        self._check(served)
        self._served = served
        self._write_back = write_back.start(served.settings)
        self._predictor_seen = False
        self.ready = True

    @property
    def served(self) -> ServedVersion:
        """What new requests are answered by."""
        return self._served

    def replace(self, served: ServedVersion) -> None:
        """From now on new requests are answered by this version; those under way end with the one they began with."""
        self._check(served)
        before, self._served = self._served, served
        _close_later(before)

    def _check(self, served: ServedVersion) -> None:
        """ServingError where settings or feature store do not fit the version."""
        served.bundle.check_thresholds(served.settings.thresholds)
        if self._features is not None:
            self._features.require(served.bundle.task.features, served.bundle.version)

    async def __call__(self, body: Any, headers: dict[str, str] | None = None, *args: Any, **kwargs: Any) -> Any:
        """One request under one span; its stages are spans beneath it."""
        with tracing.span("profile", tracing.parent(headers or {})):
            try:
                return await super().__call__(body, headers, *args, **kwargs)
            except (InvalidInput, HTTPException) as error:
                logger.info("refused", extra={FIELDS: {"status": getattr(error, "status_code", 400)}})
                raise

    def stop(self) -> None:
        """kserve calls it when the last request is over; tags that wait are written first."""
        super().stop()
        if self._write_back is not None:
            self._write_back.close()

    async def healthy(self) -> bool:
        """Whether the predictor has been seen ready once.

        kserve asks before every request, so it must cost nothing. A predictor that fails later is told of by the
        requests themselves, with a reason; a transformer that vanished with it could not even say so.
        """
        if not self._predictor_seen:
            self._predictor_seen = await self._predictor_ready()
        return bool(self.ready) and self._predictor_seen

    async def _predictor_ready(self) -> bool:
        """Whether it answers, and with a version that can be answered by: then a request needs no S3."""
        served = self._served
        if not await served.client.is_ready():
            return False
        try:
            if served.others is not None:
                await served.others.find_version(served, served.client)
        except PredictorError as error:
            logger.warning("not ready: %s", error)
            return False
        return True

    async def preprocess(self, payload: Any, headers: dict[str, str] | None = None) -> PredictRequest:
        """Checks the request, reads features, writes prompts. 400 for a request that breaks the API."""
        served = self._served
        seconds = _seconds_left(headers or {}, served.settings.deadline_seconds)
        deadline, patient = time.monotonic() + seconds, seconds >= served.settings.deadline_seconds
        try:
            wanted = request.parse(payload, served.bundle, served.settings)
            with _stage("features"):
                known = await self._look_up_features(wanted.instances, served, deadline)
        except (BadRequestError, BadFeaturesError) as error:
            raise InvalidInput(str(error)[:MAX_MESSAGE]) from error
        questions = {
            row: Question(served.bundle.messages(user.features), wanted.samples, patient)
            for row, user in enumerate(known)
            if user.features is not None
        }
        return PredictRequest(served, wanted, known, questions, deadline)

    async def predict(self, payload: PredictRequest, headers: dict[str, str] | None = None, *_: Any) -> PredictOutcome:
        """Asks for all users at once; an error of one leaves the others alone."""
        with _stage("predictor"):
            passed_on = _forwarded_headers(headers or {})
            found = await asyncio.gather(
                *(_answer(payload, row, question, passed_on) for row, question in payload.questions.items())
            )
        answered = PredictOutcome(payload, dict(zip(payload.questions, found, strict=True)))
        _refuse_if_nobody_was_answered(answered)
        return answered

    async def postprocess(
        self, result: PredictOutcome, headers: dict[str, str] | None = None, *_: Any
    ) -> dict[str, Any]:
        """The answer of the API."""
        with _stage("parse"):
            predictions = [
                self._prediction(row, instance, result) for row, instance in enumerate(result.asked.wanted.instances)
            ]
        _log(predictions, result)
        return {"predictions": predictions}

    def _prediction(self, row: int, instance: Instance, result: PredictOutcome) -> dict[str, Any]:
        asked, reply = result.asked, result.replies.get(row)
        # Another one than it began with, where the predictor has another version.
        served = reply.served if isinstance(reply, Reply) else asked.served
        found = _profile(asked.known[row], reply, served, asked.wanted)
        _count(found)
        if asked.wanted.samples == 1:
            # What was measured at evaluation are single answers.
            served.drift.observe(found)
        if instance.features is None:
            self._offer_write_back(instance.user_id, found, served)
        shown = _entry_json(instance, asked.known[row], served.bundle, found, asked.wanted.explain)
        if (error := _error(asked.known[row], reply)) is not None:
            shown["error"] = {"code": error.status, "message": str(error)}
        return shown

    def _offer_write_back(self, user_id: str, found: Profile, served: ServedVersion) -> None:
        """Accepted tags of a user of the store go back into it; settings that were read again may have ended that."""
        if self._write_back is None or not served.settings.write_back.enabled:
            return
        inferred = write_back.to_inferred_profile(user_id, found, served.bundle, served.settings.thresholds)
        if inferred is not None:
            self._write_back.offer(inferred)

    async def _look_up_features(
        self, instances: Sequence[Instance], served: ServedVersion, deadline: float
    ) -> list[FeatureLookup]:
        stored = [instance.user_id for instance in instances if instance.features is None]
        if stored and self._features is None:
            raise BadRequestError(
                f"user {stored[0]!r} has no 'features', and this server reads none: set features.repository"
            )
        declared, require_consent = served.bundle.task.features, served.settings.features.require_consent
        found = iter(await self._features.read(stored, deadline) if stored and self._features else [])
        return [
            next(found)
            if instance.features is None
            else read_request_features(instance.user_id, instance.features, declared, require_consent)
            for instance in instances
        ]


@contextmanager
def _stage(name: str) -> Iterator[None]:
    """A span and an observation of the histogram."""
    with tracing.span(name), metrics.STAGE_SECONDS.labels(name).time():
        yield


def _forwarded_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """What vLLM is told besides the prompt: the span that it belongs to, and the caller's name for the request."""
    name = headers.get(REQUEST_ID, "")
    named = name.isascii() and name.isprintable() and 0 < len(name) <= MAX_REQUEST_ID
    return tracing.trace_headers() | ({REQUEST_ID: name} if named else {})


def _log(predictions: Sequence[Mapping[str, Any]], result: PredictOutcome) -> None:
    """One line for a request: counts, no user."""
    accepted = sum(shown["accepted"] for entry in predictions for shown in entry["profile"].values())
    failed = sum("error" in entry for entry in predictions)
    fields = {"users": len(predictions), "prompts": len(result.asked.questions), "accepted": accepted}
    versions = sorted({entry["model_version"] for entry in predictions})
    logger.info("request", extra={FIELDS: fields | {"failed": failed, "model_version": ", ".join(versions)}})


def _close_later(served: ServedVersion) -> None:
    """Ends the connections of a version that was replaced, once every request that began with it is over."""
    loop = asyncio.get_running_loop()
    loop.call_soon_threadsafe(
        loop.call_later, served.settings.deadline_seconds + 1.0, lambda: loop.create_task(served.client.aclose())
    )


async def _answer(
    asked: PredictRequest, row: int, question: Question, headers: Mapping[str, str]
) -> Reply | PredictorError:
    user = asked.known[row].features
    assert user is not None  # who has no features has no question
    try:
        return await ask(asked.served, question, user, asked.deadline, headers)
    except PredictorError as error:
        return error


def _entry_json(
    instance: Instance, known: FeatureLookup, bundle: Bundle, found: Profile, explain: bool
) -> dict[str, Any]:
    """One user's entry of the answer; `model_status` stands in those of a version that nobody has judged."""
    shown: dict[str, Any] = {"user_id": instance.user_id, "model_version": bundle.version}
    if not bundle.judged:
        shown["model_status"] = UNJUDGED_STATUS
    if known.as_of is not None:
        shown["features_as_of"] = known.as_of.isoformat()
    if explain:
        shown["rationale"] = found.rationale
    shown["profile"] = {name: attribute.to_json() for name, attribute in found.attributes.items()}
    return shown


def _profile(
    known: FeatureLookup, reply: Reply | PredictorError | None, served: ServedVersion, wanted: ProfileRequest
) -> Profile:
    if known.features is None:
        return profile.empty_profile(served.bundle, known.reason or Reason.NO_USER)
    if not isinstance(reply, Reply):
        return profile.empty_profile(served.bundle, Reason.NO_ANSWER)
    limits = request.thresholds(wanted, served.bundle, served.settings)
    return profile.profile(reply.completions, served.bundle, limits)


def _seconds_left(headers: Mapping[str, str], limit: float) -> float:
    """What the caller's header allows, at most the configured deadline."""
    given = headers.get(DEADLINE_HEADER)
    if given is None:
        return limit
    try:
        seconds = float(given) / 1000
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds < math.inf:
        raise InvalidInput(f"header {DEADLINE_HEADER}: {given[:50]!r} is not a number of milliseconds")
    return min(limit, seconds)


def _error(known: FeatureLookup, reply: Reply | PredictorError | None) -> PredictorError | FeaturesError | None:
    """Why a user was not answered for; None for one who was, or of whom nothing may be said."""
    return reply if isinstance(reply, PredictorError) else known.error


def _refuse_if_nobody_was_answered(answered: PredictOutcome) -> None:
    found = (_error(known, answered.replies.get(row)) for row, known in enumerate(answered.asked.known))
    errors = [error for error in found if error is not None]
    for error in errors:
        metrics.FAILURES.labels(str(error.status)).inc()
    if errors and not any(isinstance(reply, Reply) for reply in answered.replies.values()):
        worst = min(errors, key=lambda error: error.status)
        headers = {"Retry-After": "1"} if worst.status == 503 else None
        raise HTTPException(worst.status, str(worst), headers)


def _count(found: Profile) -> None:
    metrics.MALFORMED_COMPLETIONS.inc(found.malformed)
    for name, attribute in found.attributes.items():
        level = "none" if attribute.level is None else str(attribute.level)
        metrics.ANSWERS.labels(name, level, _outcome(attribute)).inc()


_OUTCOMES = {
    Reason.UNKNOWN: "unknown",
    Reason.MALFORMED: "malformed",
    Reason.NO_CONSENT: "no_consent",
    Reason.NO_USER: "unknown_user",
    Reason.NO_FEATURES: "failed",
    Reason.NO_ANSWER: "failed",
    Reason.NO_LEVEL: "never_accepted",
}


def _outcome(attribute: Attribute) -> str:
    if attribute.accepted:
        return "accepted"
    return _OUTCOMES[attribute.reason] if isinstance(attribute.reason, Reason) else "below_threshold"
