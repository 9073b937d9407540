"""A job on objects in S3, without its training: what lies under its outputs, also after a kill. Real SeaweedFS."""

import json
import sys
import uuid
from pathlib import Path

import pytest

from conf_profile.errors import RegistryError
from conf_profile.storage import object_tree
from conf_profile.storage.local_s3 import local_s3
from conf_profile.storage.object_store import ObjectStore
from conf_profile.students import remote_job
from support.s3 import client_of

BUCKET = "artefacts"
FILES = ("config.json", "model.safetensors")


class Killed(BaseException):
    """What no handler of ours expects."""


class Training:
    """Stands for a training step: it counts its calls, and no two of them write the same weights."""

    def __init__(self):
        self.calls = 0

    def step(self, features: Path, student: Path, log: Path, checkpoints: Path, seed: int):
        assert features.read_text() == "rows"
        self.calls += 1
        student.mkdir(parents=True, exist_ok=True)
        for name in FILES:
            (student / name).write_text(f"{name} of training {self.calls}")
        log.write_text(f"[{self.calls}]")
        return {}


@pytest.fixture(scope="module")
def access(tmp_path_factory):
    with local_s3(tmp_path_factory.mktemp("s3")) as found:
        yield found


@pytest.fixture
def store(access, monkeypatch, tmp_path):
    for name, value in access.environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    found = ObjectStore(client_of(access), BUCKET)
    found.ensure_bucket(create=True)
    found.write_new("run/features", b"rows")
    return found


@pytest.fixture
def training(monkeypatch):
    found = Training()
    monkeypatch.setattr(sys.modules[__name__], "step", found.step, raising=False)
    return found


@pytest.fixture
def place():
    return uuid.uuid4().hex


def job(place, seed=0):
    below = f"s3://{BUCKET}/{place}"
    arguments = {"features": f"s3://{BUCKET}/run/features", "student": f"{below}/student", "log": f"{below}/log"}
    call = {"function": f"{__name__}:step", "arguments": {**arguments, "seed": seed}}
    return json.dumps({**call, "outputs": ["student", "log"]})


def content(store, key, folder):
    object_tree.fetch(store, key, folder)
    return {path.name: path.read_text() for path in folder.iterdir()}


def kill_at_write(monkeypatch, number):
    """The process ends in front of this write."""
    whole, writes = ObjectStore.write_new, []

    def write_new(self, key, source):
        writes.append(key)
        if len(writes) == number:
            raise Killed(key)
        return whole(self, key, source)

    monkeypatch.setattr(ObjectStore, "write_new", write_new)


@pytest.mark.parametrize("number", [1, 2, 3, 4])
def test_a_job_that_was_killed_in_its_upload_delivers_when_it_starts_again(
    store, training, place, monkeypatch, tmp_path, number
):
    with monkeypatch.context() as patched:
        kill_at_write(patched, number)
        with pytest.raises(Killed):
            remote_job.main(job(place))
    remote_job.main(job(place))
    assert content(store, f"{place}/student", tmp_path / "got") == {name: f"{name} of training 2" for name in FILES}
    assert store.read(f"{place}/log").body == b"[2]"


def test_a_finished_output_is_told_before_anything_is_trained(store, training, place, tmp_path):
    remote_job.main(job(place))
    for seed in (0, 1):
        with pytest.raises(RegistryError, match=f"{place}/student: exists already; choose another place"):
            remote_job.main(job(place, seed))
    assert training.calls == 1
    assert content(store, f"{place}/student", tmp_path / "got") == {name: f"{name} of training 1" for name in FILES}


@pytest.mark.parametrize("key", ["student/model.safetensors", "student", "log"])
def test_what_the_job_did_not_write_is_left_alone(store, training, place, key):
    store.write_new(f"{place}/{key}", b"another's")
    with pytest.raises(RegistryError, match="exists already"):
        remote_job.main(job(place))
    assert training.calls == 0
    assert store.read(f"{place}/{key}").body == b"another's"


def test_another_jobs_unfinished_upload_is_left_alone(store, training, place, monkeypatch):
    with monkeypatch.context() as patched:
        kill_at_write(patched, 3)
        with pytest.raises(Killed):
            remote_job.main(job(place))
    before = store.sizes(place)
    with pytest.raises(RegistryError, match="exists already"):
        remote_job.main(job(place, seed=1))
    assert (training.calls, store.sizes(place)) == (1, before)


def test_what_lies_beside_the_outputs_does_not_matter(store, training, place):
    beside = [f"{place}/students", f"{place}/student.old/config.json", f"{place}/logs"]
    for key in beside:
        store.write_new(key, b"beside")
    remote_job.main(job(place))
    assert all(store.read(key).body == b"beside" for key in beside)


def test_an_output_that_appears_during_the_training_is_left_alone(store, training, place, monkeypatch):
    def step(features: Path, student: Path, log: Path, checkpoints: Path, seed: int):
        training.step(features, student, log, checkpoints, seed)
        store.write_new(f"{place}/student/model.safetensors", b"another's")

    monkeypatch.setattr(sys.modules[__name__], "step", step)
    for _ in range(2):
        with pytest.raises(RegistryError, match="exists already"):
            remote_job.main(job(place))
    assert store.read(f"{place}/student/model.safetensors").body == b"another's"
    assert training.calls == 1


def test_also_what_appears_during_a_second_try_is_left_alone(store, training, place, monkeypatch):
    with monkeypatch.context() as patched:
        kill_at_write(patched, 3)
        with pytest.raises(Killed):
            remote_job.main(job(place))
    training.calls = 0
    test_an_output_that_appears_during_the_training_is_left_alone(store, training, place, monkeypatch)


def test_a_write_whose_reply_was_lost_is_no_others(store, place, tmp_path):
    (tmp_path / "file").write_bytes(b"same")
    for _ in range(2):
        object_tree.upload(store, tmp_path / "file", place)
    (tmp_path / "file").write_bytes(b"else")
    with pytest.raises(RegistryError, match="exists already"):
        object_tree.upload(store, tmp_path / "file", place)
