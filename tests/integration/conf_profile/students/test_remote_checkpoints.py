"""Copies of checkpoints in a real object store: who writes, what is found again, what is refused, what stays behind.

The checkpoints are made by hand; tests/integration/conf_profile/students/test_killed_training.py has real ones.
"""

import json
import logging

import pytest

from conf_profile.errors import RegistryError
from conf_profile.storage.local_s3 import local_s3
from conf_profile.storage.object_store import ObjectStore
from conf_profile.students import checkpoint_folders as checkpoints
from conf_profile.students.checkpoints import remote as remote_checkpoints
from conf_profile.students.training import last_checkpoint
from support.s3 import client_of


@pytest.fixture(scope="module")
def access(tmp_path_factory):
    with local_s3(tmp_path_factory.mktemp("s3")) as access:
        yield access


@pytest.fixture(scope="module")
def store(access):
    found = ObjectStore(client_of(access), "conf-profile")
    found.ensure_bucket(create=True)
    return found


@pytest.fixture
def workspace(access, store, monkeypatch, tmp_path):
    """An address of its own for each test; the keys are in the environment, as in a pod."""
    for name, value in access.environment().items():
        monkeypatch.setenv(name, value)
    return f"s3://conf-profile/checkpoints/{tmp_path.name}?endpoint={access.endpoint}"


def kept(workspace):
    return checkpoints.open_checkpoints(workspace, "components.sft.task", [], ["{}"])


def save(folder, step, path=None):
    """A whole checkpoint, uploaded as the trainer's callback does."""
    checkpoint = folder / (path or f"checkpoint-{step}")
    checkpoint.mkdir(parents=True)
    (checkpoint / "model.safetensors").write_bytes(f"weights of {step}".encode())
    (checkpoint / "trainer_state.json").write_text(json.dumps({"global_step": step}))
    (checkpoint / "training_args.bin").write_bytes(b"PK a pickle")
    remote_checkpoints.upload(checkpoint)


class Killed(BaseException):
    """The pod is gone: nothing that it would have done at its end is done."""


def killed_after(workspace, *steps):
    with pytest.raises(Killed), kept(workspace) as folder:
        for step in steps:
            save(folder, step)
        raise Killed


def keys(store, workspace):
    prefix = workspace.partition("?")[0].removeprefix("s3://conf-profile/")
    return sorted(store.sizes(f"{prefix}/"))


def key_of(store, workspace, end):
    (found,) = (key for key in keys(store, workspace) if key.endswith(end))
    return found


def overwrite(store, key, body):
    store.client.put_object(Bucket=store.bucket, Key=key, Body=body)


def found_step(workspace):
    """The step from which a next try goes on; 0 for none. That try is killed, too."""
    step = 0
    with pytest.raises(Killed), kept(workspace) as folder:
        last = last_checkpoint(folder)
        if last is not None:
            step = json.loads((folder / last / "trainer_state.json").read_text())["global_step"]
            assert (folder / last / "model.safetensors").read_text() == f"weights of {step}"
        raise Killed
    return step


def test_a_fresh_folder_finds_the_newest_checkpoint(store, workspace):
    killed_after(workspace, 10, 20, 30)
    assert found_step(workspace) == 30
    found = keys(store, workspace)
    assert {key.split("/")[-2] for key in found if "claim" not in key} == {"checkpoint-20", "checkpoint-30"}
    assert {key.rpartition(".")[2] for key in found} == {"json", "safetensors"}


def test_other_work_is_not_found(workspace):
    killed_after(workspace, 10)
    with checkpoints.open_checkpoints(workspace, "components.sft.task", [], ['{"other": 1}']) as folder:
        assert last_checkpoint(folder) is None


def test_nothing_stays_behind(store, workspace):
    killed_after(workspace, 10)
    with kept(workspace) as folder:
        save(folder, 20)
    assert keys(store, workspace) == []
    assert not folder.exists()


def test_half_an_upload_is_never_seen_and_goes(store, workspace, monkeypatch):
    killed_after(workspace, 10)

    def kill(*_, **__):
        raise Killed

    with monkeypatch.context() as patched, pytest.raises(Killed), kept(workspace) as folder:
        patched.setattr(remote_checkpoints.checkpoint_claim, "change", kill)
        save(folder, 20)
    assert any("checkpoint-20" in key for key in keys(store, workspace))
    assert found_step(workspace) == 10
    assert not any("checkpoint-20" in key for key in keys(store, workspace))


def test_the_first_of_two_writers_copies_no_more_and_goes_on(store, workspace, caplog):
    """The second may be a try after a lost pod, or another run that trains on the same: that must not end this one."""
    with kept(workspace) as first:
        save(first, 10)
        with pytest.raises(Killed), kept(workspace) as second:
            assert last_checkpoint(second).endswith("checkpoint-10")
            save(second, 20)
            raise Killed
        save(first, 20)
        save(first, 30)
        assert (first / "checkpoint-30").is_dir()
    assert caplog.text.count("no further checkpoint is copied") == 1 and "try 2 has taken over" in caplog.text
    assert {key.split("/")[3][0] for key in keys(store, workspace) if "checkpoint-20" in key} == {"2"}
    assert found_step(workspace) == 20


