"""`conf-profile erase`: one user out of everything that runs have kept, and the proof that nothing is left.

A run on this machine keeps it in its folder (`--run`), runs on a cluster keep it in a bucket (`--cluster`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from conf_profile.cli.models import Storage, is_remote, open_registry, storage_config, storage_of_run, storage_options
from conf_profile.cli.places import artefacts_option, open_artefacts, open_bucket, open_own_tables
from conf_profile.errors import DataError

if TYPE_CHECKING:
    from conf_profile.erasure.erasure import ErasureResult, Store
    from conf_profile.erasure.store import Place
    from conf_profile.registry.trained_versions import TrainedVersion
    from conf_profile.storage.object_store import ObjectStore

REBUILD_NOTE = (
    "The data set is built by conf-profile itself: the next `run` builds its tables again, with this person in them. "
    "From there they return to the online store of `serve`, and to the features as soon as these are not cached."
)
UPLOAD_NOTE = (
    "Uploads that held this person were deleted. Whoever submits a data set that still does uploads it again, so take "
    "them out of the tables first. Feast's stores are the chart's erasure job's, not this command's."
)
NOT_FOUND_NOTE = "Nothing of this user was found in any of these places: check the id."
PIPELINES = "pipelines"
"""Where the chart lets KFP keep artefacts."""
TABLES = "tables"
"""Where the chart's jobs look for the user's own tables."""
OWN_SOURCE_NOTE = "The data set is your own: whatever it was exported from is yours to clean."


@click.command(short_help="Erase one user from all that runs have kept.")
@click.argument("user")
@storage_options
@click.option("--cluster", is_flag=True, help="From the bucket that the runs of a cluster use, instead of a folder.")
@artefacts_option
@click.option(
    "--data-uri",
    multiple=True,
    metavar="s3://BUCKET/PREFIX",
    help="With --cluster: where your own tables lie, as given to submit; default: tables/ in the bucket. Repeatable.",
)
@click.option("--data-too", is_flag=True, help="Also from your own tables, where they lie outside the run's folder.")
@click.option("--allow-empty", is_flag=True, help="With --cluster: it is right that a named place holds nothing.")
@click.option(
    "--also",
    multiple=True,
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="A further folder: backfill output or a Feast repository outside the run's folder. May be repeated.",
)
@click.option("--without-versions", is_flag=True, help="Do not ask the registry, e.g. because it cannot be reached.")
def erase(
    user: str, storage: Storage, as_json: bool, cluster: bool, artefacts: tuple[str, ...], data_uri: tuple[str, ...],
    data_too: bool, allow_empty: bool, also: tuple[Path, ...], without_versions: bool,
) -> None:  # fmt: skip
    """Erase USER from what runs have kept: raw tables, artefacts, kept answers, backfills, Feast online and offline.

    With --run from a folder on this machine, with --cluster from the bucket of a cluster's runs and from KFP's
    artefacts (default: pipelines/ in that bucket); no run may be under way. Every store is read again afterwards, and
    the status is 2 if any row is left. Also lists the model versions that were or may have been trained with USER:
    what weights have learnt cannot be taken out of them. A call that was killed can be repeated.
    """
    if not user.strip():
        raise DataError("USER is blank; give the id as it stands in the tables")
    if cluster:
        if storage.run is not None or also:
            raise DataError("--cluster erases from a bucket: leave --run and --also out, and run erase again for a run")
        return _erase_from_bucket(user, storage, as_json, artefacts, data_uri, data_too, allow_empty, without_versions)
    if artefacts or data_uri:
        raise DataError("--artefacts and --data-uri are for a cluster's runs: add --cluster")
    _erase_from_run(user, storage, as_json, data_too, also, without_versions)


def _erase_from_run(
    user: str, storage: Storage, as_json: bool, data_too: bool, also: Sequence[Path], without_versions: bool
) -> None:
    from conf_profile.data import run_folder
    from conf_profile.erasure import erasure
    from conf_profile.erasure import record as erasure_record

    if storage.run is None:
        raise DataError("erase needs --run DIR, the run to erase the user from, or --cluster")
    run = storage.run.resolve()
    arguments = run_folder.read_arguments(run)
    with run_folder.lock_run_folder(run):
        stores = _stores(run, arguments, also, data_too)
        found = [] if without_versions else _versions(run, storage_of_run(storage, arguments), user)
        versions = erasure_record.begin(run, user, found)
        outcomes = erasure.erase(user, stores)
        _show(outcomes, versions, _advice(arguments), as_json)
        _require_none_left(outcomes, "--data-too")
        erasure_record.finish(run, user, sum(outcome.removed for outcome in outcomes))


def _erase_from_bucket(
    user: str, storage: Storage, as_json: bool, artefacts: Sequence[str], data_uri: Sequence[str], data_too: bool,
    allow_empty: bool, without_versions: bool,
) -> None:  # fmt: skip
    from conf_profile.erasure import erasure
    from conf_profile.erasure import record as erasure_record
    from conf_profile.erasure import store as erasure_store

    model = storage_config(storage).model
    with open_bucket(storage) as bucket:
        places = open_artefacts(artefacts or (f"s3://{bucket.bucket}/{PIPELINES}",), bucket)
        named = open_own_tables(data_uri, bucket)
        if not allow_empty:
            _refuse_empty(places, "KFP keeps the runs' artefacts elsewhere: name the place with --artefacts")
            _refuse_empty(named, "correct --data-uri")
        own = [*open_own_tables((f"s3://{bucket.bucket}/{TABLES}",), bucket), *named]
        stores = erasure_store.stores(bucket, places, own, data_too)
        found = [] if without_versions else _versions_of_cluster(bucket, model, places, user)
        with erasure_record.open_record_in_store(bucket, model) as folder:
            versions = erasure_record.begin(folder, user, found)
        outcomes = erasure.erase(user, stores)
        found_any = any(outcome.removed or outcome.left for outcome in outcomes)
        _show(outcomes, versions, UPLOAD_NOTE if found_any else NOT_FOUND_NOTE, as_json)
        _require_none_left(outcomes, "--data-too; others: a run is under way, wait for its end and erase again")
        with erasure_record.open_record_in_store(bucket, model) as folder:
            erasure_record.finish(folder, user, sum(outcome.removed for outcome in outcomes))


def _refuse_empty(places: Sequence[Place], remedy: str) -> None:
    """An address with a slip in it would be read as a proof that nothing is left there."""
    from conf_profile.storage import object_versions

    for place in places:
        there = place.store.sizes(place.prefix)
        if not there and object_versions.is_versioned(place.store):
            there = {found.key: found.size for found in object_versions.list_all(place.store, place.prefix)}
        if not there:
            raise DataError(f"{place.uri}: nothing lies there; {remedy} (or --allow-empty, if all of it has expired)")


def _require_none_left(outcomes: Sequence[ErasureResult], own: str) -> None:
    left = sum(outcome.left for outcome in outcomes)
    if left:
        raise DataError(f"{left} row(s) are left; see the table for where (your own tables: {own})")


def _stores(run: Path, arguments: Mapping[str, Any], also: Sequence[Path], data_too: bool) -> list[Store]:
    """Online first: from then on there is no prompt, and nothing is written back."""
    from conf_profile.data import run_folder
    from conf_profile.erasure import erasure

    further = list(dict.fromkeys([*run_folder.read_outside_folders(run), *(path.resolve() for path in also)]))
    there = [folder for folder in further if folder.is_dir()]
    return [*_feast([run, *there]), *erasure.stores(run, arguments, there, data_too)]


def _feast(folders: Sequence[Path]) -> list[Store]:
    repositories = sorted({path.parent for folder in folders for path in folder.rglob("feature_store.yaml")})
    if not repositories:
        return []  # feast takes seconds to import
    from feature_repo import erasure

    return [store for repository in repositories for store in erasure.stores(repository)]


def _versions(run: Path, storage: Storage, user: str) -> list[TrainedVersion]:
    """From the run's own registry every version, from a shared one those that this run has published."""
    from conf_profile.registry import trained_versions

    taught = trained_versions.training_splits(run, user)
    if not taught or not (is_remote(storage) or (run / "s3").is_dir()):
        return []
    with open_registry(storage) as registry:
        ours = trained_versions.read_published_versions(run) if is_remote(storage) else None
        published = [version for version in registry.list_versions() if ours is None or version.name in ours]
        return trained_versions.trained_versions(published, registry.champion(), taught)


