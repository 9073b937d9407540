"""What a step reads of a data set, each file by its own address: a path of this machine, or an object in S3.

A remote file is copied to the step's own disk with the step's own S3 settings, and checked as `own.check_folder` checks
a folder before a local run. Files of this machine were checked there, and are read where they lie.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from conf_profile.data import own
from conf_profile.dialogue import task as tasks
from conf_profile.errors import DataError, TaxonomyError
from conf_profile.storage import object_store
from conf_profile.storage.object_address import is_remote
from conf_profile.storage.object_store import ObjectStore

LABELS_ACCESS_KEY, LABELS_SECRET_KEY = "CONF_PROFILE_LABELS_ACCESS_KEY", "CONF_PROFILE_LABELS_SECRET_KEY"
"""Environment variables of the evaluation on a cluster, where labels are guarded by keys of their own."""


def fetch(address: str, name: str, folder: Path) -> Path:
    """The file behind an address; a remote one is copied to `folder` as `name`. DataError where there is none."""
    if not address:
        raise DataError(f"{name}: no address was given; name the file, e.g. s3://BUCKET/tables/{name}")
    if not is_remote(address):
        return _require_file(Path(address))
    return _copy(*object_store.locate(address), address, folder / name)


def fetch_truth(address: str, name: str, folder: Path) -> Path | None:
    """Labels or ceiling, with keys of their own where the environment has some; None where no address was given."""
    if not is_remote(address):
        return fetch_optional(address, name, folder)
    keys = os.environ.get(LABELS_ACCESS_KEY), os.environ.get(LABELS_SECRET_KEY)
    return _copy(*object_store.locate(address, *keys), address, folder / name)


def _copy(store: ObjectStore, key: str, address: str, target: Path) -> Path:
    size = store.size(key)
    if size is None:
        raise DataError(f"{address}: there is no such object; correct the address, or put {target.name} there")
    digest = store.download(key, target, size)
    if digest is None or digest.size != size:
        raise DataError(f"{address}: changed while it was read; run again when nobody writes to it")
    return target


def fetch_optional(address: str, name: str, folder: Path) -> Path | None:
    """The same; None where no address was given."""
    return fetch(address, name, folder) if address else None


def fetch_features(behaviour: str, demographics: str, task: Path, folder: Path) -> tuple[Path, Path]:
    """The two tables that Feast reads, with the task's features."""
    paths = fetch(behaviour, "behaviour.parquet", folder), fetch(demographics, "demographics.parquet", folder)
    if is_remote(behaviour) or is_remote(demographics):
        with _name_address_in_errors(paths[0], behaviour), _name_address_in_errors(paths[1], demographics):
            own.check_features(*paths, tasks.load(task).features)
    return paths


def fetch_task(address: str, folder: Path) -> Path:
    """The task; where an address ends with `task.yaml` and nothing is there, the `taxonomy.yaml` beside it."""
    if not is_remote(address):
        return fetch(address, tasks.TASK, folder)
    path = fetch(_existing_task(address), tasks.TASK, folder)
    with _name_address_in_errors(path, address):
        tasks.load(path)
    return path


def _existing_task(address: str) -> str:
    store, key = object_store.locate(address)
    where, mark, query = address.partition("?")
    former = where.removesuffix(tasks.TASK) + tasks.FORMER_TASK + mark + query
    if (
        where.endswith(tasks.TASK)
        and store.size(key) is None
        and store.size(object_store.locate(former)[1]) is not None
    ):
        return former
    return address


def fetch_lexicon(address: str, task: Path, folder: Path) -> Path | None:
    """The lexicon of the embedded teacher; None where no address was given."""
    path = fetch_optional(address, "lexicon.json", folder)
    if path is not None and is_remote(address):
        with _name_address_in_errors(path, address):
            own.check_lexicon(path, task)
    return path


def fetch_labels(address: str, task: Path, folder: Path) -> Path | None:
    """The true labels, for the evaluation alone; None where no address was given."""
    path = fetch_truth(address, "labels.parquet", folder)
    if path is not None and is_remote(address):
        with _name_address_in_errors(path, address):
            own.check_labels(path, task)
    return path


@contextmanager
def _name_address_in_errors(path: Path, address: str) -> Iterator[None]:
    """An error names what the user knows, not the copy of it."""
    try:
        yield
    except (DataError, TaxonomyError) as error:
        raise type(error)(str(error).replace(str(path), address)) from error


def _require_file(path: Path) -> Path:
    if not path.is_file():
        raise DataError(f"{path}: there is no such file; run again with the place of your tables")
    return path
