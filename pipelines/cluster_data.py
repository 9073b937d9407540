"""Where a cluster's steps read a data set: the user's own objects in S3, or an upload named by its content.

An upload has two folders: `data/HASH` for what the steps read, `truth/HASH` for labels and ceiling, which the
evaluation alone is given; so a key can be made that reads the one and not the other.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from conf_profile.config import RunConfig, StorageConfig
from conf_profile.data import dataset, inputs
from conf_profile.data.dataset import Dataset
from conf_profile.dialogue import task as tasks
from conf_profile.errors import DataError, RegistryError
from conf_profile.evaluation.unjudged.gate import check_levels
from conf_profile.registry.registry import ANY_CHAMPION
from conf_profile.storage import configuration_file, object_address, object_errors, object_store
from conf_profile.storage.object_address import ObjectAddress
from conf_profile.storage.object_store import ObjectStore
from pipelines import arguments
from pipelines.arguments import CACHED_BY_CONTENT, CEILING, Inputs, Places

FOLDER = "data"
TRUTH_FOLDER = "truth"
TABLES = "tables"
"""Where Feast's CronJobs read the tables, and a run that is started from KFP's own page."""
ANSWERS = "answers"
CHECKPOINTS = "checkpoints"
TRUTH = (dataset.LABELS, CEILING)
UNCACHED_DIGEST = "uncached"
"""In the place of a digest where no step is taken from the cache."""


def upload(data: Dataset, config: RunConfig, store: ObjectStore, period: str = "") -> Inputs:
    """Uploads what the pipeline reads of a data set; the same content is not uploaded twice in a `period`.

    The period is a part of what the cache knows the data by (see `retention.period`).
    """
    check_levels(config.gate, tasks.load(data.task).names)
    places = {
        **_upload(data, CACHED_BY_CONTENT, FOLDER, config.storage, store, period),
        **_upload(data, TRUTH, TRUTH_FOLDER, config.storage, store, period),
    }
    as_of = config.features.as_of or data.as_of
    return _inputs(places, as_of, period + data.digest(CACHED_BY_CONTENT), data.labels_digest())


def read_inputs(
    uri: str, labels_uri: str, config: RunConfig, scheduled: bool, guarded: bool, period: str = ""
) -> Inputs:
    """The tables below `uri`, which keep their places; DataError where one is missing that every run needs.

    Labels and ceiling lie below `labels_uri`, by default below `uri` too; with `guarded` this process need not be
    allowed to read them. There need be no labels, unless a place is named for them: then the run is unjudged. `as_of`
    is the configuration's, else dataset.json's, else the newest row's; a scheduled run goes by the newest row each
    time, and takes nothing from the cache.
    """
    named_labels = bool(labels_uri)
    uri, labels_uri = complete_address(uri, config.storage), complete_address(labels_uri or uri, config.storage)
    etags, places = _look(uri, CACHED_BY_CONTENT)
    truth_etags, truth_places = _look_at_truth(labels_uri, guarded)
    missing = dataset.missing_files(places)
    if config.teacher.kind == "lexicon" and dataset.LEXICON not in places:
        missing.append(dataset.LEXICON)
    if missing:
        why = "nothing of a data set lies there" if not places else f"lacks {', '.join(missing)}"
        raise DataError(f"{uri}: {why}; docs/data.md says what a data set has")
    if named_labels and dataset.LABELS not in truth_places:
        raise DataError(
            f"{labels_uri}: lacks {dataset.LABELS}; put it there, or leave --labels-uri out: without labels the run is "
            "unjudged (docs/data.md)"
        )
    places |= truth_places
    _check_small(places, config, guarded)
    if scheduled:
        return _inputs(places, config.features.as_of or "", UNCACHED_DIGEST, UNCACHED_DIGEST)
    as_of = config.features.as_of or _read_as_of(uri)
    return _inputs(places, as_of, period + _digest(etags), _digest(truth_etags))


def default_arguments(
    config: RunConfig, data_uri: str = "", labels_uri: str = "", caching: bool = False
) -> dict[str, Any]:
    """Every parameter's default in a compiled pipeline: a run of it reads the tables where they usually lie.

    That is `s3://BUCKET/tables/` and, for the labels, `s3://BUCKET/truth/`, unless `data_uri` and `labels_uri` say
    otherwise. Nothing is known of their content: where steps are taken from the cache the digests are left empty, with
    which the first step refuses to run.
    """
    storage = config.storage
    tables = complete_address(data_uri, storage) if data_uri else address_of(storage, TABLES)
    truth = labels_uri or data_uri
    truth = complete_address(truth, storage) if truth else address_of(storage, TRUTH_FOLDER)
    places = {name: _file_address(tables, name) for name in dataset.REQUIRED_FILES}
    places[dataset.LABELS] = _file_address(truth, dataset.LABELS)
    if config.teacher.kind == "lexicon":
        places[dataset.LEXICON] = _file_address(tables, dataset.LEXICON)
    digest = "" if caching else UNCACHED_DIGEST
    given = _inputs(places, config.features.as_of or "", digest, digest)
    kept = places_of(storage, configuration_file.inline(config))
    return arguments.pipeline_arguments(config, given, ANY_CHAMPION, kept)


def places_of(storage: StorageConfig, configuration: str) -> Places:
    """Where a run on a cluster keeps what outlives its pods: beside the models, in the steps' store."""

    def place(folder: str) -> str:
        return address_of(storage, f"{folder}/{storage.model}")

    return Places(place(CHECKPOINTS), place(ANSWERS), configuration)


