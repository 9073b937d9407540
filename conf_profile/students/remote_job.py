"""A training step whose inputs and outputs are objects in S3, on one machine or several.

Every process of the launcher runs this module. On each machine one of them fetches the inputs; the very first uploads
the outputs. The job stands in an environment variable:

    {"function": "MODULE:FUNCTION", "arguments": {...}, "outputs": ["student", "log"]}

Arguments that begin with s3:// are places of artefacts; checkpoints stay on the machine. The last output is a file: it
is written last, so where it is, the others are whole.

    PLACE/begun-JOB    beside the first output: this very job has begun to upload, what lies there is its own

A pod that is killed during the upload starts again from the beginning, and replaces what it had uploaded. Anything else
that lies under the outputs ends the job before it trains.

    torchrun ... -m conf_profile.students.remote_job
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

from conf_profile.errors import RegistryError, StudentError
from conf_profile.storage import object_store, object_tree
from conf_profile.storage.object_address import is_remote
from conf_profile.storage.object_store import ObjectStore
from conf_profile.students import processes

JOB = "CONF_PROFILE_JOB"


def main(text: str) -> None:
    """Runs the job; raises what the step, or the object store, raises."""
    job = json.loads(text)
    places = {name: value for name, value in job["arguments"].items() if is_remote(str(value))}
    outputs = {name: places[name] for name in job["outputs"]}
    name_of_job = hashlib.sha256(text.encode()).hexdigest()[:16]
    folder = Path(tempfile.gettempdir()) / f"job-{name_of_job}"
    processes.join()
    if processes.is_first():
        _make_room(outputs, name_of_job)
    if os.environ.get("LOCAL_RANK", "0") == "0":
        _fetch({name: place for name, place in places.items() if name not in outputs}, folder)
    processes.wait()
    local = {name: str(folder / name) for name in (*places, "checkpoints")}
    step, arguments = processes.from_json(json.dumps({**job, "arguments": {**job["arguments"], **local}}))
    step(**arguments)
    if processes.is_first():
        _keep(outputs, name_of_job, folder)


def _fetch(places: Mapping[str, str], folder: Path) -> None:
    for name, place in places.items():
        store, key = object_store.open_location(place)
        object_tree.fetch(store, key, folder / name)


def _make_room(places: Mapping[str, str], job: str) -> list[tuple[ObjectStore, str]]:
    """Deletes what a killed try of this job has left; RegistryError for anything else that lies there.

    Returns the bucket and the key of each place.
    """
    trees = [object_store.open_location(place, create=True) for place in places.values()]
    there = [bool(object_tree.sizes(store, key)) for store, key in trees]
    store, first = trees[0]
    begun = store.size(_begun_key(first, job)) is not None
    if there[-1] or (any(there) and not begun):
        found = list(places.values())[there.index(True)]
        raise RegistryError(f"{found}: exists already; choose another place for the output, or delete it")
    if begun:
        for store, key in trees:
            object_tree.clear(store, key)
        # Last, and before the training: what comes from now on is another job's.
        object_tree.clear(trees[0][0], _begun_key(first, job))
    return trees


def _keep(places: Mapping[str, str], job: str, folder: Path) -> None:
    # Once more: another job may have been here while this one trained, and its objects must not count as ours.
    trees = _make_room(places, job)
    store, first = trees[0]
    store.write_new(_begun_key(first, job), b"")
    for name, (store, key) in zip(places, trees, strict=True):
        object_tree.upload(store, folder / name, key)


def _begun_key(key: str, job: str) -> str:
    """Not `key` with something behind it: who lists by prefix would take it for a part of the output."""
    return f"{key.rpartition('/')[0]}/begun-{job}".lstrip("/")


def _read_job() -> str:
    text = os.environ.get(JOB)
    if not text:
        raise StudentError(f"the environment variable {JOB} is empty; `conf-profile compile --trainjob` fills it")
    return text


if __name__ == "__main__":
    main(_read_job())
