"""A training step that is killed goes on from its last checkpoint in the store, and ends where it would have ended.

Real trainings of the smallest student, SeaweedFS, SIGKILL, and a fresh folder for every try. One thread: with several
the order in which floats are added is not the same in two runs, killed or not.
"""

import functools
import itertools
import json
import os
import signal
import sys
from pathlib import Path

import pytest
import torch

from components.grpo import step as grpo
from components.rejection import step as rejection
from components.sft import step as sft
from conf_profile.config import GRPOConfig, ReferenceConfig, RejectionConfig
from conf_profile.errors import StudentError
from conf_profile.storage.local_s3 import local_s3
from conf_profile.storage.object_store import ObjectStore
from conf_profile.students import checkpoint_folders as checkpoints
from conf_profile.students.checkpoints import remote as remote_checkpoints
from support.s3 import client_of, python
from support.training_inputs import PROMPT, SFT, STUDENT, write_inputs

pytestmark = pytest.mark.slow

LORA = STUDENT.model_copy(update={"lora_rank": 2})
# Not a multiple of the ten steps between two lines of the log.
SFT_OFTEN = SFT.model_copy(update={"save_steps": 25})
# 48 users, 16 in a step: the second pass over them begins at step 3. Warm, so that answers and rewards differ.
GRPO = GRPOConfig(
    steps=6, prompts_per_step=16, rollouts=4, gradient_accumulation=2, temperature=1.2, learning_rate=1e-3, kl=0.05,
    save_steps=2, report_to=(),
)  # fmt: skip
REJECTION = RejectionConfig(rounds=2, kept_per_user=2, batch_size=16, save_steps=3, report_to=())


def run_sft(inputs, folder, out):
    return sft.run(
        features=inputs / "features", pseudo_labels=inputs / "pseudo_labels",
        task_file=inputs / "task.yaml", student=out / "student", log=out / "log.json", config=SFT_OFTEN,
        student_config=STUDENT, prompt=PROMPT, checkpoints=folder, seed=0,
    )  # fmt: skip


def run_grpo(inputs, folder, out, student=STUDENT, config=GRPO):
    # LoRA's first weights.
    torch.manual_seed(0)
    return grpo.run(
        inputs / "features", inputs / "reference", inputs / "support", inputs / "filtered", inputs / "sft" / "student",
        out / "student", out / "log.json", config, student, folder, 0,
    )  # fmt: skip


def run_grpo_lora(inputs, folder, out):
    return run_grpo(inputs, folder, out, LORA)


def run_grpo_until_collapse(inputs, folder, out):
    """Entropy below twice the first counts as collapse, so the training ends as soon as there is enough to compare."""
    counts = run_grpo(inputs, folder, out, config=GRPO.model_copy(update=COLLAPSING))
    assert counts["collapsed"] == 1 and counts["steps"] == 10
    return counts


COLLAPSING = {"steps": 14, "save_steps": 5, "max_entropy_loss": -1.0}


def run_rejection(inputs, folder, out):
    return rejection.run(
        inputs / "features", inputs / "sft" / "student", out / "student", out / "log.json", REJECTION,
        ReferenceConfig(samples=4, temperature=0.7), STUDENT, folder, 0,
    )  # fmt: skip


RUNS = {name.removeprefix("run_"): run for name, run in globals().copy().items() if name.startswith("run_")}


def attempt(run, inputs, out, workspace):
    """A try of a step as its task makes it: the checkpoints that it began with, and its counts."""
    torch.set_num_threads(1)
    with checkpoints.open_checkpoints(
        workspace, f"components.{run.partition('_')[0]}.task", [inputs / "features"], [str(SFT), str(GRPO)]
    ) as folder:
        began = sorted(path.name for path in folder.rglob("checkpoint-*") if path.is_dir())
        return began, RUNS[run](inputs, folder, out)


def end_after(uploads, end):
    """An `upload` that calls `end` after so many calls."""
    upload, number = remote_checkpoints.upload, itertools.count(1)

    def upload_and_end(folder):
        upload(folder)
        if next(number) == uploads:
            end()

    return upload_and_end


def attempt_and_die(run, inputs, out, workspace, uploads):
    """What the child of `killed` does."""
    remote_checkpoints.upload = end_after(uploads, lambda: os.kill(os.getpid(), signal.SIGKILL))
    attempt(run, inputs, out, workspace)


