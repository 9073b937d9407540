"""Training steps on two processes: torch's launcher, gloo instead of NCCL, the smallest student.

What a machine without GPUs can show: that the processes share the rows, agree on the weights, and that one of them
writes the same files as a single process would. It says nothing of speed.
"""

import json
import math
import os
import socket
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file

from components.grpo import step as grpo
from components.rejection import step as rejection
from components.sft import step as sft
from conf_profile.config import GRPOConfig, ReferenceConfig, RejectionConfig, RunConfig
from conf_profile.errors import StudentError
from conf_profile.storage import object_tree
from conf_profile.storage.local_s3 import local_s3
from conf_profile.storage.object_store import ObjectStore, s3_client
from conf_profile.students import processes
from conf_profile.students.remote_job import JOB
from pipelines import resources, trainjob
from support.training_inputs import PROMPT, SFT, STUDENT, write_inputs

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    return write_inputs(tmp_path_factory.mktemp("inputs"))


def files(folder):
    return {path.name for path in folder.iterdir()}


def tuned(inputs, out, number, **values):
    return processes.call(
        sft.run,
        number,
        features=inputs / "features",
        pseudo_labels=inputs / "pseudo_labels",
        task_file=inputs / "task.yaml",
        student=out / "student",
        log=out / "log.json",
        config=SFT.model_copy(update=values),
        student_config=STUDENT,
        prompt=PROMPT,
        checkpoints=out / "checkpoints",
        seed=0,
    )


@pytest.fixture(scope="module")
def students(inputs, tmp_path_factory):
    """The folders of SFT on one process and on two, and what each returned."""
    folders = {number: tmp_path_factory.mktemp(f"sft-{number}") for number in (1, 2)}
    return {number: (folder, tuned(inputs, folder, number)) for number, folder in folders.items()}


def test_sft_on_two_processes_is_sft_on_one(students):
    (one, counts_of_one), (two, counts_of_two) = students[1], students[2]
    assert counts_of_two == counts_of_one
    assert files(two / "student") == files(one / "student")
    losses = [[line["loss"] for line in json.loads((out / "log.json").read_text())] for out in (one, two)]
    assert all(map(math.isfinite, losses[1]))
    # The same rows in every step; only the order in which floats are added differs.
    assert losses[1][:3] == pytest.approx(losses[0][:3], rel=0.02)


def test_grpo_on_two_processes(inputs, students, tmp_path):
    counts = processes.call(
        grpo.run,
        2,
        features=inputs / "features",
        reference=inputs / "reference",
        support=inputs / "support",
        filtered=inputs / "filtered",
        sft_student=students[1][0] / "student",
        student=tmp_path / "student",
        log=tmp_path / "log.json",
        # Hot, so that answers and with them rewards differ: without that there is nothing to learn.
        config=GRPOConfig(
            steps=2, prompts_per_step=4, rollouts=4, temperature=1.7, learning_rate=1e-3, save_steps=1, report_to=()
        ),
        student_config=STUDENT,
        checkpoints=tmp_path / "checkpoints",
        seed=0,
    )
    assert counts == {"users": 48, "steps": 2, "collapsed": 0}
    assert files(tmp_path / "student") == files(students[1][0] / "student") | {"calibration-vote.json"}
    lines = json.loads((tmp_path / "log.json").read_text())
    assert [line["step"] for line in lines] == [1, 2]
    assert all(math.isfinite(line[key]) for line in lines for key in ("loss", "reward", "tag_entropy"))
    (checkpoint,) = (tmp_path / "checkpoints").glob("checkpoint-2")
    assert {"whole", "rng_state_0.pth", "rng_state_1.pth"} <= files(checkpoint)
    before, after = (load_file(f / "student" / "model.safetensors") for f in (students[1][0], tmp_path))
    assert any(not torch.equal(before[name], after[name]) for name in before)


def test_rejection_sampling_on_two_processes_learns_from_what_the_first_has_sampled(inputs, students, tmp_path):
    counts = processes.call(
        rejection.run,
        2,
        features=inputs / "features",
        sft_student=students[1][0] / "student",
        student=tmp_path / "student",
        log=tmp_path / "log.json",
        config=RejectionConfig(rounds=2, kept_per_user=2, batch_size=8, save_steps=50, report_to=()),
        sampling=ReferenceConfig(samples=4, temperature=0.7),
        student_config=STUDENT,
        checkpoints=tmp_path / "checkpoints",
        seed=0,
    )
    assert counts["rounds"] == 2 and counts["sequences"] > 0
    assert files(tmp_path / "student") == files(students[1][0] / "student")
    assert files(tmp_path / "checkpoints") >= {"round-0", "round-1"}


def test_an_error_of_a_process_is_raised_here(inputs, tmp_path):
    with pytest.raises(StudentError, match="cannot be shared by 2 processes"):
        tuned(inputs, tmp_path, 2, batch_size=15)
    assert not (tmp_path / "student").exists()


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def start(command, job, rank, port, access, disk):
    disk.mkdir()
    torch_runtime = {
        "PET_NNODES": "2", "PET_NPROC_PER_NODE": "1", "PET_NODE_RANK": str(rank), "PET_MASTER_ADDR": "127.0.0.1",
        "PET_MASTER_PORT": str(port),
    }  # fmt: skip
    environment = {**os.environ, **access.environment(), **torch_runtime, JOB: job, "TMPDIR": str(disk)}
    return subprocess.Popen([sys.executable, *command[1:]], env=environment)


def test_two_machines_train_on_objects_in_s3(inputs, students, tmp_path):
    """As a TrainJob's pods do: its command, the variables of Trainer's torch runtime, a disk for each."""
    out = tmp_path / "out"
    with local_s3(tmp_path / "s3") as access:
        client = s3_client(access.endpoint, access.region, access.access_key, access.secret_key)
        store = ObjectStore(client, "artefacts")
        store.ensure_bucket(create=True)
        for name in trainjob.INPUTS["sft"]:
            object_tree.upload(store, inputs / ("task.yaml" if name == "task_file" else name), f"run/{name}")
        pairs = [f"{name}=s3://artefacts/run/{name}" for name in trainjob.INPUTS["sft"]]
        job = trainjob.parse_options("sft", 2, pairs, "s3://artefacts/multi-node")
        config = RunConfig(sft=SFT, student=STUDENT, prompt=PROMPT)
        trainer = trainjob.manifest(job, config, resources.load(), "image")["spec"]["trainer"]
        carried = next(entry["value"] for entry in trainer["env"] if entry["name"] == JOB)
        port = free_port()
        machines = [start(trainer["command"], carried, rank, port, access, tmp_path / str(rank)) for rank in (0, 1)]
        assert [process.wait(timeout=600) for process in machines] == [0, 0]
        object_tree.fetch(store, "multi-node/student", out)
        object_tree.fetch(store, "multi-node/log", tmp_path / "log.json")
    assert files(out) == files(students[1][0] / "student")
    assert json.loads((tmp_path / "log.json").read_text())
