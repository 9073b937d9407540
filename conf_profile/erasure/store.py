"""Erasing one user from an object store: uploads, kept answers, KFP's artefacts, and older versions of all of these.

    data/, truth/    uploads, in folders named by their content: one that holds the user is deleted whole, since the
                     name of a rewritten one would lie; the next run uploads what its data set then is
    answers/         lines of JSON: the user's are taken out, everybody else's stay paid for
    artefacts        Parquet, known by content (KFP's artefacts have no suffix): the rows are taken out in place
    your own tables  also files that lie directly in truth/: looked at; rewritten in place when that is asked for

Of a table only the column user_id is read until it is known to hold the user. Writes are conditional: an object that
somebody replaces meanwhile is read again. Weights (`models/`, `checkpoints/`) hold no rows.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import BinaryIO, TypeVar, cast

from conf_profile import parquet_rows
from conf_profile.erasure import retention
from conf_profile.erasure.erasure import Store
from conf_profile.errors import RegistryConflictError, RegistryError
from conf_profile.registry import trained_versions
from conf_profile.storage import object_versions
from conf_profile.storage.object_errors import MISSING_KEY, code
from conf_profile.storage.object_parts import fetch_in_order
from conf_profile.storage.object_store import ObjectStore
from conf_profile.storage.object_versions import ObjectFile, ObjectVersion, UnfinishedUpload
from conf_profile.teachers import answers

_ATTEMPTS = 5
_PARALLEL_LOOKS = 8

T = TypeVar("T")
Look = Callable[[ObjectStore, ObjectVersion, str], int]
"""Counts a user's rows in one version of an object, and may take them out."""
Listing = Callable[[ObjectStore, str], Iterator[ObjectVersion]]


@dataclass(frozen=True)
class Place:
    """The objects under `prefix`, which ends with a slash, of one bucket."""

    store: ObjectStore
    prefix: str

    @property
    def uri(self) -> str:
        """The address, without where the server is."""
        return f"s3://{self.store.bucket}/{self.prefix}"


@dataclass(frozen=True)
class _Area:
    """A place whose objects are of one kind, known by how a user's rows are counted in one of them."""

    name: str
    place: Place
    rows: Look

    def find_user_versions(self, listed: Listing, user_id: str) -> list[tuple[ObjectVersion, int]]:
        """Which of the listed versions hold the user, and how many rows."""
        counted = _look_at_each(self.place, listed, lambda store, found: self.rows(store, found, user_id))
        return [(found, rows) for found, rows in counted if rows]

    def count(self, user_id: str) -> int:
        """Rows of the user in the objects as their readers see them."""
        return sum(rows for _, rows in self.find_user_versions(object_versions.list_current, user_id))


def stores(bucket: ObjectStore, artefacts: Iterable[Place], own: Iterable[Place], data_too: bool) -> list[Store]:
    """Every store of rows: uploads and answers in the steps' `bucket`, artefacts, and the user's own tables.

    Unless `data_too` is given the own tables are only looked at, and what is in them counts as left. Of a versioned
    bucket also what was replaced or deleted, and of each what a broken upload has left.
    """
    uploads = [
        _Area(f"uploads: {name}", Place(bucket, name), _table_rows) for name in (retention.UPLOADS, retention.TRUTH)
    ]
    kept = _Area("kept answers", Place(bucket, retention.ANSWERS), _answer_lines)
    tables = [_Area(f"artefacts: {place.uri}", place, _table_rows) for place in artefacts]
    theirs = [_Area(f"your own {place.uri}", place, _table_rows) for place in own]
    erased = [*uploads, kept, *tables, *(theirs if data_too else ())]
    return [
        *(_uploads_store(area, data_too) for area in uploads),
        _rewriting_store(kept, _forget_lines),
        *(_rewriting_store(area, _remove_rows) for area in tables),
        *(_rewriting_store(area, _remove_rows) if data_too else _counting_store(area) for area in theirs),
        *(_older_versions_store(area) for area in erased if object_versions.is_versioned(area.place.store)),
        _unfinished_uploads_store([area.place for area in (*uploads, kept, *tables)]),
    ]


def training_splits(artefacts: Iterable[Place], user_id: str) -> tuple[str, ...]:
    """The user's splits that training reads, in any features table among the artefacts that have not expired."""

    def look(store: ObjectStore, found: ObjectVersion) -> frozenset[str]:
        file = _open_object(store, found)
        known = parquet_rows.schema_of(file, _address(store, found)) is not None
        return trained_versions.read_splits(file, user_id) if known else frozenset()

    looks = [splits for place in artefacts for _, splits in _look_at_each(place, object_versions.list_current, look)]
    return trained_versions.select_training_splits(split for splits in looks for split in splits or ())


def _uploads_store(area: _Area, data_too: bool) -> Store:
    store, prefix = area.place.store, area.place.prefix

    def remove(user_id: str) -> int:
        holding = area.find_user_versions(object_versions.list_current, user_id)
        in_uploads = [(found, rows) for found, rows in holding if not retention.is_own_table(found.key)]
        for name in {_folder(prefix, found.key) for found, _ in in_uploads}:
            object_versions.delete(store, list(object_versions.list_current(store, name)))
        removed = sum(rows for _, rows in in_uploads)
        own = [found for found, _ in holding if data_too and retention.is_own_table(found.key)]
        return removed + sum(_retry_on_conflict(store, found, _row_stripper(user_id)) or 0 for found in own)

    return Store(area.name, remove, area.count)