def figures(out):
    """The log without what a clock says, and every byte of the student."""
    log = [{k: v for k, v in line.items() if k != "seconds"} for line in json.loads((out / "log.json").read_text())]
    return log, {path.name: path.read_bytes() for path in sorted((out / "student").iterdir())}


@pytest.fixture(scope="module")
def access(tmp_path_factory):
    with local_s3(tmp_path_factory.mktemp("s3")) as access:
        yield access


@pytest.fixture(scope="module")
def store(access):
    found = ObjectStore(client_of(access), "conf-profile")
    found.ensure_bucket(create=True)
    return found


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """The tables, and the SFT student of a training that nobody disturbed."""
    folder = write_inputs(tmp_path_factory.mktemp("inputs"))
    attempt("sft", folder, folder / "sft", "")
    return folder


@pytest.fixture
def workspace(access, store, monkeypatch, tmp_path):
    for name, value in access.environment().items():
        monkeypatch.setenv(name, value)
    return f"s3://conf-profile/checkpoints/{tmp_path.name}?endpoint={access.endpoint}"


@pytest.fixture(scope="module")
def undisturbed(inputs, tmp_path_factory):
    """(counts, figures) of a step that nobody killed; made once."""

    @functools.cache
    def make(run):
        if run == "sft":
            return {"users": 32, "sequences": 1280, "steps": 80}, figures(inputs / "sft")
        out = tmp_path_factory.mktemp(run)
        _, counts = attempt(run, inputs, out, "")
        return counts, figures(out)

    return make


def kill(run, inputs, out, workspace, uploads):
    """A try in a process of its own, which dies after so many uploads."""
    code = "import sys; from pathlib import Path; import test_killed_training as t\n"
    code += f"t.attempt_and_die({run!r}, Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], {uploads})"
    path = os.pathsep.join([str(Path(__file__).parent), *filter(None, sys.path)])
    child = python(code, str(inputs), str(out), workspace, environment={**os.environ, "PYTHONPATH": path})
    output, _ = child.communicate(timeout=300)
    assert child.returncode == -signal.SIGKILL, output[-2000:]


def same_end(run, inputs, out, workspace, went_on_from, undisturbed, store):
    began, counts = attempt(run, inputs, out, workspace)
    assert began == [went_on_from]
    assert (counts, figures(out)) == undisturbed(run)
    assert not store.sizes("checkpoints/"), "nothing stays behind"


@pytest.mark.parametrize(("run", "uploads", "went_on_from"), [("sft", 1, "checkpoint-25"), ("grpo", 2, "checkpoint-4")])
def test_a_killed_step_ends_where_it_would_have_ended(
    inputs, undisturbed, store, workspace, tmp_path, run, uploads, went_on_from
):
    kill(run, inputs, tmp_path / "killed", workspace, uploads)
    assert not (tmp_path / "killed" / "student").exists()
    same_end(run, inputs, tmp_path / "resumed", workspace, went_on_from, undisturbed, store)


class Killed(BaseException):
    """As a kill for all that is in the store, without the start of another process."""


@pytest.mark.parametrize(
    ("run", "uploads", "went_on_from"),
    [
        ("grpo", 3, "checkpoint-6"),  # the end; the calibration was under way
        ("grpo_lora", 1, "checkpoint-2"),
        ("grpo_until_collapse", 2, "checkpoint-10"),  # the end, too
        ("rejection", 4, "checkpoint-3"),  # of the second round
    ],
)
def test_so_does_one_that_was_interrupted_elsewhere(
    inputs, undisturbed, store, workspace, tmp_path, monkeypatch, run, uploads, went_on_from
):
    def end():
        raise Killed

    with monkeypatch.context() as patched, pytest.raises(Killed):
        patched.setattr(remote_checkpoints, "upload", end_after(uploads, end))
        attempt(run, inputs, tmp_path / "killed", workspace)
    same_end(run, inputs, tmp_path / "resumed", workspace, went_on_from, undisturbed, store)


def test_prompts_come_in_the_order_of_trls_sampler():
    from trl.trainer.utils import RepeatSampler

    sampler = RepeatSampler(range(11), mini_repeat_count=1, batch_size=4, seed=3)
    assert grpo.prompt_order(11, 4, 5, seed=3) == [*sampler, *sampler, *sampler][:20]
    with pytest.raises(StudentError, match="3 users are left for GRPO, fewer than a step takes"):
        grpo.prompt_order(3, 4, 1, seed=0)
