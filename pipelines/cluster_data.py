"""Where a cluster's steps read a data set: the user's own objects in S3, or an upload named by its content.

An upload has two folders: `data/HASH` for what the steps read, `truth/HASH` for labels and ceiling, which the
evaluation alone is given; so a key can be made that reads the one and not the other.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any

from conf_profile import configuration_file, object_store
from conf_profile.config import RunConfig, StorageConfig
from conf_profile.data import dataset
from conf_profile.data.dataset import Dataset
from conf_profile.errors import DataError
from conf_profile.object_store import ObjectStore
from conf_profile.registry import ANY_CHAMPION
from pipelines import arguments
from pipelines.arguments import CACHED_BY_CONTENT, CEILING, Inputs, Places, required_labels

FOLDER = "data"
TRUTH_FOLDER = "truth"
TABLES = "tables"
"""Where Feast's CronJobs read the tables, and a run that is started from KFP's own page."""
ANSWERS = "answers"
CHECKPOINTS = "checkpoints"
TRUTH = (dataset.LABELS, CEILING)


def upload(data: Dataset, config: RunConfig, store: ObjectStore, period: str = "") -> Inputs:
    """Uploads what the pipeline reads of a data set; the same content is not uploaded twice in a `period`.

    The period is a part of what the cache knows the data by (see `retention.period`).
    """
    required_labels(data)
    places = {
        **_upload(data, CACHED_BY_CONTENT, FOLDER, config.storage, store, period),
        **_upload(data, TRUTH, TRUTH_FOLDER, config.storage, store, period),
    }
    as_of = config.features.as_of or data.as_of
    return _inputs(places, as_of, period + data.digest(CACHED_BY_CONTENT), data.labels_digest())


def existing(uri: str, labels_uri: str, config: RunConfig, scheduled: bool, period: str = "") -> Inputs:
    """The tables below `uri`, which keep their places; DataError where one is missing that every run needs.

    Labels and ceiling lie below `labels_uri`, by default below `uri` too. `as_of` is the configuration's, else
    dataset.json's, else the newest row's; a scheduled run goes by the newest row each time.
    """
    etags, places = _look(uri, CACHED_BY_CONTENT)
    truth_etags, truth_places = _look(labels_uri or uri, TRUTH)
    missing = [name for name in dataset.REQUIRED_FILES if name not in places]
    if missing:
        raise DataError(f"{uri}: lacks {', '.join(missing)}; docs/data.md says what a data set has")
    if dataset.LABELS not in truth_places:
        raise DataError(f"{labels_uri or uri}: lacks {dataset.LABELS}; docs/data.md says what a data set has")
    as_of = config.features.as_of or ("" if scheduled else _as_of(uri))
    return _inputs({**places, **truth_places}, as_of, period + _digest(etags), _digest(truth_etags))


def default_arguments(config: RunConfig, data_uri: str = "", labels_uri: str = "") -> dict[str, Any]:
    """Every parameter's default in a compiled pipeline: a run of it reads the tables where they usually lie.

    That is `s3://BUCKET/tables/` and, for the labels, `s3://BUCKET/truth/`, unless `data_uri` and `labels_uri` say
    otherwise. Nothing is known of their content, so what is compiled with these must not take steps from the cache.
    """
    storage = config.storage
    tables = data_uri or object_store.address(storage.bucket, TABLES, storage.endpoint, storage.region)
    truth = (
        labels_uri or data_uri or object_store.address(storage.bucket, TRUTH_FOLDER, storage.endpoint, storage.region)
    )
    places = {name: _below(tables, name) for name in dataset.REQUIRED_FILES}
    places[dataset.LABELS] = _below(truth, dataset.LABELS)
    if config.teacher.kind == "lexicon":
        places[dataset.LEXICON] = _below(tables, dataset.LEXICON)
    inputs = _inputs(places, config.features.as_of or "", "", "")
    kept = places_of(storage, configuration_file.inline(config))
    return arguments.with_inputs(config, inputs, ANY_CHAMPION, kept)


def places_of(storage: StorageConfig, configuration: str) -> Places:
    """Where a run on a cluster keeps what outlives its pods: beside the models, in the steps' store."""

    def place(folder: str) -> str:
        return object_store.address(storage.bucket, f"{folder}/{storage.model}", storage.endpoint, storage.region)

    return Places(place(CHECKPOINTS), place(ANSWERS), configuration)


def _upload(
    data: Dataset, names: Iterable[str], folder: str, storage: StorageConfig, store: ObjectStore, period: str
) -> dict[str, str]:
    there = [name for name in names if name in data.paths]
    prefix = "/".join((folder, "-".join(filter(None, (period, data.digest(there)[:32])))))
    for name in there:
        store.write_new(f"{prefix}/{name}", data.paths[name])
    return {
        name: object_store.address(store.bucket, f"{prefix}/{name}", storage.endpoint, storage.region) for name in there
    }


def _look(uri: str, names: Iterable[str]) -> tuple[dict[str, str], dict[str, str]]:
    """ETag and address of each file that is below `uri`."""
    store, _ = object_store.open_location(uri)
    addresses = {name: _below(uri, name) for name in names}
    etags = {name: store.etag(object_store.locate(address)[1]) for name, address in addresses.items()}
    found = {name: etag for name, etag in etags.items() if etag is not None}
    return found, {name: addresses[name] for name in found}


def _inputs(places: Mapping[str, str], as_of: str, data_digest: str, labels_digest: str) -> Inputs:
    return Inputs(
        behaviour_uri=places[dataset.BEHAVIOUR],
        demographics_uri=places[dataset.DEMOGRAPHICS],
        taxonomy_uri=places[dataset.TAXONOMY],
        lexicon_uri=places.get(dataset.LEXICON, ""),
        labels_uri=places[dataset.LABELS],
        ceiling_uri=places.get(CEILING, ""),
        as_of=as_of,
        data_digest=data_digest,
        labels_digest=labels_digest,
    )


def _as_of(uri: str) -> str:
    where = _below(uri, dataset.MANIFEST)
    store, key = object_store.locate(where)
    stored = store.read(key)
    if stored is None:
        return ""
    try:
        given = str(json.loads(stored.body)["as_of"])
    except (ValueError, LookupError, TypeError) as error:
        raise DataError(f"{where}: as_of cannot be read: {error!r}; write the data set again") from error
    return dataset.parse_time(given, f"{where}: as_of").isoformat()


def _digest(etags: Mapping[str, str]) -> str:
    return hashlib.sha256(json.dumps(etags, sort_keys=True).encode()).hexdigest()


def _below(uri: str, name: str) -> str:
    """The address of a file below a folder's; a query stays behind."""
    folder, mark, query = uri.partition("?")
    return f"{folder.rstrip('/')}/{name}{mark}{query}"
