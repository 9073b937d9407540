"""Features of all users of a request: one batched read of Feast's online store, or what the request brings.

Who has not consented has no features here, so no prompt can be written. The registry is cached when the store is
opened and never refreshed inside a request. A store that is away or silent costs a request no more than its deadline,
and after a few failures in a row is left alone for a moment: then nobody waits for it.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from conf_profile.dialogue.prompts import UserFeatures
from conf_profile.dialogue.reasons import Reason
from conf_profile.errors import ConfProfileError, ServingError
from conf_profile.features import Feature, FeatureSchema, FeatureType, FeatureValue
from serving.circuit_breaker import CircuitBreaker
from serving.telemetry.metrics import FEATURE_AGE_SECONDS

logger = logging.getLogger(__name__)

MAX_LIST = 1000
"""Keyphrases of one list in a request; the prompt keeps far fewer."""
PATIENCE_SECONDS = 2.0
"""A store that says nothing for so long is not going to: a read takes milliseconds."""
FAILURES, REST_SECONDS = 3, 1.0
"""Failed reads in a row after which the store is left alone, and for how long."""


@dataclass(frozen=True)
class FeatureLookup:
    """One user's features, or the reason why there are none; `as_of` is the time of the latest behaviour.

    `error` where the store could not say: the user may have features.
    """

    features: UserFeatures | None
    reason: Reason | None = None
    as_of: datetime | None = None
    error: FeaturesError | None = None


class BadFeaturesError(ValueError):
    """Features in a request break the form; the message names user and field."""


class FeaturesError(Exception):
    """The online store gave no answer; `status` is what the caller is told."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class OnlineFeatures:
    """Feast's online store behind one thread: sqlite connections belong to the thread that opened them."""

    def __init__(self, repository: Path) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="features")
        self._read_all, self._stored = self._thread.submit(_open, repository).result()
        self._repository = repository
        self._breaker = CircuitBreaker(FAILURES, REST_SECONDS)

    async def read(self, user_ids: Sequence[str], deadline: float) -> list[FeatureLookup]:
        """In the given order, in one read; a user may be named more than once.

        `deadline` is a time of the monotonic clock, in seconds. Where the store fails every user has the same `error`.
        """
        different = list(dict.fromkeys(user_ids))
        try:
            found = await self._guarded_read(different, deadline)
        except FeaturesError as error:
            return [FeatureLookup(None, Reason.NO_FEATURES, error=error)] * len(user_ids)
        by_user = dict(zip(different, found, strict=True))
        return [by_user[user_id] for user_id in user_ids]

    def require(self, declared: FeatureSchema, version: str) -> None:
        """ServingError where the store has other features than a model version declares."""
        if found := declared.differences(self._stored):
            raise ServingError(
                f"{self._repository}: the feature store does not have the features of the model version {version}: "
                f"{'; '.join(found)}; register the features of its task.yaml, or serve a version that was trained on "
                "these"
            )

    def close(self) -> None:
        self._thread.shutdown(wait=True)

    async def _guarded_read(self, user_ids: Sequence[str], deadline: float) -> list[FeatureLookup]:
        """One read under the breaker's eye."""
        if not self._breaker.allow():
            raise FeaturesError(503, "the feature store has failed too often and is left alone for a moment")
        patience = min(deadline - time.monotonic(), PATIENCE_SECONDS)
        try:
            async with asyncio.timeout(max(0.0, patience)):
                found = await asyncio.get_running_loop().run_in_executor(self._thread, self._read_all, user_ids)
        except asyncio.CancelledError:
            self._breaker.release_trial()
            raise
        except Exception as error:  # Feast raises whatever the client of its store raises
            raise self._explain_failure(error, patience) from error
        self._breaker.record_success()
        return found

    def _explain_failure(self, error: Exception, patience: float) -> FeaturesError:
        # The type alone: a message may name a user.
        logger.warning("the online store was not read: %s", type(error).__name__)
        logger.debug("the online store was not read", exc_info=error)
        if not isinstance(error, TimeoutError):
            self._breaker.record_failure()
            return FeaturesError(503, f"the feature store cannot be read: {type(error).__name__}")
        if patience < PATIENCE_SECONDS:
            # The caller had less time than a store may take: that tells nothing against it.
            self._breaker.release_trial()
            return FeaturesError(504, "the deadline passed before the feature store answered")
        self._breaker.record_failure()
        return FeaturesError(503, f"the feature store has not answered for {PATIENCE_SECONDS:.0f} s")


