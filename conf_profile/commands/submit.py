"""`conf-profile submit`: the pipeline on a KFP backend, now or on a schedule."""

from __future__ import annotations

from pathlib import Path

import click

from conf_profile.commands.options import config_options, default_folder
from conf_profile.config import RunConfig


@click.command()
@config_options
@click.option("--endpoint", envvar="KFP_ENDPOINT", required=True, help="KFP's address, e.g. http://127.0.0.1:8080.")
@click.option("--namespace", help="Namespace of the run, where KFP keeps users apart.")
@click.option("--experiment", default="conf-profile", show_default=True, help="KFP's experiment.")
@click.option(
    "--image", default="", help="Container image of the steps; default: CONF_PROFILE_IMAGE, else the release's."
)
@click.option(
    "--values", multiple=True, type=click.Path(path_type=Path), help="Values of the chart: pools, resources, secrets."
)
@click.option("--service-account", help="Service account of the run's pods; default: KFP's own.")
@click.option("--data-uri", default="", help="s3://BUCKET/PREFIX of your tables; default: the data set is uploaded.")
@click.option("--upload-only", is_flag=True, help="Upload the pipeline, and run nothing.")
@click.option("--schedule", default="", metavar="CRON", help="Run it again and again, e.g. '0 3 * * 0'.")
@click.option("--end-schedule", is_flag=True, help="End the recurring run of this model, data set and preset.")
@click.option("--wait/--no-wait", default=True, show_default=True, help="Wait for the run, and fail when it fails.")
def submit(
    config: RunConfig,
    endpoint: str,
    namespace: str | None,
    experiment: str,
    image: str,
    values: tuple[Path, ...],
    service_account: str | None,
    data_uri: str,
    upload_only: bool,
    schedule: str,
    end_schedule: bool,
    wait: bool,
) -> None:
    """Upload data and pipeline to a cluster, start a run there and follow it.

    Nothing is uploaded twice: data sets and versions of the pipeline bear their content's hash. The object store is
    reached from here as by every other command (storage.endpoint or AWS_ENDPOINT_URL).
    """
    from rich.console import Console

    from pipelines import kfp_backend, resources, run_progress
    from pipelines.submit import Submission, check, cron, start, upload_pipeline

    if schedule and end_schedule:
        raise click.UsageError("--schedule and --end-schedule exclude each other")
    console = Console(stderr=True)
    declared = resources.load(values)
    if upload_only or not end_schedule:
        check(config, declared)
    if schedule:
        cron(schedule)
    submission = Submission(config, declared, image, default_folder(config), data_uri, schedule)
    backend = kfp_backend.connect(endpoint, namespace)
    if upload_only:
        version = upload_pipeline(backend, submission)
        state = "uploaded" if version.uploaded else "was there already"
        click.echo(f"pipeline version {version.version_id}: {state}")
    if end_schedule:
        ended = backend.end_schedule(experiment, submission.name)
        click.echo(f"recurring runs {submission.name!r}: {ended} ended")
    if upload_only or end_schedule:
        return
    with console.status("uploading data and pipeline"):
        started = start(backend, submission, experiment, service_account)
    if schedule:
        click.echo(f"recurring run: {backend.endpoint}/#/recurringrun/details/{started}")
        return
    click.echo(f"run: {backend.link(started)}")
    if wait:
        run_progress.wait(backend, started, console)
        console.print("[green]the run succeeded[/green]")
