"""A training step whose inputs and outputs are objects in S3, on one machine or several.

Every process of the launcher runs this module. On each machine one of them fetches the inputs; the very first uploads
the outputs. The job stands in an environment variable:

    {"function": "components.sft.step:run", "arguments": {...}, "outputs": ["student", "log"]}

Arguments that begin with s3:// are places of artefacts; checkpoints stay on the machine.

    torchrun ... -m conf_profile.students.remote_job
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

from conf_profile import object_store, object_tree
from conf_profile.errors import StudentError
from conf_profile.students import processes

JOB = "CONF_PROFILE_JOB"
_SCHEME = "s3://"


def main(text: str) -> None:
    """Runs the job; raises what the step, or the object store, raises."""
    job = json.loads(text)
    places = {name: value for name, value in job["arguments"].items() if str(value).startswith(_SCHEME)}
    folder = Path(tempfile.gettempdir()) / f"job-{hashlib.sha256(text.encode()).hexdigest()[:16]}"
    processes.join()
    if os.environ.get("LOCAL_RANK", "0") == "0":
        _fetch({name: place for name, place in places.items() if name not in job["outputs"]}, folder)
    processes.wait()
    local = {name: str(folder / name) for name in (*places, "checkpoints")}
    step, arguments = processes.from_json(json.dumps({**job, "arguments": {**job["arguments"], **local}}))
    step(**arguments)
    if processes.is_first():
        _keep({name: places[name] for name in job["outputs"]}, folder)


def _fetch(places: Mapping[str, str], folder: Path) -> None:
    for name, place in places.items():
        store, key = object_store.open_location(place)
        object_tree.fetch(store, key, folder / name)


def _keep(places: Mapping[str, str], folder: Path) -> None:
    for name, place in places.items():
        store, key = object_store.open_location(place, create=True)
        object_tree.keep(store, folder / name, key)


def _given() -> str:
    text = os.environ.get(JOB)
    if not text:
        raise StudentError(f"the environment variable {JOB} is empty; `conf-profile compile --trainjob` fills it")
    return text


if __name__ == "__main__":
    main(_given())
