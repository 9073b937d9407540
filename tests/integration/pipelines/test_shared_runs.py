"""Runs that share a folder: a step that several processes want is done once, and a failure is told."""

import json
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest

from components.steps import steps_of
from conf_profile.config import resolve
from conf_profile.data.build import build
from conf_profile.errors import PipelineError
from pipelines import arguments
from pipelines.arguments import Inputs, Places
from pipelines.local.shared_runs import LOG, SharedRuns

pytestmark = pytest.mark.slow

EXECUTED = "Looking for component `"


def given(folder, behaviour=None, seed=0):
    config = resolve(overrides=["data.users=40", f"seed={seed}"])
    data = build(resolve(overrides=["data.users=40"]), folder / "data")
    inputs = Inputs(
        behaviour_uri=str(behaviour or data.behaviour),
        demographics_uri=str(data.demographics),
        task_uri=str(data.task),
        lexicon_uri=str(data.lexicon),
        labels_uri="",
        ceiling_uri="",
        as_of=data.as_of,
        data_digest=data.digest(),
        labels_digest="",
    )
    places = Places(str(folder / "workspace"), str(folder / "answers"), "")
    return arguments.pipeline_arguments(config, inputs, "", places)


def run_to(folder, values, until, barrier=None):
    from kfp import dsl

    outputs = {"features": ("features", "features", dsl.Dataset)}
    if barrier:
        barrier.wait(120)
    return SharedRuns(folder / "work").run(values, steps_of(resolve(), until), outputs)["features"]


def test_two_processes_that_want_a_step_at_once_do_it_once(tmp_path):
    """Two seeds on the same people: their features are the same, what the teacher says of them is not."""
    context = multiprocessing.get_context("spawn")
    values = [given(tmp_path, seed=seed) for seed in range(2)]
    with context.Manager() as manager, ProcessPoolExecutor(2, context) as pool:
        barrier = manager.Barrier(2)
        calls = [pool.submit(run_to, tmp_path, each, "synthesis", barrier) for each in values]
        first, second = (call.result() for call in calls)
    assert first == second and Path(first).is_file()
    log = (tmp_path / "work" / LOG).read_text()
    shards = len(values[0]["shards"])
    assert log.count(f"{EXECUTED}features`") == 1 and log.count(f"{EXECUTED}synthesis`") == 2 * shards


def test_a_step_that_fails_tells_why_and_is_done_by_the_next_call(tmp_path):
    late = tmp_path / "late.parquet"
    values = given(tmp_path, behaviour=late)
    with pytest.raises(PipelineError, match=r"step 'features' failed: .*late\.parquet: there is no such file"):
        run_to(tmp_path, values, "features")
    late.symlink_to(tmp_path / "data" / "behaviour.parquet")
    assert Path(run_to(tmp_path, values, "features")).is_file()


def test_a_lock_is_named_by_what_goes_into_its_step(tmp_path):
    """Without a run: the names of two seeds differ from the synthesis on, of two settings of sft from sft on."""
    from pipelines.local.shared_runs import identity
    from pipelines.training import training_pipeline

    def names(values):
        steps = steps_of(resolve(), "sft")
        return [identity(training_pipeline(values, steps[:end]), values) for end in range(1, len(steps) + 1)]

    values = given(tmp_path)
    plain = names(values)
    assert len(set(plain)) == len(plain) == 4
    assert [one == other for one, other in zip(plain, names({**values, "seed": 1}), strict=True)] == [
        True, False, False, False,
    ]  # fmt: skip
    longer = {**values, "sft_config": json.dumps({"epochs": 9})}
    assert [one == other for one, other in zip(plain, names(longer), strict=True)] == [True, True, True, False]
