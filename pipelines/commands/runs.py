"""`conf-profile runs list | show | stop`: runs on a KFP backend, their steps, their logs."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from itertools import islice
from typing import Any

import click


def backend_options(command: Callable[..., None]) -> Callable[..., None]:
    """Adds --endpoint and --namespace, which say where KFP is."""

    @click.option("--endpoint", envvar="KFP_ENDPOINT", required=True, help="KFP's address, e.g. http://127.0.0.1:8080.")
    @click.option(
        "--namespace", help="Namespace of the runs, where KFP keeps users apart; their pods are looked for there, too."
    )
    @functools.wraps(command)
    def with_backend(**given: Any) -> None:
        command(**given)

    return with_backend


def connect(endpoint: str, namespace: str | None) -> Any:
    """The backend; a version that was not tried is told on standard error."""
    from pipelines.cluster import kfp_backend

    backend = kfp_backend.connect(endpoint, namespace)
    if backend.warning:
        click.echo(f"conf-profile: warning: {backend.warning}", err=True)
    return backend


@click.group()
def runs() -> None:
    """Look at runs on a KFP backend, and stop one."""


@runs.command("list")
@backend_options
@click.option("--experiment", default="conf-profile", show_default=True, help="KFP's experiment.")
@click.option("--limit", type=click.IntRange(1), default=20, show_default=True, help="How many, the newest first.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
def list_command(endpoint: str, namespace: str | None, experiment: str, limit: int, as_json: bool) -> None:
    """List the runs of an experiment, the newest first."""
    backend = connect(endpoint, namespace)
    experiment_id = backend.find_experiment(experiment)
    found = list(islice(backend.list_runs(experiment_id), limit)) if experiment_id else []
    rows = [
        {
            "run_id": str(run.run_id),
            "state": str(run.state),
            "created_at": run.created_at.isoformat(timespec="seconds") if run.created_at else "",
            "name": str(run.display_name),
            "scheduled": bool(run.recurring_run_id),
            "link": backend.link(run.run_id),
        }
        for run in found
    ]
    if as_json:
        return click.echo(json.dumps(rows, indent=2, ensure_ascii=False))
    if not rows:
        return click.echo(f"experiment {experiment!r} has no run: start one with conf-profile submit")
    for row in rows:
        kind = " (schedule)" if row["scheduled"] else ""
        click.echo(f"{row['run_id']}  {row['state']:<9}  {row['created_at']}  {row['name']}{kind}")


@runs.command()
@click.argument("run")
@backend_options
@click.option("--logs", "step", metavar="STEP", help="Print the end of this step's log instead, e.g. sft.")
@click.option("--pipeline-root", default="", help="Where the run's artefacts are, where KFP does not tell it.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
def show(run: str, endpoint: str, namespace: str | None, step: str | None, pipeline_root: str, as_json: bool) -> None:
    """Show a RUN: its state, its steps, and why it failed."""
    from pipelines.cluster.runs import run_cluster, run_report

    backend = connect(endpoint, namespace)
    reader = run_report.RunReader(backend, run_cluster.RunCluster(namespace), run, pipeline_root)
    found = backend.get_run(run)
    if step:
        return _print_log(reader.log(found, step.replace("_", "-")), step, as_json)
    report = reader.report(found)
    if as_json:
        return click.echo(json.dumps(report.describe(), indent=2, ensure_ascii=False))
    _print_report(report)


@runs.command()
@click.argument("run")
@backend_options
def stop(run: str, endpoint: str, namespace: str | None) -> None:
    """Stop a RUN that is under way. What it has promoted stays."""
    from pipelines.cluster import kfp_backend

    backend = connect(endpoint, namespace)
    state = backend.get_run(run).state
    if state in kfp_backend.ENDED_STATES:
        return click.echo(f"run {run} has ended already ({state})")
    backend.terminate(run)
    click.echo(f"KFP is stopping run {run}: {backend.link(run)}")


def _print_log(log: Any, step: str, as_json: bool) -> None:
    from conf_profile.errors import PipelineError

    if not log.text:
        notes = "; ".join(log.notes) or "KFP has no log of it: it was taken from the cache, or its pod has not begun"
        raise PipelineError(f"the log of {step} could not be read: {notes}")
    if as_json:
        return click.echo(json.dumps({"source": log.source, "log": log.text}, indent=2, ensure_ascii=False))
    click.echo(log.source, err=True)
    click.echo(log.text.rstrip("\n"))


def _print_report(report: Any) -> None:
    seconds = "" if report.seconds is None else f", {report.seconds:.0f} s"
    click.echo(f"{report.run_id} {report.state}{seconds}: {report.name}")
    for step in report.steps:
        took = "" if step.seconds is None else f"  {step.seconds:.0f} s"
        click.echo(f"  {step.state:<9}  {step.name}{took}")
    if report.why:
        click.echo(report.why)
    for failure in report.failures:
        where = failure.log.source or "; ".join(failure.log.notes) or "no log was found"
        click.echo(f"log of {failure.step}: {where}")
        for line in failure.log.last_lines(10):
            click.echo(f"    {line}")
    # Where every log was found, it does not matter what else could not be read.
    unread = any(not failure.log.text for failure in report.failures)
    for note in report.notes if unread or not report.why else ():
        click.echo(note)
    click.echo(report.link)