def _versions_of_cluster(
    bucket: ObjectStore, model: str, artefacts: Sequence[Place], user: str
) -> list[TrainedVersion]:
    """Every version of the model: which runs have published it stands in artefacts that expire."""
    from conf_profile.erasure import store as erasure_store
    from conf_profile.registry import trained_versions
    from conf_profile.registry.registry import Registry

    registry = Registry(bucket.bucket, model, bucket.client)
    taught = erasure_store.training_splits(artefacts, user)
    return trained_versions.trained_versions(registry.list_versions(), registry.champion(), taught) if taught else []


def _advice(arguments: Mapping[str, Any]) -> str:
    from conf_profile.data import run_folder

    source = run_folder.read_configuration(arguments)["data"]["name"]
    return OWN_SOURCE_NOTE if source == "parquet" else REBUILD_NOTE


def _show(outcomes: Sequence[ErasureResult], versions: Sequence[TrainedVersion], advice: str, as_json: bool) -> None:
    if as_json:
        found = {"stores": [asdict(o) for o in outcomes], "versions": [asdict(v) for v in versions], "advice": advice}
        return click.echo(json.dumps(found, indent=2, ensure_ascii=False))
    from rich.console import Console

    console = Console()
    rows = [(outcome.store, str(outcome.removed), str(outcome.left)) for outcome in outcomes]
    console.print(_table("erased", ("store", "rows removed", "rows left"), rows))
    trained = [(v.version, ", ".join(v.splits), v.promoted_at, "champion" if v.champion else "") for v in versions]
    if trained:
        console.print(_table("trained with this user, or maybe so", ("version", "split", "promoted", ""), trained))
    else:
        console.print("No model version is known to have been trained with this user.")
    console.print(advice)


def _table(title: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> Any:
    from rich.table import Table

    table = Table(title=title, title_justify="left")
    for name in header:
        table.add_column(name, overflow="fold", justify="right" if name.startswith("rows") else "left")
    for row in rows:
        table.add_row(*row)
    return table
