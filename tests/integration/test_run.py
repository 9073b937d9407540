"""The whole pipeline as a user starts it: real Feast, TRL, SeaweedFS and KFP's local runner, at the smallest size.

The student is too small to be any good; what is checked is that every step hands its work to the next one,
that a killed run continues, that nothing is done twice, and what is left behind.
"""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from conf_profile import tables

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[2]
SMALL = [
    "--users=260",
    "--set=student.hidden_size=64",
    "--set=student.vocabulary_size=800",
    "--set=sft.epochs=14",
    "--set=sft.batch_size=32",
    "--set=sft.save_steps=20",
    "--set=reference.samples=3",
    "--set=grpo.steps=2",
    "--set=grpo.prompts_per_step=4",
    "--set=grpo.rollouts=4",
    "--set=grpo.save_steps=1",
    "--set=evaluation.bootstrap=200",
]
STEPS = {
    "build-features", "synthesis", "labelling", "sft", "freeze-reference", "filtering", "grpo", "evaluate", "gate",
    "promotion", "report",
}  # fmt: skip


def command(folder, *extra):
    return [sys.executable, "-m", "conf_profile", "run", f"--out={folder}", *SMALL, *extra]


def environment():
    return {key: value for key, value in os.environ.items() if not key.startswith("AWS_")}


def start(folder, *extra):
    return subprocess.Popen(
        command(folder, *extra), env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def executed(folder):
    """Which steps really ran, by kfp's own log: a cached one starts no executor."""
    log = (folder / "run.log").read_text(encoding="utf-8")
    return {line.split("`")[1].replace("_", "-") for line in log.splitlines() if "Looking for component `" in line}


@pytest.fixture(scope="module")
def killed_then_finished(tmp_path_factory):
    """A run that was killed (SIGKILL, with all its children) while sft trained, and then started again."""
    folder = tmp_path_factory.mktemp("run") / "out"
    first = start(folder)
    for line in first.stdout:
        if "sft " in line and "/" in line and list((folder / "workspace").glob("checkpoints/sft-*/checkpoint-*")):
            break
    else:
        pytest.fail(f"the run ended before sft wrote a checkpoint: {(folder / 'run.log').read_text()[-3000:]}")
    pipeline = pipeline_process(first.pid)
    first.kill()
    first.wait()
    first.stdout.close()
    os.killpg(pipeline, signal.SIGKILL)
    second = start(folder)
    output, _ = second.communicate(timeout=900)
    return folder, second.returncode, output


def pipeline_process(parent):
    return next(c.pid for c in psutil.Process(parent).children(recursive=True) if "pipelines.local" in c.cmdline())


def test_the_second_start_succeeds(killed_then_finished):
    _, status, output = killed_then_finished
    assert status == 0, output[-4000:]


def test_it_continues_where_it_was_killed(killed_then_finished):
    folder, _, _ = killed_then_finished
    assert executed(folder) == STEPS - {"build-features", "synthesis", "labelling"}
    log = (folder / "run.log").read_text(encoding="utf-8")
    first_step = next(line for line in log.splitlines() if line.strip().startswith("sft "))
    assert int(first_step.split()[1].split("/")[0]) > 20, "sft started again from its first step"


def test_summary(killed_then_finished):
    folder, _, _ = killed_then_finished
    summary = json.loads((folder / "summary.json").read_text())
    assert (summary["dataset"], summary["preset"], summary["seed"]) == ("world", "tiny", 0)
    assert 0 < summary["dropped_without_consent"] < 40
    assert summary["users"] + summary["dropped_without_consent"] == 260
    for arm in ("base", "teacher_single", "teacher_majority", "teacher_weighted", "sft", "sft_grpo", "ceiling"):
        scores = summary["metrics"][arm]
        assert 0.0 <= scores["f1_ci"][0] <= scores["f1"] <= scores["f1_ci"][1] <= 1.0
        assert set(scores["per_attribute"]) == set(summary["metrics"]["sft"]["per_attribute"])
    assert summary["metrics"]["ceiling"]["f1"] > summary["metrics"]["teacher_weighted"]["f1"]
    assert summary["gate"]["decision"] in ("promote", "reject")
    assert summary["gate"]["reasons"]
    assert (summary["model"] is None) == (summary["gate"]["decision"] == "reject")
    assert set(summary["seconds"]) == STEPS
    assert summary["peak_rss_mib"] > 100


def test_report_is_one_self_contained_page(killed_then_finished):
    folder, _, _ = killed_then_finished
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert page.count("<svg") >= 5
    assert 'src="http' not in page and 'href="http' not in page


def test_nobody_without_consent_was_asked_about(killed_then_finished):
    folder, _, _ = killed_then_finished
    demographics = tables.read(folder / "data/world-260-0/demographics.parquet", tables.DEMOGRAPHICS).to_pylist()
    refused = {row["user_id"] for row in demographics if not row["consent"]}
    assert refused
    asked = set()
    for path in (folder / "workspace" / "answers").rglob("*.jsonl"):
        asked |= {json.loads(line).get("user_id") for line in path.read_text().splitlines()}
    assert len(asked) > 100
    assert not refused & asked


def test_no_server_is_left(killed_then_finished):
    folder, _, _ = killed_then_finished
    left = [process for process in psutil.process_iter(["cmdline"]) if str(folder) in str(process.info["cmdline"])]
    _, alive = psutil.wait_procs(left, timeout=20)  # the guard of the killed run's server needs a moment
    assert not alive


def test_a_third_start_runs_no_step_again(killed_then_finished):
    folder, _, _ = killed_then_finished
    before = json.loads((folder / "summary.json").read_text())
    result = subprocess.run(command(folder), env=environment(), capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr[-3000:]
    assert executed(folder) == set()
    after = json.loads((folder / "summary.json").read_text())
    assert {k: v for k, v in after.items() if k not in ("seconds", "peak_rss_mib")} == {
        k: v for k, v in before.items() if k not in ("seconds", "peak_rss_mib")
    }


def test_another_grpo_setting_trains_again_but_asks_no_teacher(killed_then_finished):
    folder, _, _ = killed_then_finished
    result = subprocess.run(
        command(folder, "--set=grpo.steps=0", "--set=gate.require_hierarchy=false"),
        env=environment(), capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr[-3000:]
    assert executed(folder) == {"grpo", "evaluate", "gate", "promotion", "report"}


def test_a_failing_step_says_why(tmp_path):
    result = subprocess.run(
        command(tmp_path / "out", "--set=teacher.kind=vllm", "--set=teacher.model=/nowhere/model"),
        env=environment(), capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert result.returncode == 2
    assert "/nowhere/model" in result.stderr
    assert "Traceback" not in result.stderr
