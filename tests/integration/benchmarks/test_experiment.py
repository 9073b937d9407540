"""`conf-profile experiment` from the command line: real steps at their smallest size, and what it leaves behind."""

import json
import subprocess
import sys

import pytest

from benchmarks.evidence import results
from support.running import SMALL, environment

pytestmark = pytest.mark.slow

EXECUTED = "Looking for component `"
"""kfp's executor, when it calls a step's function: one that is found in the cache starts none."""


def call(folder, name):
    command = [sys.executable, "-m", "conf_profile", "experiment", name, f"--out={folder}", "--seeds=1", *SMALL]
    return subprocess.run(command, env=environment(), capture_output=True, text=True, check=True)


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    folder = tmp_path_factory.mktemp("evidence")
    return folder, call(folder, "figure5").stdout


def test_a_table_and_a_file_for_programs(done):
    folder, printed = done
    summary = json.loads((folder / "figure5.json").read_text())
    assert (summary["name"], summary["dataset"], summary["seeds"]) == ("figure5", "world", [0])
    assert list(summary["arms"]) == ["teacher_weighted", "sft", "sft_grpo", "ceiling"]
    f1 = {arm: rates["f1"][0] for arm, rates in summary["arms"].items()}
    assert 0 < f1["sft"] < f1["ceiling"] and f1["teacher_weighted"] < f1["ceiling"]
    assert f"{100 * f1['ceiling']:.1f}" in printed


def test_counts_stand_behind_every_threshold_and_slice(done):
    found = results.read(done[0], "figure5")
    curve = [found.by_seed("sft", tau=tau)[0] for tau in range(6)]
    assert [point["coverage"] for point in curve] == sorted((point["coverage"] for point in curve), reverse=True)
    everybody, parts = found.by_seed("sft")[0], {row["slice"] for row in found.counts}
    assert {"self-report: present", "self-report: absent", "history: short"} <= parts
    answerable = sum(
        row["answerable"]
        for row in found.counts
        if row["arm"] == "sft" and row["slice"].startswith("self-report") and not row["attribute"]
    )
    assert answerable == next(
        row["answerable"] for row in found.counts if row["arm"] == "sft" and not row["slice"] and not row["attribute"]
    )
    assert 0 <= everybody["f1"] <= 1
    assert len(found.observed_values("sft_grpo", "steps")) == 1


def test_no_step_is_told_where_the_labels_are(done):
    log = (done[0] / "work" / "steps.log").read_text()
    # kfp prints what every step is given.
    assert "demographics.parquet" in log and "lexicon.json" in log
    assert "labels.parquet" not in log and "ceiling.parquet" not in log


def test_a_second_call_trains_nothing(done):
    folder, _ = done
    log = folder / "work" / "steps.log"
    before = log.read_text().count(EXECUTED)
    assert before >= len(("features", "synthesis", "labelling", "sft", "rejection", "grpo"))
    call(folder, "figure5")
    assert log.read_text().count(EXECUTED) == before
