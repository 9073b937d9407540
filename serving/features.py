"""Features of all users of a request: one batched read of Feast's online store, or what the request brings.

Who has not consented has no features here, so no prompt can be written. The registry is cached when the store is
opened and never refreshed inside a request.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from conf_profile.prompts import UserFeatures
from serving.metrics import FEATURE_AGE_SECONDS
from serving.profile import NO_CONSENT, NO_USER

LISTS = ("watch", "search", "submit")
TEXTS = ("self_age", "self_gender", "signature", "region")
MAX_LIST = 1000
"""Keyphrases of one list in a request; the prompt keeps far fewer."""


@dataclass(frozen=True)
class Known:
    """One user's features, or the reason why there are none; `as_of` is the time of the latest behaviour."""

    features: UserFeatures | None
    reason: str | None = None
    as_of: datetime | None = None


class BadFeaturesError(ValueError):
    """Features in a request break the form; the message names user and field."""


class OnlineFeatures:
    """Feast's online store behind one thread: sqlite connections belong to the thread that opened them."""

    def __init__(self, repository: Path) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="features")
        self._store = self._thread.submit(_open, repository).result()

    async def read(self, user_ids: Sequence[str]) -> list[Known]:
        """In the given order, in one read; a user may be named more than once."""
        different = list(dict.fromkeys(user_ids))
        found = await asyncio.get_running_loop().run_in_executor(self._thread, _read, self._store, different)
        by_user = dict(zip(different, found, strict=True))
        return [by_user[user_id] for user_id in user_ids]

    def close(self) -> None:
        self._thread.shutdown(wait=True)


def from_request(user_id: str, given: Any, require_consent: bool) -> Known:
    """Features that a request brings for one user: lists of texts, texts, and `consent`."""
    if not isinstance(given, Mapping):
        raise BadFeaturesError(f"user {user_id!r}: 'features' must be an object")
    unknown = sorted(set(given) - {*LISTS, *TEXTS, "consent"})
    if unknown:
        raise BadFeaturesError(f"user {user_id!r}: unknown feature(s) {', '.join(unknown)}")
    if given.get("consent", not require_consent) is not True:
        return Known(None, NO_CONSENT)
    watch, search, submit = (_phrases(user_id, name, given.get(name)) for name in LISTS)
    age, gender, signature, region = (_text(user_id, name, given.get(name)) for name in TEXTS)
    return Known(UserFeatures(user_id, watch, search, submit, age, gender, signature, region))


def _open(repository: Path) -> Any:
    from feature_repo import store as feature_store

    store = feature_store.connect(repository)
    # The first read loads registry and drivers, which takes a hundred times as long as the others.
    feature_store.read_online(store, [""])
    return store


def _read(store: Any, user_ids: Sequence[str]) -> list[Known]:
    from feature_repo import store as feature_store

    return [_known(user) for user in feature_store.read_online(store, user_ids)]


def _known(user: Any) -> Known:
    if user is None:
        return Known(None, NO_USER)
    if not user.consent:
        return Known(None, NO_CONSENT)
    if user.as_of is not None:
        FEATURE_AGE_SECONDS.observe(max(0.0, (datetime.now(UTC) - user.as_of).total_seconds()))
    return Known(user.features, as_of=user.as_of)


def _phrases(user_id: str, name: str, value: Any) -> tuple[str, ...]:
    if value is None:
        return ()
    if not isinstance(value, list) or not all(isinstance(phrase, str) for phrase in value):
        raise BadFeaturesError(f"user {user_id!r}: {name!r} must be a list of texts")
    if len(value) > MAX_LIST:
        raise BadFeaturesError(f"user {user_id!r}: {name!r} has {len(value)} keyphrases; at most {MAX_LIST}")
    return tuple(value)


def _text(user_id: str, name: str, value: Any) -> str | None:
    if value is not None and not isinstance(value, str):
        raise BadFeaturesError(f"user {user_id!r}: {name!r} must be a text")
    return value
