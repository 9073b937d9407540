"""Where a cluster's steps read a data set: the user's own objects in S3, or an upload named by its content."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping

from conf_profile import object_store
from conf_profile.config import RunConfig
from conf_profile.data import dataset
from conf_profile.data.dataset import Dataset
from conf_profile.errors import DataError
from conf_profile.object_store import ObjectStore
from pipelines.arguments import ABSENT, CACHED_BY_CONTENT, CEILING, Inputs, required_labels

FOLDER = "data"
TRUTH = (dataset.LABELS, CEILING)


def upload(data: Dataset, config: RunConfig, store: ObjectStore) -> Inputs:
    """Uploads what the pipeline reads of a data set; the same content is not uploaded twice."""
    required_labels(data)
    names = [name for name in (*CACHED_BY_CONTENT, *TRUTH) if name in data.paths]
    prefix = f"{FOLDER}/{data.digest(names)[:32]}"
    for name in names:
        store.write_new(f"{prefix}/{name}", data.paths[name])
    places = {name: f"s3://{store.bucket}/{prefix}/{name}" for name in names}
    as_of = config.features.as_of or data.as_of
    return _inputs(places, _absent(store), as_of, data.digest(CACHED_BY_CONTENT), data.labels_digest())


def existing(uri: str, config: RunConfig, scheduled: bool, store_for_absent: ObjectStore) -> Inputs:
    """The tables below `uri`, which keep their places. DataError where one is missing that every run needs.

    `as_of` is the configuration's, else dataset.json's, else the newest row's; a scheduled run goes by the newest
    row each time.
    """
    store, prefix = object_store.open_location(uri)
    etags = {name: store.etag(_key(prefix, name)) for name in (*CACHED_BY_CONTENT, *TRUTH)}
    missing = [name for name in (*dataset.REQUIRED_FILES, dataset.LABELS) if etags[name] is None]
    if missing:
        raise DataError(f"{uri}: lacks {', '.join(missing)}; docs/data.md says what a data set has")
    found = {name: etag for name, etag in etags.items() if etag is not None}
    places = {name: f"s3://{store.bucket}/{_key(prefix, name)}" for name in found}
    as_of = config.features.as_of or ("" if scheduled else _as_of(store, prefix))
    return _inputs(places, _absent(store_for_absent), as_of, _digest(found, CACHED_BY_CONTENT), _digest(found, TRUTH))


def _inputs(places: Mapping[str, str], absent: str, as_of: str, data_digest: str, labels_digest: str) -> Inputs:
    return Inputs(
        behaviour_uri=places[dataset.BEHAVIOUR],
        demographics_uri=places[dataset.DEMOGRAPHICS],
        taxonomy_uri=places[dataset.TAXONOMY],
        lexicon_uri=places.get(dataset.LEXICON, absent),
        labels_uri=places[dataset.LABELS],
        ceiling_uri=places.get(CEILING, absent),
        as_of=as_of,
        data_digest=data_digest,
        labels_digest=labels_digest,
    )


def _absent(store: ObjectStore) -> str:
    key = f"{FOLDER}/{ABSENT}"
    store.write_new(key, b"")
    return f"s3://{store.bucket}/{key}"


def _as_of(store: ObjectStore, prefix: str) -> str:
    stored = store.read(_key(prefix, dataset.MANIFEST))
    if stored is None:
        return ""
    where = f"s3://{store.bucket}/{_key(prefix, dataset.MANIFEST)}: as_of"
    try:
        given = str(json.loads(stored.body)["as_of"])
    except (ValueError, LookupError, TypeError) as error:
        raise DataError(f"{where}: cannot be read: {error!r}; write the data set again") from error
    return dataset.parse_time(given, where).isoformat()


def _digest(etags: Mapping[str, str], names: Iterable[str]) -> str:
    known = {name: etags[name] for name in names if name in etags}
    return hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()


def _key(prefix: str, name: str) -> str:
    return f"{prefix}/{name}" if prefix else name
