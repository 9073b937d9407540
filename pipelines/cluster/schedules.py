"""Recurring runs on KFP: made, replaced and ended such that no run under way is lost, and none starts beside one.

KFP deletes a run that is under way together with its recurring run; a disabled recurring run leaves its run alone. So
what is replaced or ended is disabled, and deleted by a later call when none of its runs is under way. Nothing waits for
a run. KFP counts `max_concurrency` for each recurring run by itself: a new one knows nothing of the run of the one
before. Its first trigger is therefore put after the moment at which the timeouts of the steps have ended that run, as
the values have them now.
"""

from __future__ import annotations

import json
import math
import time
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from conf_profile.errors import ConfigError, RunNotFoundError
from pipelines.cluster.kfp_backend import ENDED_STATES, Backend, RunSettings, Version
from pipelines.cluster.runs.run_steps import DONE_STATES, STEPS, steps_of
from pipelines.cluster.submit import Submission, upload_pipeline
from pipelines.resources import Resources

STOP_SECONDS = 120.0
"""How long a stopped run may take to end, before its recurring run is left to a later call."""
SECONDS_BETWEEN_LOOKS = 5.0
OVERHEAD_SECONDS = 3600
"""Of drivers and of waiting between steps, which no step's timeout counts."""


@dataclass(frozen=True)
class ScheduleChange:
    """What was done to the recurring runs of one name. `made` is the id of the one that is enabled now."""

    made: str | None
    lines: tuple[str, ...]


def cron(expression: str) -> str:
    """KFP's form, which begins with seconds; the usual five fields begin at second 0. ConfigError for another form."""
    fields = expression.split()
    if len(fields) == 5:
        return f"0 {expression.strip()}"
    if len(fields) == 6 or (len(fields) == 1 and expression.startswith("@")):
        return expression.strip()
    raise ConfigError(f"--schedule {expression!r}: expected five fields of cron, such as '0 3 * * 0', or @daily")


def schedule(
    backend: Backend, submission: Submission, arguments: Mapping[str, Any], settings: RunSettings, now: bool
) -> ScheduleChange:
    """One enabled recurring run of the submission's name, with these arguments. One that is the same already stays.

    `now` stops what is under way of the ones before.
    """
    version = upload_pipeline(backend, submission, arguments)
    experiment = backend.experiment(settings.experiment)
    found = backend.recurring_runs(experiment, submission.name)
    every = cron(submission.schedule)
    same = [each for each in found if _is_enabled(each) and _is_same(each, version, every, arguments, settings)]
    ids = {str(each.recurring_run_id) for each in found}
    if same and (not _is_delayed(same[0]) or (not now and backend.list_running(experiment, ids))):
        kept = str(same[0].recurring_run_id)
        others = [each for each in found if each is not same[0]]
        return ScheduleChange(
            kept, (f"recurring run {kept} is as it should be", *_retire(backend, experiment, others, now))
        )
    try:
        lines = _retire(backend, experiment, found, now)
        first = _first_trigger(backend, backend.list_running(experiment, ids), submission)
        made = backend.create_recurring_run(version, submission.name, every, first, arguments, settings)
    except BaseException:
        # With `now` the ones before are deleted by this time.
        for each in () if now else filter(_is_enabled, found):
            backend.enable(str(each.recurring_run_id))
        raise
    return ScheduleChange(made, (*lines, *([_describe_delay(first)] if first else [])))


def end(backend: Backend, experiment: str, name: str, now: bool) -> ScheduleChange:
    """No enabled recurring run of this name any more. The experiment need not be there."""
    experiment_id = backend.find_experiment(experiment)
    found = backend.recurring_runs(experiment_id, name) if experiment_id else []
    enabled = sum(map(_is_enabled, found))
    lines = _retire(backend, experiment_id, found, now) if experiment_id else []
    return ScheduleChange(None, (f"recurring runs {name!r}: {enabled} ended", *lines))


def longest_seconds(resources: Resources, shards: int, ended: Collection[str] = ()) -> int:
    """How long a run can take at most, by its steps' timeouts and retries; `ended`: without these steps.

    A pod that finds no node is not counted: its timeout begins with a node.
    """
    pipelines = resources.pipelines
    rounds = math.ceil(max(1, shards) / pipelines.shard_parallelism)
    left = {name: step for name, step in pipelines.steps.items() if name not in ended}
    tries = (step.retry_seconds * (rounds if name == "synthesis" else 1) for name, step in left.items())
    return OVERHEAD_SECONDS + int(sum(tries))


