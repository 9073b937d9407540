"""The KServe transformer: features, prompt, vLLM, thresholds. One process serves one model version at a time.

    python -m serving --settings FILE [--http_port 8080 ...]

preprocess reads the features of all users of a request in one go and writes the prompts; predict asks vLLM for all
of them at once; postprocess parses, calibrates and decides. Nobody without consent gets a prompt. A user whom the
predictor did not answer for has an error beside the others' profiles; only when nobody was answered for the request
fails (502, 503, 504).
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import kserve
from fastapi import HTTPException
from kserve.errors import InvalidInput

from conf_profile.errors import ServingError
from serving import metrics, profile, request
from serving.bundle import Bundle
from serving.features import BadFeaturesError, Known, OnlineFeatures, from_request
from serving.predictor_client import PredictorClient, PredictorError, Question
from serving.profile import Attribute, Completion, Profile
from serving.request import BadRequestError, Instance, ProfileRequest
from serving.settings import Settings

logger = logging.getLogger(__name__)

DEADLINE_HEADER = "x-deadline-ms"
PASSED_ON = ("traceparent", "tracestate", "x-request-id")
"""Headers that travel through to vLLM."""
NOT_ANSWERED = "the predictor gave no answer"


@dataclass(frozen=True)
class Served:
    """One model version and the predictor that has it loaded; a request keeps to the one that it began with."""

    bundle: Bundle
    client: PredictorClient
    settings: Settings


@dataclass(frozen=True)
class Asked:
    """A request after preprocess: what is known of each user, and the prompts of those who have one."""

    served: Served
    wanted: ProfileRequest
    known: Sequence[Known]
    questions: Mapping[int, Question]
    deadline: float


@dataclass(frozen=True)
class Answered:
    """A request after predict: completions, or the error, of each user who has a prompt."""

    asked: Asked
    completions: Mapping[int, list[Completion] | PredictorError]


class ProfileTransformer(kserve.Model):  # type: ignore[misc]  # kserve is not analysed
    """Answers POST /v1/models/NAME:predict in the form that docs/serving.md fixes."""

    def __init__(self, served: Served, features: OnlineFeatures | None) -> None:
        super().__init__(served.settings.name)
        _check_thresholds(served.settings, served.bundle)
        self._features, self._served = features, served
        self.ready = True

    def replace(self, served: Served) -> None:
        """From now on new requests are answered by this version; those under way end with the one they began with."""
        _check_thresholds(served.settings, served.bundle)
        before, self._served = self._served, served
        _close_later(before)

    async def healthy(self) -> bool:
        """What /v2/models/NAME/ready asks: without its predictor the transformer can answer nobody."""
        return bool(self.ready) and await self._served.client.ready()

    async def preprocess(self, payload: Any, headers: dict[str, str] | None = None) -> Asked:
        """Checks the request, reads features, writes prompts. 400 for a request that breaks the API."""
        served = self._served
        deadline = time.monotonic() + _seconds_left(headers or {}, served.settings.deadline_seconds)
        try:
            wanted = request.parse(payload, served.bundle, served.settings)
            with metrics.STAGE_SECONDS.labels("features").time():
                known = await self._known(wanted.instances, served.settings.features.require_consent)
        except (BadRequestError, BadFeaturesError) as error:
            raise InvalidInput(str(error)) from error
        questions = {
            row: Question(served.bundle.messages(user.features), wanted.samples)
            for row, user in enumerate(known)
            if user.features is not None
        }
        return Asked(served, wanted, known, questions, deadline)

    async def predict(self, payload: Asked, headers: dict[str, str] | None = None, *_: Any) -> Answered:
        """Asks for all users at once; an error of one leaves the others alone."""
        passed_on = {name: value for name, value in (headers or {}).items() if name in PASSED_ON}
        with metrics.STAGE_SECONDS.labels("predictor").time():
            found = await asyncio.gather(
                *(
                    _answer(payload.served.client, question, payload.deadline, passed_on)
                    for question in payload.questions.values()
                )
            )
        answered = Answered(payload, dict(zip(payload.questions, found, strict=True)))
        _refuse_if_nobody_was_answered(answered)
        return answered

    async def postprocess(self, result: Answered, headers: dict[str, str] | None = None, *_: Any) -> dict[str, Any]:
        """The answer of the API."""
        with metrics.STAGE_SECONDS.labels("parse").time():
            return {
                "predictions": [
                    _prediction(row, instance, result) for row, instance in enumerate(result.asked.wanted.instances)
                ]
            }

    async def _known(self, instances: Sequence[Instance], require_consent: bool) -> list[Known]:
        stored = [instance.user_id for instance in instances if instance.features is None]
        if stored and self._features is None:
            raise BadRequestError(
                f"user {stored[0]!r} has no 'features', and this server reads none: set features.repository"
            )
        found = iter(await self._features.read(stored) if stored and self._features else [])
        return [
            next(found)
            if instance.features is None
            else from_request(instance.user_id, instance.features, require_consent)
            for instance in instances
        ]


def _close_later(served: Served) -> None:
    """Ends the connections of a version that was replaced, once every request that began with it is over."""
    loop = asyncio.get_running_loop()
    loop.call_soon_threadsafe(
        loop.call_later, served.settings.deadline_seconds + 1.0, lambda: loop.create_task(served.client.aclose())
    )


async def _answer(
    client: PredictorClient, question: Question, deadline: float, headers: Mapping[str, str]
) -> list[Completion] | PredictorError:
    try:
        return await client.ask(question, deadline, headers)
    except PredictorError as error:
        metrics.FAILURES.labels(str(error.status)).inc()
        return error


def _prediction(row: int, instance: Instance, result: Answered) -> dict[str, Any]:
    asked, completions = result.asked, result.completions.get(row)
    known = asked.known[row]
    found = _profile(known, completions, asked)
    _count(found)
    shown: dict[str, Any] = {"user_id": instance.user_id, "model_version": asked.served.bundle.version}
    if isinstance(completions, PredictorError):
        shown["error"] = {"code": completions.status, "message": str(completions)}
    if known.as_of is not None:
        shown["features_as_of"] = known.as_of.isoformat()
    if asked.wanted.explain:
        shown["rationale"] = found.rationale
    shown["profile"] = {name: attribute.to_json() for name, attribute in found.attributes.items()}
    return shown


def _profile(known: Known, completions: list[Completion] | PredictorError | None, asked: Asked) -> Profile:
    bundle = asked.served.bundle
    if known.features is None:
        return profile.silent(bundle, known.reason or profile.NO_USER)
    if completions is None or isinstance(completions, PredictorError):
        return profile.silent(bundle, NOT_ANSWERED)
    return profile.profile(completions, bundle, asked.wanted.thresholds)


def _seconds_left(headers: Mapping[str, str], limit: float) -> float:
    """What the caller's header allows, at most the configured deadline."""
    given = headers.get(DEADLINE_HEADER)
    if given is None:
        return limit
    try:
        return min(limit, max(0.0, float(given) / 1000))
    except ValueError as error:
        raise InvalidInput(f"header {DEADLINE_HEADER}: {given!r} is not a number of milliseconds") from error