def _upload(
    data: Dataset, names: Iterable[str], folder: str, storage: StorageConfig, store: ObjectStore, period: str
) -> dict[str, str]:
    there = [name for name in names if name in data.paths]
    prefix = "/".join((folder, "-".join(filter(None, (period, data.digest(there)[:32])))))
    for name in there:
        store.write_new(f"{prefix}/{name}", data.paths[name])
    return {name: address_of(storage, f"{prefix}/{name}") for name in there}


def _look(uri: str, names: Iterable[str]) -> tuple[dict[str, str], dict[str, str]]:
    """ETag and address of each file that is below `uri`."""
    store, _ = object_store.open_location(uri)
    addresses = {name: _file_address(uri, name) for name in names}
    etags = {name: store.etag(object_store.locate(address)[1]) for name, address in addresses.items()}
    found = {name: etag for name, etag in etags.items() if etag is not None}
    return found, {name: addresses[name] for name in found}


def _look_at_truth(uri: str, guarded: bool) -> tuple[dict[str, str], dict[str, str]]:
    """The same of labels and ceiling; where this process may not read them, labels are taken to be there."""
    try:
        return _look(uri, TRUTH)
    except RegistryError as error:
        if not (guarded and object_errors.is_refusal(error)):
            raise
        return {}, {dataset.LABELS: _file_address(uri, dataset.LABELS)}


def _check_small(places: Mapping[str, str], config: RunConfig, guarded: bool) -> None:
    """Reads what is small and would fail late: task, lexicon and, where this process may read them, the labels.

    The large tables are checked by the first step.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        task = inputs.fetch_task(dataset.task_of(places), folder)
        check_levels(config.gate, tasks.load(task).names)
        inputs.fetch_lexicon(places.get(dataset.LEXICON, ""), task, folder)
        try:
            inputs.fetch_labels(places.get(dataset.LABELS, ""), task, folder)
        except RegistryError as error:
            if not (guarded and object_errors.is_refusal(error)):
                raise


def _inputs(places: Mapping[str, str], as_of: str, data_digest: str, labels_digest: str) -> Inputs:
    return Inputs(
        behaviour_uri=places[dataset.BEHAVIOUR],
        demographics_uri=places[dataset.DEMOGRAPHICS],
        task_uri=dataset.task_of(places),
        lexicon_uri=places.get(dataset.LEXICON, ""),
        labels_uri=places.get(dataset.LABELS, ""),
        ceiling_uri=places.get(CEILING, ""),
        as_of=as_of,
        data_digest=data_digest,
        labels_digest=labels_digest,
    )


def _read_as_of(uri: str) -> str:
    where = _file_address(uri, dataset.MANIFEST)
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


def complete_address(uri: str, storage: StorageConfig) -> str:
    """The address with the configured endpoint and region, where it says none itself."""
    found = object_address.parse(uri)
    region = "" if storage.region in (None, object_address.REGION) else storage.region
    return str(replace(found, endpoint=found.endpoint or storage.endpoint or "", region=found.region or region))


def address_of(storage: StorageConfig, key: str) -> str:
    """The address of an object in the configured bucket, as the steps are given it."""
    return complete_address(str(ObjectAddress(storage.bucket, key, encryption=storage.encryption or "")), storage)


def _file_address(uri: str, name: str) -> str:
    """The address of a file below a folder's; a query stays behind."""
    folder, mark, query = uri.partition("?")
    return f"{folder.rstrip('/')}/{name}{mark}{query}"
