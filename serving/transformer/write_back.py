"""Accepted tags on their way into Feast, for other models to read: batched, in a thread, off by default.

A request only lays its profiles down, in microseconds; it never waits for Feast and never fails because of it. Where
profiles come faster than Feast takes them the newest are dropped and counted, and so is what could not be written:
the next request for the user brings the tags again.

What is laid down: tags that reach the server's own thresholds (a request may ask for lower ones, for itself alone), of
users whose features came from the store. Consent is looked at once more at the moment of writing.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from conf_profile.data.inferred import InferredProfile, InferredTag
from conf_profile.errors import ServingError
from serving.model.bundle import Bundle
from serving.model.profile import Attribute, Profile
from serving.settings import Settings, WriteBackSettings
from serving.telemetry.metrics import WRITTEN_PROFILES

logger = logging.getLogger(__name__)

LAST_BATCH_SECONDS = 1.0
"""For the batch that is being written when the time is over."""


class WriteBack:
    """One for each process. `offer` may be called from any thread; `close` writes what is left."""

    def __init__(self, repository: Path, settings: WriteBackSettings) -> None:
        self._settings = settings
        self._waiting: list[InferredProfile] = []
        self._changed = threading.Condition()
        self._end: float | None = None
        opened: Future[None] = Future()
        # A daemon: a server that ends without `close`, because it failed, must not wait for it.
        self._thread = threading.Thread(target=self._run, args=(repository, opened), name="write-back", daemon=True)
        self._thread.start()
        opened.result()

    def offer(self, profile: InferredProfile) -> None:
        """Lays a profile down to be written, or drops it where too many wait; returns at once."""
        with self._changed:
            if self._end is None and len(self._waiting) < self._settings.max_waiting:
                self._waiting.append(profile)
                if len(self._waiting) >= self._settings.batch_size:
                    self._changed.notify()
                return
        WRITTEN_PROFILES.labels("dropped").inc()

    def close(self) -> None:
        """Writes what waits, for at most `shutdown_seconds`; what is left then is dropped and counted."""
        with self._changed:
            self._end = time.monotonic() + self._settings.shutdown_seconds
            self._changed.notify()
        self._thread.join(self._settings.shutdown_seconds + LAST_BATCH_SECONDS)
        WRITTEN_PROFILES.labels("dropped").inc(len(self._waiting))

    def _run(self, repository: Path, opened: Future[None]) -> None:
        """The thread: sqlite connections belong to the one that opened them."""
        try:
            store = _open(repository)
        except BaseException as error:  # it is raised where the writer is made
            opened.set_exception(error)
            return
        opened.set_result(None)
        while not self._is_over():
            if batch := self._next_batch():
                _write(store, batch)

    def _next_batch(self) -> list[InferredProfile]:
        """What waits once a batch is full, the interval is over or the end has come; maybe nothing."""
        with self._changed:
            self._changed.wait_for(self._is_due, self._settings.interval_seconds)
            batch = self._waiting[: self._settings.batch_size]
            del self._waiting[: self._settings.batch_size]
            return batch

    def _is_due(self) -> bool:
        return self._end is not None or len(self._waiting) >= self._settings.batch_size

    def _is_over(self) -> bool:
        with self._changed:
            return self._end is not None and (not self._waiting or time.monotonic() >= self._end)


def start(settings: Settings) -> WriteBack | None:
    """The writer that these settings ask for; None where it is off. ServingError where it cannot work."""
    if not settings.write_back.enabled:
        return None
    if settings.features.repository is None:
        raise ServingError("write_back.enabled needs features.repository: the feature store to write to")
    return WriteBack(settings.features.repository, settings.write_back)


def to_inferred_profile(
    user_id: str, found: Profile, bundle: Bundle, thresholds: Mapping[str, int], now: datetime | None = None
) -> InferredProfile | None:
    """What may be passed on of a profile: tags at or above `thresholds`, and the model's own where it names none.

    None where nothing at all was said: no answer, or a malformed one.
    """
    if all(attribute.tag is None for attribute in found.attributes.values()):
        return None
    lowest = bundle.override_thresholds(thresholds)
    tags = (_tag(name, attribute, lowest[name]) for name, attribute in found.attributes.items())
    return InferredProfile(user_id, tuple(tag for tag in tags if tag), bundle.version, now or datetime.now(UTC))


def _tag(name: str, attribute: Attribute, lowest: int | None) -> InferredTag | None:
    if attribute.tag is None or attribute.level is None or lowest is None or attribute.level < lowest:
        return None
    return InferredTag(name, attribute.tag, attribute.level)


def _open(repository: Path) -> Any:
    from feast.errors import FeatureViewNotFoundException

    from feature_repo import inferred as view
    from feature_repo import store as feature_store

    store = feature_store.connect(repository)
    try:
        # Loads registry and drivers, which the first batch need not wait for.
        view.read_inferred(store, [""])
    except FeatureViewNotFoundException as error:
        raise ServingError(
            f"{repository}: {error}; apply the definitions of feature_repo again before write_back is enabled"
        ) from error
    return store


def _write(store: Any, batch: Sequence[InferredProfile]) -> None:
    from feature_repo import inferred as view

    try:
        written = view.write_inferred(store, batch)
    except (
        Exception
    ) as error:  # Feast raises what its stores raise, and a thread that ended would drop all that follows
        # The type alone: a message may name a user.
        logger.warning("write-back: %d profiles were not written: %s", len(batch), type(error).__name__)
        logger.debug("write-back", exc_info=True)
        WRITTEN_PROFILES.labels("failed").inc(len(batch))
        return
    WRITTEN_PROFILES.labels("written").inc(written.written)
    WRITTEN_PROFILES.labels("nothing_new").inc(written.nothing_new)
    WRITTEN_PROFILES.labels("no_consent").inc(written.without_consent)
