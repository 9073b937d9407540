"""Starts `conf-profile run` at its smallest size, as a user would, and kills it where a test wants."""

import os
import signal
import subprocess
import sys
import time

import psutil

from support.s3 import wait_until

SMALL = [
    "--users=260",
    "--set=student.hidden_size=64",
    "--set=student.heads=2",
    "--set=student.key_value_heads=1",
    "--set=student.vocabulary_size=800",
    "--set=sft.epochs=14",
    "--set=sft.min_steps=0",
    "--set=sft.batch_size=32",
    "--set=sft.save_steps=20",
    "--set=rejection.rounds=1",
    "--set=rejection.kept_per_user=1",
    "--set=reference.samples=3",
    "--set=grpo.steps=2",
    "--set=grpo.prompts_per_step=4",
    "--set=grpo.rollouts=4",
    "--set=grpo.save_steps=1",
    "--set=evaluation.bootstrap=200",
]
ORDER = (
    "features", "synthesis", "labelling", "sft", "rejection", "reference", "filtering", "grpo",
    "evaluation", "gate", "promotion", "report",
)  # fmt: skip
STEPS = set(ORDER)


def command(folder, *extra):
    return [sys.executable, "-m", "conf_profile", "run", f"--out={folder}", *SMALL, *extra]


def environment():
    return {key: value for key, value in os.environ.items() if not key.startswith("AWS_")}


def heed_hangups():
    """For a child of tests that run under nohup, whose children ignore SIGHUP."""
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


def start(folder, *extra):
    return subprocess.Popen(
        command(folder, *extra), env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def kill_in(step, folder):
    """Starts the run and ends it with SIGKILL once `step` is at its work; all that it has started has to end, too."""
    log = folder / "run.log"
    log.unlink(missing_ok=True)
    process = start(folder)
    while not at_work(step, folder):
        assert process.poll() is None, f"the run ended before {step}: {process.stdout.read()[-3000:]}"
        time.sleep(0.02)
    family = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    process.wait()
    process.stdout.close()
    wait_until_ended(family)


def at_work(step, folder):
    """The step's own function has been called; a training step has written a checkpoint, too."""
    if step not in executed(folder):
        return False
    return step not in ("sft", "grpo") or any(folder.glob(f"workspace/checkpoints/{step}-*/checkpoint-*/whole"))


def executed(folder):
    """Which steps really ran, by kfp's own log: a cached one starts no executor."""
    path = folder / "run.log"
    log = path.read_text(encoding="utf-8") if path.is_file() else ""
    return {line.split("`")[1].replace("_", "-") for line in log.splitlines() if "Looking for component `" in line}


def wait_until_ended(processes):
    """None of them lives any more; whether somebody has read its status is another question."""
    wait_until(lambda: not any(map(_lives, processes)), f"the end of {processes}")


def _lives(process):
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
