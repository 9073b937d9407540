"""`conf-profile backfill`: profiles of all users of a run, offline."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from conf_profile.cli.models import Storage, open_registry, storage_of_run, storage_options
from conf_profile.errors import DataError
from conf_profile.registry.version_files import MANIFEST

if TYPE_CHECKING:
    from collections.abc import Callable

    from serving.backfill.engines import EngineName

USERS_PER_BATCH = 256


@click.command(short_help="Profile all users of a run offline.")
@storage_options
@click.option(
    "--model-folder",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="A version's or a student's folder; default: the champion of the run's registry.",
)
@click.option("--out", type=click.Path(path_type=Path), help="Folder for the Parquet files; default: RUN/backfill.")
@click.option("--shard-users", type=click.IntRange(1), default=20_000, show_default=True, help="Users of one file.")
@click.option(
    "--engine", type=click.Choice(["vllm", "transformers"]), help="What answers; default: vLLM where it is installed."
)
@click.option("--feast/--no-feast", default=False, help="Also write accepted tags to Feast's view inferred_profile.")
def backfill(
    storage: Storage,
    as_json: bool,
    model_folder: Path | None,
    out: Path | None,
    shard_users: int,
    engine: EngineName | None,
    feast: bool,
) -> None:
    """Profile all users of a run with consent, as of its moment, in batches and without a server.

    A call that was killed goes on where it stopped. Another model, other data or another --engine or --shard-users
    begin a folder of their own.
    """
    from conf_profile.data import run_folder
    from conf_profile.processes.interruption import end_processes
    from serving.backfill import backfill as work
    from serving.backfill import engines as backfill_engines
    from serving.predictor.arguments import default_engine

    chosen = engine or default_engine()
    if storage.run is None:
        raise DataError("backfill needs --run DIR: the run whose users are profiled")
    run = storage.run.resolve()
    arguments = run_folder.read_arguments(run)
    with end_processes(), run_folder.lock_run_folder(run):
        model = model_folder or _champion(storage_of_run(storage, arguments), run / "serving" / "models")
        folder = (out or run / "backfill").resolve()
        run_folder.note_outside_folder(run, folder)
        plan = work.plan(work.source_of(arguments), model, folder, chosen, shard_users)
        with _progress("profiles", plan.users) as on_users:
            parts = work.fill(
                plan,
                lambda: backfill_engines.make_engine(chosen, model, plan.bundle, arguments["dtype"], USERS_PER_BATCH),
                on_users,
            )
        passed = _write_to_feast(run, plan) if feast else None
    _show(plan, parts, passed, as_json)


def _champion(storage: Storage, models: Path) -> Path:
    """The champion's folder, downloaded and verified where it is not there yet."""
    with open_registry(storage) as registry:
        version = registry.show().name
        folder = models / version
        if not (folder / MANIFEST).is_file():
            registry.download(version, folder)
        return folder


def _write_to_feast(run: Path, plan: Any) -> Any:
    from feature_repo import store as feature_store
    from serving.backfill import backfill as work
    from serving.local import local

    # Filled first: consent is looked at once more where the tags are going to be read.
    store = feature_store.connect(local.online_store(run, run / "serving"))
    with _progress("to Feast", plan.users) as on_users:
        return work.write_to_feast(plan, store, on_users)


@contextmanager
def _progress(title: str, users: int) -> Iterator[Callable[[int], None]]:
    """A bar on standard error; what is called in the block tells it how many more users are done."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(title, total=users)
        yield lambda done: bar.advance(task, done)


def _show(plan: Any, parts: list[Any], passed: Any, as_json: bool) -> None:
    counts = {name: sum(getattr(part, name) for part in parts) for name in ("users", "profiled", "answered")}
    found = {"folder": str(plan.folder), **asdict(plan.identity), **counts, "feast": asdict(passed) if passed else None}
    if as_json:
        return click.echo(json.dumps(found, indent=2))
    click.echo(f"{counts['users']} users, {counts['profiled']} with consent, {counts['answered']} with an answer")
    click.echo(f"model {plan.identity.model_version}: {plan.folder}")
    if passed:
        click.echo(
            f"Feast: {passed.written} written, {passed.nothing_new} with nothing new, "
            f"{passed.without_consent} without consent by now"
        )
