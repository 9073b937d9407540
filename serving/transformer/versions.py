"""What a request is answered by: a model version and the way to a predictor that has it loaded.

On a cluster predictor and transformer are replaced separately, so for a while the predictor serves another version than
the one that a transformer was started for, or two of its pods serve two. A prompt is always for a version by name, and
a predictor refuses any other (404). Then the transformer asks which version is there, fetches what it needs of that one
from the registry (everything but the weights, once), and answers by it: with its prompt, its levels, its thresholds and
its name. No answer is ever read with another version's calibration.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from conf_profile.dialogue.prompts import UserFeatures
from conf_profile.errors import ConfProfileError
from serving.model.bundle import Bundle
from serving.model.profile import Completion
from serving.settings import Settings
from serving.telemetry.drift import DriftMonitor
from serving.telemetry.metrics import OTHER_VERSION
from serving.transformer.predictor_client import (
    DeadlineExceededError,
    OtherVersionError,
    PredictorClient,
    PredictorUnavailableError,
    Question,
)

logger = logging.getLogger(__name__)

FAILURE_SECONDS = 1.0
"""After a version could not be fetched nobody tries again for so long."""


class Source(Protocol):
    """Where versions come from."""

    def find(self, version: str) -> Bundle | None:
        """A version, None where there is none of this name; ConfProfileError where that cannot be known."""


@dataclass(frozen=True)
class ServedVersion:
    """One model version and the predictor that has it loaded; a request keeps to the one that it began with."""

    bundle: Bundle
    client: PredictorClient
    settings: Settings
    drift: DriftMonitor
    others: OtherVersions | None = None


@dataclass(frozen=True)
class Reply:
    """What one user's prompt was answered with, and by which version."""

    served: ServedVersion
    completions: Sequence[Completion]


async def ask(
    served: ServedVersion, question: Question, user: UserFeatures, deadline: float, headers: Mapping[str, str]
) -> Reply:
    """The answer of `served`, or of the version that the predictor has in its place; raises PredictorError."""
    try:
        return Reply(served, await served.client.ask(question, deadline, headers))
    except OtherVersionError:
        if served.others is None:
            raise
    while True:
        # Each time a new connection. The pod behind it is asked what it serves, and then for nothing else.
        async with served.client.open_one_pod() as pod:
            there = await _await_before_deadline(served.others.find_version(served, pod), deadline)
            prompt = replace(question, messages=there.bundle.messages(user))
            with contextlib.suppress(OtherVersionError):
                reply = Reply(there, await pod.for_bundle(there.bundle).ask(prompt, deadline, headers))
                OTHER_VERSION.inc(there is not served)
                return reply


async def _await_before_deadline(found: Awaitable[ServedVersion], deadline: float) -> ServedVersion:
    try:
        async with asyncio.timeout(max(0.0, deadline - time.monotonic())):
            return await found
    except TimeoutError as error:
        raise DeadlineExceededError("the deadline passed while the predictor's version was sought") from error


class OtherVersions:
    """Versions that the predictor turns out to serve; each is fetched once and kept."""

    def __init__(self, source: Source, settings: Settings) -> None:
        self._source, self._settings = source, settings
        self._held: dict[str, ServedVersion] = {}
        self._fetching = asyncio.Lock()
        self._failure, self._failed_at = "", -FAILURE_SECONDS

    async def find_version(self, served: ServedVersion, predictor: PredictorClient) -> ServedVersion:
        """The version that this predictor serves: `served` itself, or another one.

        PredictorError where it does not say, or where that version cannot be had.
        """
        names = await predictor.served_names()
        if served.bundle.version in names:
            return served
        async with self._fetching:
            return self._find_held(names) or await self._fetch(names, served)

    def _find_held(self, names: list[str]) -> ServedVersion | None:
        return next((self._held[name] for name in names if name in self._held), None)

    async def _fetch(self, names: list[str], served: ServedVersion) -> ServedVersion:
        if time.monotonic() - self._failed_at < FAILURE_SECONDS:
            raise PredictorUnavailableError(self._failure)
        try:
            bundle = await self._find(names)
        except ConfProfileError as error:
            raise self._record_failure(
                f"the predictor serves {', '.join(names)}, which cannot be fetched: {error}"
            ) from error
        if bundle is None:
            raise self._record_failure(
                f"the predictor serves {', '.join(names)} and not {served.bundle.version}, and none of these is a "
                "version that is known here; start it with its version among its names, or set predictor.by_version: "
                "false"
            )
        if found := bundle.task.features.differences(served.bundle.task.features.types):
            raise self._record_failure(
                f"the predictor serves {bundle.version}, whose features are not those of {served.bundle.version}: "
                f"{'; '.join(found)}"
            )
        logger.info("the predictor serves %s beside %s; answering by both", bundle.version, served.bundle.version)
        held = ServedVersion(bundle, served.client.for_bundle(bundle), self._settings, DriftMonitor(bundle), self)
        self._held[bundle.version] = held
        return held

    async def _find(self, names: list[str]) -> Bundle | None:
        for name in names:
            bundle = await asyncio.to_thread(self._source.find, name)
            if bundle is not None:
                return bundle
        return None

    def _record_failure(self, message: str) -> PredictorUnavailableError:
        logger.warning("%s", message)
        self._failure, self._failed_at = message, time.monotonic()
        return PredictorUnavailableError(message)
