"""The experiments' plan and arithmetic: settings that exist, intervals, paired differences, cells of the regimes."""

import subprocess
import sys

import psutil
import pytest

from benchmarks.evidence import regimes, results, run
from benchmarks.evidence.command import NAMES
from benchmarks.evidence.plan import EXPERIMENTS, STAGES, Comparison, Experiment
from benchmarks.evidence.results import Results, interval, p_value
from components.steps import BY_NAME, STEPS, steps_of
from conf_profile.config import resolve
from conf_profile.errors import ConfigError


@pytest.mark.parametrize("experiment", EXPERIMENTS.values(), ids=EXPERIMENTS.keys())
def test_every_arm_is_a_configuration_and_every_comparison_names_two_arms(experiment):
    names = [arm.name for arm in experiment.arms]
    assert len(set(names)) == len(names)
    for arm in experiment.arms:
        resolved = run.override(resolve(), run.seed_settings(3) | {**experiment.settings, **arm.settings})
        assert (resolved.seed, resolved.data.lexicon.seed, resolved.preset) == (3, 3, "tiny")
        # The preset's own vote is no part of the comparison.
        assert resolved.labelling.vote == {**experiment.settings, **arm.settings}.get("labelling.vote", "weighted")
    for comparison in experiment.comparisons:
        assert {comparison.better, comparison.worse} <= set(names)


@pytest.mark.parametrize("experiment", EXPERIMENTS.values(), ids=EXPERIMENTS.keys())
def test_no_arm_reaches_the_evaluation(experiment):
    judged = [step.name for step in STEPS[STEPS.index(BY_NAME["evaluation"]) :]]
    for arm in experiment.arms:
        config = run.override(resolve(), {**experiment.settings, **arm.settings})
        last, _ = STAGES[arm.stage]
        assert not {step.name for step in steps_of(config, last)} & {*judged, "predictions"}


def test_the_command_line_knows_every_experiment():
    assert set(NAMES) == {*EXPERIMENTS, run.REGIMES}


def test_settings_reach_their_section_and_leave_the_rest():
    found = run.override(resolve(), {"grpo.steps": 7, "data.world.noise_share": 0.5, "seed": 1})
    assert (found.grpo.steps, found.data.world.noise_share, found.seed) == (7, 0.5, 1)
    assert found.grpo.rollouts == resolve().grpo.rollouts
    with pytest.raises(ConfigError, match=r"grpo\.stepps"):
        run.override(resolve(), {"grpo.stepps": 7})


def test_the_cells_of_the_regimes_change_one_factor_each():
    plain = run.override(resolve(), regimes.SHARED_SETTINGS)
    for factor in regimes.FACTORS:
        for value, settings in regimes.cells(factor):
            varied = run.override(resolve(), settings).model_dump()
            for key in factor.keys:
                at = varied
                for part in key.split("."):
                    at = at[part]
                assert at == value
            assert varied["teacher"] == plain.model_dump()["teacher"]


def test_an_interval_is_students_t():
    # Five values of mean 3 and standard deviation 1.5811: half width 2.776 x 1.5811 / sqrt(5) = 1.963.
    assert interval([1, 2, 3, 4, 5]) == pytest.approx((3.0, 1.0368, 4.9632), abs=1e-4)
    assert interval([0.4]) == (0.4, None, None)


def test_p_of_the_paired_test():
    assert p_value([1, 2, 3, 4, 5]) == pytest.approx(0.0132, abs=1e-4)
    assert p_value([0.1]) is None
    assert p_value([0.0, 0.0]) == 1.0
    assert p_value([0.5, 0.5]) == 0.0


def count(arm, seed, correct, answered, answerable, **more):
    where = {"slice": "", "attribute": "", "tau": 0} | more
    return {"arm": arm, "seed": seed, "correct": correct, "answered": answered, "answerable": answerable, **where}


COUNTS = [
    count("a", 0, 30, 60, 100),
    count("b", 0, 20, 60, 100),
    count("a", 1, 40, 80, 100),
    count("b", 1, 20, 80, 100),
    count("a", 1, 10, 10, 100, tau=5),
]


def test_rates_come_from_counts_seed_by_seed():
    found = Results(COUNTS, [])
    assert found.seeds == [0, 1] and found.arms == ["a", "b"]
    assert found.by_seed("a")[0] == pytest.approx({"precision": 0.5, "recall": 0.3, "f1": 0.375, "coverage": 0.6})
    assert found.by_seed("a", tau=5)[1]["precision"] == 1.0
    assert found.difference(Comparison("a", "b", "recall")) == pytest.approx([0.1, 0.2])


def test_the_summary_is_what_programs_read(tmp_path):
    experiment = Experiment("x", "?", (), (Comparison("a", "b", "recall"), Comparison("a", "c")))
    results.write(tmp_path, "x", Results(COUNTS, [{"arm": "a", "seed": 0, "name": "steps", "value": 3.0}]))
    found = results.read(tmp_path, "x")
    assert found.observed_values("a", "steps") == [3.0]
    summary = results.summarise(experiment, found, "world")
    assert (summary["name"], summary["dataset"], summary["seeds"]) == ("x", "world", [0, 1])
    assert summary["arms"]["a"]["recall"] == pytest.approx([0.35, 0.35 - 0.6353, 0.35 + 0.6353], abs=1e-4)
    # A comparison with an arm that the data set does not have is left out.
    (comparison,) = summary["comparisons"]
    assert comparison["difference"] == pytest.approx(0.15)
    assert (comparison["better"], comparison["worse"], comparison["metric"]) == ("a", "b", "recall")


def vote_row(seed, value, samples, vote, correct):
    cell = {"seed": seed, "factor": "noise", "value": value, "samples": samples, "vote": vote}
    return {**cell, "correct": correct, "answered": 100, "answerable": 100}


def test_a_cell_of_the_regimes_is_a_paired_difference():
    rows = [
        vote_row(seed, 0.3, 10, vote, correct)
        for seed, pair in enumerate([(50, 48), (60, 56)])
        for vote, correct in zip(("weighted", "majority"), pair, strict=True)
    ]
    assert regimes.group_by_cell(rows, "noise", "weighted", "majority") == {(0.3, 10): pytest.approx([0.02, 0.04])}


PARENT = """
import multiprocessing, os, subprocess, threading
from concurrent.futures import ProcessPoolExecutor
from benchmarks.evidence.run import end_with_parent

def work():
    step = subprocess.Popen(["sleep", "1000"])
    print(os.getpid(), step.pid, flush=True)
    threading.Event().wait()

if __name__ == "__main__":
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), initializer=end_with_parent) as pool:
        pool.submit(work).result()
"""


def test_workers_of_a_killed_experiment_and_their_steps_do_not_train_on(tmp_path):
    script = tmp_path / "parent.py"
    script.write_text(PARENT)
    parent = subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, text=True)
    try:
        started = [psutil.Process(int(pid)) for pid in parent.stdout.readline().split()]
    finally:
        parent.kill()
        parent.wait()
    _, alive = psutil.wait_procs(started, timeout=30)
    for process in alive:
        process.kill()
    parent.stdout.close()
    assert not alive