def _folder(prefix: str, key: str) -> str:
    """The upload that an object is part of."""
    return f"{prefix}{key.removeprefix(prefix).split('/')[0]}/"


def _row_stripper(user_id: str) -> Callable[[ObjectStore, ObjectVersion], int]:
    return lambda store, found: _remove_rows(store, found, user_id)


def _rewriting_store(area: _Area, strip: Look) -> Store:
    def remove(user_id: str) -> int:
        stripped = _look_at_each(
            area.place, object_versions.list_current, lambda store, found: strip(store, found, user_id)
        )
        return sum(rows or 0 for _, rows in stripped)

    return Store(area.name, remove, area.count)


def _counting_store(area: _Area) -> Store:
    return Store(f"{area.name} (not touched)", lambda user_id: 0, area.count)


def _older_versions_store(area: _Area) -> Store:
    """What was replaced, by this erasure or before it, is of no use to anybody and is deleted whole."""

    def remove(user_id: str) -> int:
        holding = area.find_user_versions(object_versions.list_older, user_id)
        object_versions.delete(area.place.store, [found for found, _ in holding])
        return sum(rows for _, rows in holding)

    def count(user_id: str) -> int:
        return sum(rows for _, rows in area.find_user_versions(object_versions.list_older, user_id))

    return Store(f"older versions, {area.name}", remove, count)


def _unfinished_uploads_store(places: Iterable[Place]) -> Store:
    """Parts that nobody can read may hold anybody: they are dropped, and counted by the upload."""
    known = list(places)

    def remove(_: str) -> int:
        found = [(place.store, upload) for place in known for upload in _list_uploads(place)]
        for store, upload in found:
            object_versions.abort(store, upload)
        return len(found)

    def count(_: str) -> int:
        return sum(len(_list_uploads(place)) for place in known)

    return Store("unfinished uploads", remove, count)


def _list_uploads(place: Place) -> list[UnfinishedUpload]:
    return list(object_versions.unfinished_uploads(place.store, place.prefix))


def _look_at_each(
    place: Place, listed: Listing, look: Callable[[ObjectStore, ObjectVersion], T]
) -> Iterator[tuple[ObjectVersion, T | None]]:
    """Every listed version and what a look at it gives, several looks at once; None for one that is gone by then."""
    versions = list(listed(place.store, place.prefix))
    looks = fetch_in_order(
        lambda number: _retry_on_conflict(place.store, versions[number], look),
        iter(range(len(versions))),
        _PARALLEL_LOOKS,
    )
    return zip(versions, looks, strict=True)


def _retry_on_conflict(
    store: ObjectStore, found: ObjectVersion, look: Callable[[ObjectStore, ObjectVersion], T]
) -> T | None:
    """Looks again where somebody replaces the object meanwhile; RegistryConflictError where that does not end."""
    for _ in range(_ATTEMPTS):
        try:
            return look(store, found)
        except RegistryConflictError:
            again = next((one for one in object_versions.list_current(store, found.key) if one.key == found.key), None)
            if again is None:
                return None
            found = again
        except RegistryError as error:
            if code(error.__cause__) in MISSING_KEY:
                return None
            raise
    raise RegistryConflictError(
        f"{_address(store, found)}: somebody writes it again and again; wait until no run is under way, and erase again"
    )


def _address(store: ObjectStore, found: ObjectVersion) -> str:
    return f"s3://{store.bucket}/{found.key}"


def _open_object(store: ObjectStore, found: ObjectVersion) -> BinaryIO:
    return cast(BinaryIO, ObjectFile(store, found))


def _table_rows(store: ObjectStore, found: ObjectVersion, user_id: str) -> int:
    file = _open_object(store, found)
    known = parquet_rows.schema_of(file, _address(store, found)) is not None
    return parquet_rows.count(file, user_id) if known else 0


def _remove_rows(store: ObjectStore, found: ObjectVersion, user_id: str) -> int:
    rows = _table_rows(store, found, user_id)
    if not rows:
        return 0
    with tempfile.TemporaryDirectory(prefix="erase-") as folder:
        path = Path(folder) / "table"
        store.download(found.key, path, found.size)
        # Else it is another object's table, or a part of one.
        if store.etag(found.key) == found.etag:
            parquet_rows.remove(path, user_id)
            if store.replace(found.key, path, found.etag):
                return rows
    raise RegistryConflictError(f"{_address(store, found)}: was replaced meanwhile; erase again")


def _answer_lines(store: ObjectStore, found: ObjectVersion, user_id: str) -> int:
    return answers.count_lines(BytesIO(_open_object(store, found).read(found.size)), user_id)


def _forget_lines(store: ObjectStore, found: ObjectVersion, user_id: str) -> int:
    body = _open_object(store, found).read(found.size)
    others = b"".join(answers.lines_of_others(BytesIO(body), user_id))
    if not others:
        store.delete(found.key)
    elif others != body and not store.replace(found.key, others, found.etag):
        raise RegistryConflictError(f"{_address(store, found)}: was replaced meanwhile; erase again")
    return answers.count_lines(BytesIO(body), user_id)