def _refuse_if_nobody_was_answered(answered: Answered) -> None:
    errors = [found for found in answered.completions.values() if isinstance(found, PredictorError)]
    if errors and len(errors) == len(answered.completions):
        worst = min(errors, key=lambda error: error.status)
        headers = {"Retry-After": "1"} if worst.status == 503 else None
        raise HTTPException(worst.status, str(worst), headers)


def _count(found: Profile) -> None:
    metrics.MALFORMED.inc(found.malformed)
    for name, attribute in found.attributes.items():
        level = "none" if attribute.level is None else str(attribute.level)
        metrics.ANSWERS.labels(name, level, _outcome(attribute)).inc()


_OUTCOMES = {
    profile.UNKNOWN: "unknown",
    profile.MALFORMED: "malformed",
    profile.NO_CONSENT: "no_consent",
    profile.NO_USER: "unknown_user",
    NOT_ANSWERED: "failed",
}


def _outcome(attribute: Attribute) -> str:
    return "accepted" if attribute.accepted else _OUTCOMES.get(attribute.reason or "", "below_threshold")


def _check_thresholds(settings: Settings, bundle: Bundle) -> None:
    strange = sorted(set(settings.thresholds) - set(bundle.taxonomy.names))
    if strange:
        raise ServingError(
            f"thresholds: the model knows no attribute {', '.join(strange)}; it has {', '.join(bundle.taxonomy.names)}"
        )
