"""`conf-profile run`: data, S3 and pipeline on one machine, with progress, a summary and a report."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from conf_profile.cli.options import config_options, default_folder
from conf_profile.errors import ConfigError, LostPromotionError, PipelineError, UnreadableTeacherError
from pipelines.commands.options import until_option

if TYPE_CHECKING:
    from conf_profile.config import RunConfig
    from conf_profile.data.dataset import Dataset
    from pipelines.local.pipeline_process import FinishedPipeline


@click.command(short_help="Run the whole pipeline on this machine.")
@config_options
@click.option("--out", type=click.Path(path_type=Path), help="The run's folder; default: runs/DATASET-PRESET.")
@until_option
def run(config: RunConfig, out: Path | None, until: str) -> None:
    """Run every step from raw events to the gated model in S3, and write summary.json and report.html.

    A second call with the same arguments continues where the first one stopped; what is done is not done again.
    """
    from rich.console import Console

    from components.steps import steps_of
    from conf_profile.data.build import build_in_run_folder
    from conf_profile.data.run_folder import lock_run_folder
    from conf_profile.evaluation import summary
    from conf_profile.processes.interruption import end_processes
    from pipelines import preflight
    from pipelines.check import champion, place_findings

    steps_of(config, until)
    console = Console(stderr=True)
    folder = (out or default_folder(config)).resolve()
    preflight.require(place_findings(config, folder), console)
    _make_folder(folder)
    with end_processes(), lock_run_folder(folder):
        with console.status("preparing the data set"):
            data = build_in_run_folder(folder, config)
        console.print(f"data: {data.name}, {data.users} users as of {data.as_of} ({data.source})")
        own_store = not champion.uses_endpoint(config.storage)
        with _storage(config, folder):
            warnings = _check(config, data, folder, console, until, own_store)
            finished = _run_pipeline(config, data, folder, console, until)
    if "report" not in finished.artefacts:
        for name, path in finished.artefacts.items():
            click.echo(f"{name}: {_display_path(Path(path))}")
        _echo_answers(finished)
        return
    result = _collect(config, finished, folder, warnings)
    Console().print(summary.render(result))
    click.echo(f"summary: {_display_path(folder / 'summary.json')}\nreport:  {_display_path(folder / 'report.html')}")
    if result["model"]:
        click.echo(f"models:  conf-profile models list --run {_display_path(folder)}")


def _echo_answers(finished: FinishedPipeline) -> None:
    """What the teacher's answers were like, for a run that ends before its summary."""
    from conf_profile.evaluation import summary

    if "labelling_report" in finished.artefacts:
        report = json.loads(Path(finished.artefacts["labelling_report"]).read_text(encoding="utf-8"))
        if counted := summary.count_answers(report):
            click.echo(summary.describe_answers(counted))


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise PipelineError(f"{folder}: cannot be made: {error.strerror}; give another --out") from error


@contextmanager
def _storage(config: RunConfig, folder: Path) -> Iterator[None]:
    """The configured S3, else a SeaweedFS on the run's folder; steps find it through the environment."""
    from conf_profile.storage.object_address import AWS, ENDPOINT_VARIABLE
    from pipelines.check.champion import uses_endpoint

    if uses_endpoint(config.storage):
        if config.storage.endpoint == AWS:
            os.environ[ENDPOINT_VARIABLE] = AWS
        elif config.storage.endpoint:
            os.environ["AWS_ENDPOINT_URL_S3"] = config.storage.endpoint
        yield
        return
    from conf_profile.storage.local_s3 import local_s3

    if config.storage.encryption:
        raise ConfigError(
            "storage.encryption is for a store of yours, and this run keeps its models in its own folder; leave it "
            "out, or set storage.endpoint"
        )
    before = dict(os.environ)
    with local_s3(folder / "s3") as access:
        os.environ.update(access.environment())
        try:
            yield
        finally:
            os.environ.clear()
            os.environ.update(before)


def _check(config: RunConfig, data: Dataset, folder: Path, console: Any, until: str, own_store: bool) -> list[str]:
    """Refuses what cannot work before anything is paid; the warnings, which are kept for the report."""
    from components.steps import steps_of
    from conf_profile.data.run_folder import write_warnings
    from conf_profile.registry import registry
    from pipelines import check, preflight

    with console.status("checking"):
        steps = [step.name for step in steps_of(config, until)]
        models = registry.connect(config.storage)
        if "promotion" in steps:
            models.require_conditional_writes()
        found = check.inspect(config, data, folder, models, steps, own_store)
    preflight.require(found.findings, console)
    write_warnings(folder, found.warnings)
    return found.warnings


def _run_pipeline(config: RunConfig, data: Dataset, folder: Path, console: Any, until: str) -> FinishedPipeline:
    from components.steps import steps_of
    from pipelines import arguments
    from pipelines.local import pipeline_process

    pinned = _pinned_champion(config, data, folder)
    values = arguments.build(config, data, _champion_at_start(config, pinned), folder / "workspace")
    try:
        steps = [step.name for step in steps_of(config, until)]
        return pipeline_process.run(values, folder, console, steps, until)
    except UnreadableTeacherError:
        from pipelines.local import malformed_answers

        for line in malformed_answers.describe_latest(config, data, folder / "workspace" / "answers"):
            click.echo(line, err=True)
        raise
    except LostPromotionError:
        # Started again, it competes with the new champion; what does not depend on that one is not done again.
        pinned.unlink()
        raise


def _pinned_champion(config: RunConfig, data: Dataset, folder: Path) -> Path:
    """The file that keeps which version this run competes with."""
    from conf_profile.source import source_hash
    from pipelines.local.pipeline_process import STEPS_CODE

    identity = json.dumps([config.for_step(), data.digest(), data.labels_digest(), source_hash(STEPS_CODE)])
    return folder / "workspace" / f"champion-{hashlib.sha256(identity.encode()).hexdigest()[:16]}.json"


def _champion_at_start(config: RunConfig, pinned: Path) -> str:
    """The version that this run competes with, fixed when it first starts: continuing must not move the goal."""
    from conf_profile.files import write_text
    from conf_profile.registry import registry

    if pinned.is_file():
        return str(json.loads(pinned.read_text(encoding="utf-8"))["version"])
    champion = registry.connect(config.storage).champion()
    version = champion.version if champion else ""
    write_text(pinned, json.dumps({"version": version}))
    return version


def _collect(config: RunConfig, finished: FinishedPipeline, folder: Path, warnings: list[str]) -> dict[str, Any]:
    from conf_profile.evaluation import summary
    from conf_profile.files import write_text

    read = {
        name: json.loads(Path(finished.artefacts[name]).read_text(encoding="utf-8"))
        for name in ("evaluation", "gate", "outcome", "features_report", "labelling_report")
    }
    result = summary.build(
        config, **read, seconds=finished.seconds, peak_rss_mib=finished.peak_rss_mib, warnings=warnings
    )
    write_text(folder / "summary.json", json.dumps(result, indent=2))
    for name, target in (("report", "report.html"), ("evaluation", "evaluation.json"), ("gate", "gate.json")):
        shutil.copyfile(finished.artefacts[name], folder / target)
    return result


def _display_path(path: Path) -> str:
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)
