"""`conf-profile submit`: the pipeline on a KFP backend, now or on a schedule."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from conf_profile.cli.options import config_options, default_folder
from pipelines.commands.runs import backend_options, connect

if TYPE_CHECKING:
    from conf_profile.config import RunConfig

INTERRUPTED_STATUS = 130
"""Exit status after Ctrl-C, as a shell has it."""


@click.command(short_help="Run the pipeline on a KFP backend, now or on a schedule.")
@config_options
@backend_options
@click.option("--experiment", default="conf-profile", show_default=True, help="KFP's experiment.")
@click.option(
    "--image", default="", help="Container image of the steps; default: CONF_PROFILE_IMAGE, else the release's."
)
@click.option(
    "--values", multiple=True, type=click.Path(path_type=Path), help="Values of the chart: pools, resources, secrets."
)
@click.option("--service-account", help="Service account of the run's pods; default: KFP's own.")
@click.option("--pipeline-root", default="", help="Where KFP puts the run's artefacts; default: the backend's own.")
@click.option("--data-uri", default="", help="s3://BUCKET/PREFIX of your tables; default: the data set is uploaded.")
@click.option("--labels-uri", default="", help="s3://BUCKET/PREFIX of labels and ceiling; default: --data-uri.")
@click.option("--upload-only", is_flag=True, help="Upload the pipeline, and run nothing.")
@click.option("--schedule", default="", metavar="CRON", help="Run it again and again, e.g. '0 3 * * 0'.")
@click.option("--end-schedule", is_flag=True, help="End the recurring run of this model, data set and preset.")
@click.option("--now", is_flag=True, help="With either: stop the run of the schedule before that is under way.")
@click.option("--wait/--no-wait", default=True, show_default=True, help="Wait for the run, and fail when it fails.")
@click.option("--cancel-on-interrupt", is_flag=True, help="Ctrl-C stops the run; without it the run goes on.")
@click.option(
    "--with-steps-keys", is_flag=True, help="This environment holds the steps' own keys, as in the chart's job."
)
def submit(
    config: RunConfig,
    endpoint: str,
    namespace: str | None,
    experiment: str,
    image: str,
    values: tuple[Path, ...],
    service_account: str | None,
    pipeline_root: str,
    data_uri: str,
    labels_uri: str,
    upload_only: bool,
    schedule: str,
    end_schedule: bool,
    now: bool,
    wait: bool,
    cancel_on_interrupt: bool,
    with_steps_keys: bool,
) -> None:
    """Upload data and pipeline to a cluster, check what can be checked, start a run there and follow it.

    Nothing is uploaded twice: data sets and versions of the pipeline bear their content's hash. The object store is
    reached from here as by every other command (storage.endpoint or AWS_ENDPOINT_URL).
    """
    from rich.console import Console

    from pipelines import preflight, resources
    from pipelines.cluster import kfp_backend, schedules
    from pipelines.cluster.submit import Submission, check, preflight_request, run_arguments, start, upload_pipeline

    _refuse_combinations(upload_only, schedule, end_schedule, now)
    config = _use_stored_tables(config, data_uri, labels_uri)
    console = Console(stderr=True)
    declared = resources.load(values)
    if upload_only or not end_schedule:
        check(config, declared)
    if schedule:
        schedules.cron(schedule)
    submission = Submission(
        config, declared, image, default_folder(config), data_uri, schedule, labels_uri, namespace, service_account
    )
    settings = kfp_backend.RunSettings(experiment, service_account, pipeline_root or None)
    backend = connect(endpoint, namespace)
    if upload_only:
        # Of a run that somebody starts later nobody knows yet which tables it will read.
        preflight.require(
            preflight.findings(preflight_request(submission, {}, backend.endpoint, with_steps_keys)), console
        )
        version = upload_pipeline(backend, submission)
        state = "uploaded" if version.uploaded else "was there already"
        click.echo(f"pipeline version {version.version_id}: {state}")
    if end_schedule:
        _print_lines(schedules.end(backend, experiment, submission.name, now))
    if upload_only or end_schedule:
        return
    try:
        with console.status("uploading the data, and checking"):
            arguments = run_arguments(submission)
            found = preflight.findings(preflight_request(submission, arguments, backend.endpoint, with_steps_keys))
    except KeyboardInterrupt:
        click.echo("interrupted: no run was started", err=True)
        sys.exit(INTERRUPTED_STATUS)
    preflight.require(found, console)
    if schedule:
        change = schedules.schedule(backend, submission, arguments, settings, now)
        _print_lines(change)
        click.echo(f"recurring run: {backend.endpoint}/#/recurringrun/details/{change.made}")
        return
    started = start(backend, submission, arguments, settings)
    click.echo(f"run: {backend.link(started)}")
    if wait:
        _follow(backend, namespace, started, pipeline_root, cancel_on_interrupt, console)


def _refuse_combinations(upload_only: bool, schedule: str, end_schedule: bool, now: bool) -> None:
    if schedule and end_schedule:
        raise click.UsageError("--schedule and --end-schedule exclude each other")
    if schedule and upload_only:
        raise click.UsageError("--schedule and --upload-only exclude each other")
    if now and not (schedule or end_schedule):
        raise click.UsageError("--now goes with --schedule or --end-schedule")


def _use_stored_tables(config: RunConfig, data_uri: str, labels_uri: str) -> RunConfig:
    """The configuration of a run on tables that lie in a store: they are the user's own."""
    if not data_uri:
        if labels_uri:
            raise click.UsageError("--labels-uri goes with --data-uri: an uploaded data set has its own labels")
        return config
    if config.data.path is not None:
        raise click.UsageError("--data names tables of this machine, --data-uri tables in a store: give one of them")
    from conf_profile.config import DataConfig

    return config.model_copy(update={"data": DataConfig(name="parquet", users=None)})


def _print_lines(change: Any) -> None:
    for line in change.lines:
        click.echo(line)


def _follow(backend: Any, namespace: str | None, run_id: str, pipeline_root: str, cancel: bool, console: Any) -> None:
    from pipelines.cluster.runs import run_cluster, run_progress, run_report

    reader = run_report.RunReader(backend, run_cluster.RunCluster(namespace), run_id, pipeline_root)
    try:
        run_progress.wait(reader, console)
    except KeyboardInterrupt:
        click.echo(run_progress.handle_interrupt(backend, run_id, cancel), err=True)
        sys.exit(INTERRUPTED_STATUS)
    console.print("[green]the run succeeded[/green]")