def read_request_features(user_id: str, given: Any, declared: FeatureSchema, require_consent: bool) -> FeatureLookup:
    """Features that a request brings for one user: those that are declared, and `consent`."""
    if not isinstance(given, Mapping):
        raise BadFeaturesError(f"user {user_id!r}: 'features' must be an object")
    unknown = sorted(set(given) - {*declared.names, "consent"})
    if unknown:
        raise BadFeaturesError(
            f"user {user_id!r}: unknown feature(s) {', '.join(unknown)}; the model has {', '.join(declared.names)}"
        )
    if given.get("consent", not require_consent) is not True:
        return FeatureLookup(None, Reason.NO_CONSENT)
    values = {feature.name: _read_value(user_id, feature, given.get(feature.name)) for feature in declared}
    return FeatureLookup(UserFeatures(user_id, **values))


def _open(repository: Path) -> tuple[Callable[[Sequence[str]], list[FeatureLookup]], Mapping[str, FeatureType]]:
    """What reads many users at once, and which features it reads. ServingError where the store does not answer."""
    from feature_repo import store as feature_store

    store = feature_store.connect(repository, PATIENCE_SECONDS)
    service = feature_store.profile_service(store)
    read = partial(_read, store, service)
    try:
        # The first read loads registry and drivers, which takes a hundred times as long as the others.
        read([""])
    except ConfProfileError:
        raise
    except Exception as error:  # Feast raises whatever the client of its store raises
        raise ServingError(
            f"{repository}: the online store cannot be read: {error}; start it, or put feature_store.yaml right"
        ) from error
    return read, feature_store.registered_features(store, service)


def _read(store: Any, service: Any, user_ids: Sequence[str]) -> list[FeatureLookup]:
    from feature_repo import store as feature_store

    return [_to_lookup(user) for user in feature_store.read_online(store, user_ids, service)]


def _to_lookup(user: Any) -> FeatureLookup:
    if user is None:
        return FeatureLookup(None, Reason.NO_USER)
    if not user.consent:
        return FeatureLookup(None, Reason.NO_CONSENT)
    if user.as_of is not None:
        FEATURE_AGE_SECONDS.observe(max(0.0, (datetime.now(UTC) - user.as_of).total_seconds()))
    return FeatureLookup(user.features, as_of=user.as_of)


def _read_value(user_id: str, feature: Feature, value: Any) -> FeatureValue:
    if value is None:
        return None
    if feature.type == "list":
        return _phrases(user_id, feature.name, value)
    return _number(user_id, feature.name, value) if feature.type == "number" else _text(user_id, feature.name, value)


def _phrases(user_id: str, name: str, value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(phrase, str) for phrase in value):
        raise BadFeaturesError(f"user {user_id!r}: {name!r} must be a list of texts")
    if len(value) > MAX_LIST:
        raise BadFeaturesError(f"user {user_id!r}: {name!r} has {len(value)} keyphrases; at most {MAX_LIST}")
    return tuple(value)


def _text(user_id: str, name: str, value: Any) -> str:
    if not isinstance(value, str):
        raise BadFeaturesError(f"user {user_id!r}: {name!r} must be a text")
    return value


def _number(user_id: str, name: str, value: Any) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
        raise BadFeaturesError(f"user {user_id!r}: {name!r} must be a number")
    return float(value)
