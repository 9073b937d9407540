"""Checkpoints without pickles: what the trainer wrote comes back bit for bit from safetensors and JSON."""

import json
import random
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from transformers.trainer_pt_utils import safe_globals

from conf_profile.errors import StudentError
from conf_profile.storage.object_store import Digest
from conf_profile.students.checkpoints import files as checkpoint_files
from conf_profile.students.checkpoints.files import MANIFEST, pack, read_manifest, unpack


def load(path):
    with safe_globals():
        return torch.load(path, weights_only=True)


def same(one, two):
    """Equal in value, type, order of keys, and every bit."""
    if isinstance(one, torch.Tensor):
        return one.dtype == two.dtype and one.shape == two.shape and one.numpy().tobytes() == two.numpy().tobytes()
    if isinstance(one, np.ndarray):
        return one.dtype == two.dtype and one.shape == two.shape and one.tobytes() == two.tobytes()
    if isinstance(one, dict):
        return list(one) == list(two) and all(same(one[key], two[key]) for key in one)
    if isinstance(one, list | tuple):
        return type(one) is type(two) and len(one) == len(two) and all(map(same, one, two))
    return type(one) is type(two) and repr(one) == repr(two)


@pytest.fixture
def checkpoint(tmp_path):
    """A checkpoint's folder as the trainer leaves it: real optimiser, schedule and random states."""
    folder = tmp_path / "checkpoint-20"
    (folder / "ref").mkdir(parents=True)
    layer = torch.nn.Linear(3, 2)
    optimiser = torch.optim.AdamW(layer.parameters(), lr=1e-3, betas=(0.9, 0.98))
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: 1 / (1 + step))
    for _ in range(3):
        layer(torch.randn(4, 3)).sum().backward()
        optimiser.step()
        schedule.step()
    states = {"python": random.getstate(), "numpy": np.random.get_state(), "cpu": torch.random.get_rng_state()}
    devices = [torch.arange(16, dtype=torch.uint8), torch.zeros(16, dtype=torch.uint8)]
    torch.save(optimiser.state_dict(), folder / "optimizer.pt")
    torch.save(schedule.state_dict(), folder / "scheduler.pt")
    torch.save(states, folder / "rng_state_0.pth")
    torch.save(states | {"cuda": devices}, folder / "rng_state_1.pth")
    torch.save({"a": "configuration"}, folder / "training_args.bin")
    save_file(layer.state_dict(), folder / "model.safetensors")
    save_file(layer.state_dict(), folder / "ref" / "adapter_model.safetensors")
    (folder / "trainer_state.json").write_text('{"global_step": 20}')
    (folder / "chat_template.jinja").write_text("{{ messages }}\n")
    (folder / "whole").touch()
    return folder


def through_the_store(folder, tmp_path):
    """Packed, copied elsewhere as a store would, unpacked there."""
    scratch, fetched = tmp_path / "scratch", tmp_path / "fetched"
    scratch.mkdir()
    packed = pack(folder, scratch)
    for name, path in packed.items():
        (fetched / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, fetched / name)
    return packed, {name: fetched / name for name in packed}


def test_a_checkpoint_comes_back_bit_for_bit(checkpoint, tmp_path):
    _, fetched = through_the_store(checkpoint, tmp_path)
    unpack(fetched, tmp_path / "again" / "checkpoint-20")
    before = {path.relative_to(checkpoint).as_posix() for path in checkpoint.rglob("*") if path.is_file()}
    again = tmp_path / "again" / "checkpoint-20"
    assert {path.relative_to(again).as_posix() for path in again.rglob("*") if path.is_file()} == before - {
        "training_args.bin"
    }
    for name in sorted(before - {"training_args.bin"}):
        if name.endswith((".pt", ".pth")):
            assert same(load(checkpoint / name), load(again / name)), name
        else:
            assert (checkpoint / name).read_bytes() == (again / name).read_bytes(), name


def test_nothing_pickled_leaves_the_machine_and_nothing_of_the_store_reaches_torch(checkpoint, tmp_path, monkeypatch):
    packed, fetched = through_the_store(checkpoint, tmp_path)
    assert {path.suffix for path in packed.values()} == {".safetensors", ".json"}
    for path in packed.values():
        # torch.save writes a zip archive with a pickle in it.
        assert not path.read_bytes().startswith((b"PK", b"\x80"))
        if path.suffix == ".json":
            json.loads(path.read_text())
    monkeypatch.setattr(torch, "load", None)
    unpack(fetched, tmp_path / "again")


def test_odd_numbers_survive(tmp_path):
    state = {"inf": float("inf"), 3: (None, True, -0.0, 2**70, 1e-310), "view": torch.arange(6)[1::2], "nested": [{}]}
    (tmp_path / "checkpoint-1").mkdir()
    torch.save(state, tmp_path / "checkpoint-1" / "odd.pt")
    _, fetched = through_the_store(tmp_path / "checkpoint-1", tmp_path)
    unpack(fetched, tmp_path / "again")
    assert same(load(tmp_path / "again" / "odd.pt"), state)


def test_a_state_that_is_no_data_is_refused(tmp_path):
    (tmp_path / "checkpoint-1").mkdir()
    torch.save({"device": torch.float16}, tmp_path / "checkpoint-1" / "odd.pt")
    with pytest.raises(StudentError, match=r"odd.pt: cannot be packed: a dtype is neither a tensor nor plain data"):
        pack(tmp_path / "checkpoint-1", tmp_path)


def test_the_manifest_names_every_file_with_its_hash(checkpoint, tmp_path):
    packed, _ = through_the_store(checkpoint, tmp_path)
    files = read_manifest(checkpoint_files.manifest(packed))
    assert files.keys() == packed.keys() and MANIFEST not in files
    assert files["trainer_state.json"] == Digest("76b54845ee476956dd868aa459071bca4bdf6e259d1277cd1cca0f27594caac7", 19)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"\x80\x04pickled", "its manifest is damaged"),
        (b"[]", "its manifest is damaged"),
        (b'{"format": 1}', "its manifest is damaged"),
        (b'{"format": 2, "files": {}}', "its format is 2; this version reads format 1"),
        (b'{"format": 1, "files": {"../a.json": {"sha256": "", "size": 0}}}', "names '../a.json'"),
        (b'{"format": 1, "files": {"/a.json": {"sha256": "", "size": 0}}}', "names '/a.json'"),
        (b'{"format": 1, "files": {"optimizer.pt": {"sha256": "", "size": 0}}}', "names 'optimizer.pt'"),
    ],
)
def test_another_manifest_is_refused(body, message):
    with pytest.raises(StudentError, match=message):
        read_manifest(body)


@pytest.mark.parametrize("name", ["../out.yaml", "/out.yaml", "out.pt"])
def test_a_text_stays_in_its_folder(tmp_path, name):
    (tmp_path / "texts.packed.json").write_text(json.dumps({name: "text"}))
    with pytest.raises(StudentError, match="no file of a checkpoint"):
        unpack({"texts.packed.json": tmp_path / "texts.packed.json"}, tmp_path / "deep" / "checkpoint-1")
    assert not list(tmp_path.rglob("out.*"))