def test_a_writer_that_lost_its_claim_deletes_nothing(store, workspace, caplog):
    with kept(workspace) as first:
        save(first, 10)
        killed_after(workspace, 20)
    assert "not deleted" in caplog.text and "try 2 has taken over" in caplog.text
    assert found_step(workspace) == 20


def test_a_writer_whose_claim_is_gone_copies_no_more(store, workspace, caplog):
    with kept(workspace) as first:
        with kept(workspace):
            pass
        save(first, 10)
    assert "they were deleted" in caplog.text
    assert not keys(store, workspace)


def flip(body):
    return bytes([body[0] ^ 1]) + body[1:]


@pytest.mark.parametrize(
    ("end", "damage", "said"),
    [
        ("checkpoint-20/model.safetensors", flip, "model.safetensors differs from its hash"),
        ("checkpoint-20/model.safetensors", lambda body: body[:-1], "model.safetensors differs from its hash"),
        ("checkpoint-20/model.safetensors", None, "model.safetensors is missing"),
        ("checkpoint-20/manifest.json", flip, "its manifest is not the one that was written"),
        ("checkpoint-20/manifest.json", None, "its manifest is missing"),
    ],
)
def test_a_damaged_checkpoint_is_named_and_the_one_before_is_taken(store, workspace, caplog, end, damage, said):
    killed_after(workspace, 10, 20)
    key = key_of(store, workspace, end)
    if damage is None:
        store.delete(key)
    else:
        overwrite(store, key, damage(store.read(key).body))
    assert found_step(workspace) == 10
    assert f"{key.rpartition('/')[0]} is not used: {said}" in caplog.text
    assert not any("checkpoint-20" in key for key in keys(store, workspace)), "it is gone"


@pytest.mark.parametrize(
    "body", [b"\x80\x04 no JSON", b"[]", b'{"format": 2, "number": 1}', b'{"format": 1}'], ids=range(4)
)
def test_a_claim_that_cannot_be_read_starts_afresh(store, workspace, caplog, body):
    killed_after(workspace, 10)
    overwrite(store, key_of(store, workspace, "claim.json"), body)
    assert found_step(workspace) == 0
    assert "claim.json: cannot be read" in caplog.text
    killed_after(workspace, 20)
    assert found_step(workspace) == 20


def test_a_checkpoint_of_another_format_is_not_used(workspace, caplog, monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr(remote_checkpoints.checkpoint_files, "FORMAT", 2)
        killed_after(workspace, 10)
    assert found_step(workspace) == 0
    assert "its format is 2; this version reads format 1" in caplog.text


def test_a_store_that_is_down_costs_only_progress(store, workspace, caplog, monkeypatch):
    caplog.set_level(logging.WARNING)
    with pytest.raises(Killed), kept(workspace) as folder:
        place = json.loads((folder / "remote.json").read_text())
        away = place | {"address": "s3://conf-profile/x?endpoint=http://127.0.0.1:9"}
        (folder / "remote.json").write_text(json.dumps(away))
        save(folder, 10)
        assert "checkpoint-10 is not copied to the store; the next checkpoint may be" in caplog.text
        (folder / "remote.json").write_text(json.dumps(place))
        save(folder, 20)
        raise Killed
    assert found_step(workspace) == 20


def test_a_store_that_is_down_at_the_start_is_an_error(workspace):
    away = "s3://conf-profile/x?endpoint=http://127.0.0.1:9"
    with (
        pytest.raises(RegistryError, match="does not answer"),
        checkpoints.open_checkpoints(away, "components.sft.task", [], []),
    ):
        pytest.fail("began")


def test_finished_rounds_are_kept_and_their_trainings_go(store, workspace):
    with pytest.raises(Killed), kept(workspace) as folder:
        save(folder, 10, "training-0/checkpoint-10")
        save(folder, 0, "round-0")
        save(folder, 10, "training-1/checkpoint-10")
        save(folder, 20, "training-1/checkpoint-20")
        raise Killed
    with kept(workspace) as folder:
        assert sorted(path.name for path in folder.iterdir()) == ["remote.json", "round-0", "training-1"]
        assert last_checkpoint(folder / "training-1").endswith("checkpoint-20")
        save(folder, 0, "round-1")
        assert not any("training-" in key for key in keys(store, workspace))


def test_a_local_folder_has_no_copies(tmp_path):
    with checkpoints.open_checkpoints(str(tmp_path), "components.sft.task", [], []) as folder:
        assert folder.is_relative_to(tmp_path) and not folder.exists()
        save(folder, 10)
    assert [path.name for path in folder.iterdir()] == ["checkpoint-10"]


def test_of_several_processes_the_first_copies(store, workspace, monkeypatch):
    with kept(workspace) as folder:
        monkeypatch.setenv("RANK", "1")
        save(folder, 10)
        assert [key.rpartition("/")[2] for key in keys(store, workspace)] == ["claim.json"]
        monkeypatch.setenv("RANK", "0")
        save(folder, 20)
        assert any("checkpoint-20" in key for key in keys(store, workspace))
