"""The whole pipeline as a user starts it: real Feast, TRL, SeaweedFS and KFP's local runner, at the smallest size.

The student is too small to be any good; what is checked is that every step hands its work to the next one,
that a run killed in any step continues, that nothing is done or paid for twice, and what is left behind.
"""

import json
import subprocess
import sys
from collections import Counter

import psutil
import pytest

from conf_profile import tables
from support.running import ORDER, STEPS, command, environment, executed, wait_until_ended

pytestmark = pytest.mark.slow


def test_the_last_start_succeeds(killed_then_finished):
    folder, status, output = killed_then_finished
    assert status == 0, output[-2000:] + (folder / "run.log").read_text(encoding="utf-8")[-6000:]


def test_each_start_repeats_the_killed_step_at_most(attempts):
    folder, logs, _, _ = attempts
    for before, step in zip((None, *ORDER), ORDER, strict=False):
        # A step of a second may have ended in the moment before the kill.
        assert {step} <= logs[step][0] <= {step, before}
    assert executed(folder) <= {"report"}


def test_training_goes_on_from_its_checkpoint(attempts):
    _, logs, _, _ = attempts
    after_the_kill = logs[ORDER[ORDER.index("sft") + 1]][1]
    first_line = next(line for line in after_the_kill.splitlines() if line.strip().startswith("sft "))
    assert int(first_line.split()[1].split("/")[0]) > 20, "sft started again from its first step"


def test_no_answer_was_asked_for_twice(killed_then_finished):
    folder, _, _ = killed_then_finished
    lines = [line for path in (folder / "workspace/answers").rglob("*.jsonl") for line in path.read_text().splitlines()]
    answers = [json.loads(line) for line in lines]
    times = Counter((a["user_id"], a["sample"], a["prompt"]) for a in answers if "text" in a)
    assert set(times.values()) == {1}


def test_a_promotion_that_was_killed_left_one_version_at_most(killed_then_finished):
    folder, _, _ = killed_then_finished
    result = subprocess.run(
        [sys.executable, "-m", "conf_profile", "models", "list", f"--run={folder}", "--json"],
        env=environment(), capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    promoted = json.loads((folder / "summary.json").read_text())["gate"]["decision"] == "promote"
    assert len(json.loads(result.stdout)) == int(promoted)


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
    assert len(summary["warnings"]) == 1
    assert "labelled test users: the 95% interval of an attribute is up to" in summary["warnings"][0]


def test_report_is_one_self_contained_page(killed_then_finished):
    folder, _, _ = killed_then_finished
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert "<h2>Warnings</h2>" in page
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
    wait_until_ended(left)


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
    assert executed(folder) == {"grpo", "evaluation", "gate", "promotion", "report"}


def test_a_failing_step_says_why(tmp_path):
    result = subprocess.run(
        command(tmp_path / "out", "--set=teacher.kind=vllm", "--set=teacher.model=/nowhere/model"),
        env=environment(), capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert result.returncode == 2
    assert "/nowhere/model" in result.stderr
    assert "Traceback" not in result.stderr