def _retire(backend: Backend, experiment_id: str, found: Sequence[Any], now: bool) -> list[str]:
    """Disables what is enabled, then deletes what was disabled before and has no run under way; `now` deletes all."""
    disabled = [str(each.recurring_run_id) for each in found if _is_enabled(each)]
    for each in disabled:
        backend.disable(each)
    # After the disabling: a run that started in between is seen.
    running = backend.list_running(experiment_id, {str(each.recurring_run_id) for each in found})
    lines = [f"disabled recurring run {each}" for each in disabled]
    if now:
        running, stopped = _stop(backend, experiment_id, running)
        lines += stopped
    busy = {run.recurring_run_id: run.run_id for run in running}
    for each in (str(one.recurring_run_id) for one in found):
        if each in busy:
            lines.append(f"run {busy[each]} of recurring run {each} goes on; a call after its end deletes that one, "
                         "--now stops it at once")  # fmt: skip
        elif now or each not in disabled:
            backend.delete_recurring_run(each)
            lines.append(f"deleted recurring run {each}")
        else:
            lines.append(f"the next call deletes recurring run {each}")
    return lines


def _stop(backend: Backend, experiment_id: str, running: Sequence[Any]) -> tuple[list[Any], list[str]]:
    """Those that have not ended in time, and what to say of all."""
    for run in running:
        backend.terminate(run.run_id)
    lines = [f"stopped run {run.run_id}" for run in running]
    ends = time.monotonic() + STOP_SECONDS
    left = list(running)
    # Deleted before KFP has seen the end, the run would be listed as under way for ever.
    while (left := [run for run in left if _is_running(backend, run.run_id)]) and time.monotonic() < ends:
        time.sleep(SECONDS_BETWEEN_LOOKS)
    return left, lines


def _is_running(backend: Backend, run_id: str) -> bool:
    try:
        return backend.get_run(run_id).state not in ENDED_STATES
    except RunNotFoundError:
        return False


def _first_trigger(backend: Backend, running: Sequence[Any], submission: Submission) -> datetime | None:
    """When every run of the schedule before has ended by its timeouts; None where none is under way."""
    ends = (_latest_end(backend, run.run_id, submission) for run in running)
    return max(filter(None, ends), default=None)


def _latest_end(backend: Backend, run_id: str, submission: Submission) -> datetime | None:
    """None for a run that somebody has deleted meanwhile."""
    try:
        run = backend.get_run(run_id)
    except RunNotFoundError:
        return None
    shards = submission.config.teacher.shards
    begun: datetime = run.created_at
    whole = begun + timedelta(seconds=longest_seconds(submission.resources, shards))
    rest = timedelta(seconds=longest_seconds(submission.resources, shards, _ended_steps(run)))
    return min(whole, datetime.now(UTC) + rest)


def _ended_steps(run: Any) -> set[str]:
    """Steps of a run that have ended. Of a loop that holds when a step after it has begun: it may have more shards."""
    states: dict[str, set[str]] = defaultdict(set)
    for step in steps_of(run):
        states[step.name].add(step.state)
    furthest = max(map(STEPS.index, states), default=0)
    return {name for name, found in states.items() if found <= DONE_STATES and STEPS.index(name) < furthest}


def _is_enabled(recurring_run: Any) -> bool:
    return str(recurring_run.status or recurring_run.mode or "").startswith("ENABLE")


def _is_delayed(recurring_run: Any) -> bool:
    start = recurring_run.trigger.cron_schedule.start_time
    return bool(start) and start > datetime.now(UTC)


def _is_same(found: Any, version: Version, every: str, arguments: Mapping[str, Any], settings: RunSettings) -> bool:
    reference, runtime, trigger = found.pipeline_version_reference, found.runtime_config, found.trigger
    return bool(
        reference
        and reference.pipeline_version_id == version.version_id
        and trigger and trigger.cron_schedule and trigger.cron_schedule.cron == every
        and runtime and dict(runtime.parameters or {}) == json.loads(json.dumps(dict(arguments)))
        and (runtime.pipeline_root or "") == (settings.pipeline_root or "")
        and settings.service_account in (None, found.service_account)
    )  # fmt: skip


def _describe_delay(first: datetime) -> str:
    return (
        "a run of the schedule before is under way: the new one starts none before "
        f"{first.astimezone(UTC):%Y-%m-%d %H:%M} UTC, when the timeouts of the steps have ended that run; "
        "the same call after its end takes this off, and --now stops it at once"
    )
