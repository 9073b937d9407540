"""Whether a store honours the conditions of a write, without which two promotions at once would both win.

Some stores take `If-None-Match` and `If-Match` and ignore them, which no answer of theirs tells. So an object of a name
of its own is written on conditions that do not hold, and removed. Only who is about to write asks, once a process.
"""

from __future__ import annotations

import logging
import uuid

from conf_profile.errors import RegistryError
from conf_profile.storage import object_versions
from conf_profile.storage.object_store import ObjectStore

_NO_ETAG = '"00000000000000000000000000000000"'
_proven: set[tuple[str, str]] = set()
"""Endpoint and bucket of the stores that this process has asked."""
_log = logging.getLogger(__name__)


def require(store: ObjectStore, prefix: str) -> None:
    """RegistryError where the store ignores a condition; `prefix` is a place below which these keys may write."""
    place = (store.endpoint, store.bucket)
    if place in _proven:
        return
    key = f"{prefix}/probe-{uuid.uuid4().hex}"
    try:
        ignored = _find_ignored_condition(store, key)
    finally:
        _remove(store.without_retries(), key)
    if ignored:
        raise RegistryError(
            f"bucket {store.bucket!r} at {store.endpoint}: the store ignores {ignored}, so that of two promotions at "
            "once both would win and one would be lost; nothing was published or promoted: use a store with "
            "conditional writes (docs/operations.md)"
        )
    _proven.add(place)


def forget() -> None:
    """As in a new process: the next writer asks again."""
    _proven.clear()


def _find_ignored_condition(store: ObjectStore, key: str) -> str:
    """The header of the first condition that does not hold and is not refused; empty for none."""
    store.write_new(key, b"1")
    if store.write_new(key, b"2"):
        return "If-None-Match"
    return "If-Match" if store.replace(key, b"3", _NO_ETAG) else ""


def _remove(store: ObjectStore, key: str) -> None:
    """Keys that may write need not be allowed to delete: what stays is one byte."""
    try:
        store.delete(key)
    except RegistryError as error:
        _log.warning("%s may stay behind, then delete it: %s", key, error)
        return
    try:
        object_versions.delete(store, list(object_versions.list_all(store, key)))
    except RegistryError:
        # A store without versions may not know the request, and with them it needs rights of its own.
        _log.debug("%s: versions were not looked for", key)
