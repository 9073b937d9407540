"""`conf-profile models list | show | rollback`: look at the registry, move its champion pointer back, serve that one.

Publishing and promoting are the pipeline's; nothing here uploads a model.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from conf_profile.cli.options import serving_options
from conf_profile.errors import RegistryError

if TYPE_CHECKING:
    from conf_profile.config import StorageConfig
    from conf_profile.registry.registry import Champion, Registry, Version
    from conf_profile.rollout.rollout import Serving


@dataclass(frozen=True)
class Storage:
    """Where the registry is, as the options say; None: the default of the configuration."""

    endpoint: str | None
    bucket: str | None
    model: str | None
    run: Path | None


def storage_options(command: Callable[..., None]) -> Callable[..., None]:
    """Adds the options that say where the registry is; the command receives them as one `Storage`."""

    @click.option("--endpoint", help="S3 endpoint, or aws; default: AWS_ENDPOINT_URL.")
    @click.option("--bucket", help="Bucket; default: conf-profile.")
    @click.option("--model", help="Model name; default: conf-profile.")
    @click.option(
        "--run",
        type=click.Path(path_type=Path, file_okay=False),
        help="A run's folder: without an endpoint, DIR/s3 is served while the command runs.",
    )
    @click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
    @functools.wraps(command)
    def with_storage(
        endpoint: str | None, bucket: str | None, model: str | None, run: Path | None, **rest: Any
    ) -> None:
        command(storage=Storage(endpoint, bucket, model, run), **rest)

    return with_storage


def storage_of_run(given: Storage, arguments: Mapping[str, Any]) -> Storage:
    """What the options leave open as the run had it; `arguments` are its pipeline's."""
    from conf_profile.config import StorageConfig, parse_section

    config = parse_section(StorageConfig, arguments["storage_config"] or "{}")
    return replace(
        given,
        endpoint=given.endpoint or config.endpoint,
        bucket=given.bucket or config.bucket,
        model=given.model or config.model,
    )


def is_remote(storage: Storage) -> bool:
    """Whether a server is named; otherwise the run's own folder is served."""
    from conf_profile.storage.object_address import environment_endpoint

    return bool(storage.endpoint or environment_endpoint())


def storage_config(storage: Storage) -> StorageConfig:
    """The configuration's defaults with the options laid over them."""
    from conf_profile.config import StorageConfig, parse_section

    given = {"endpoint": storage.endpoint, "bucket": storage.bucket, "model": storage.model}
    return parse_section(StorageConfig, json.dumps({name: value for name, value in given.items() if value is not None}))


@contextmanager
def open_registry(storage: Storage) -> Iterator[Registry]:
    """The registry at the endpoint, or on a local server for as long as the block runs."""
    from conf_profile.registry import registry
    from conf_profile.storage.local_s3 import local_s3

    config = storage_config(storage)
    if is_remote(storage):
        yield registry.connect(config, create_bucket=False)
        return
    with local_s3(local_folder(storage.run)) as access:
        yield registry.connect(config, access, create_bucket=False)


@click.group(short_help="List, show and roll back models in the registry.")
def models() -> None:
    """Look at the model registry in S3, and roll back."""


@models.command("list")
@storage_options
def list_command(storage: Storage, as_json: bool) -> None:
    """List the versions, the oldest first."""
    with open_registry(storage) as registry:
        champion = registry.champion()
        versions = registry.list_versions()
        _print_versions(registry, versions, champion, as_json, _describe_rejection(storage.run))


@models.command()
@click.argument("version", required=False)
@storage_options
def show(storage: Storage, version: str | None, as_json: bool) -> None:
    """Show VERSION, by default the champion."""
    with open_registry(storage) as registry:
        found = registry.show(version)
        described = _describe(registry, found, registry.champion())
        if as_json:
            return _print_json(described)
        _print_version(described)


@models.command()
@click.argument("version", required=False)
@serving_options(required=False)
@storage_options
def rollback(storage: Storage, serving: Serving | None, version: str | None, as_json: bool) -> None:
    """Make VERSION the champion again, by default the one before.

    With --inference-service it is also put into service on a cluster; if that fails, everything stays as it was.
    """
    from conf_profile.rollout.rollout import roll_out

    with open_registry(storage) as registry:
        if serving is None:
            champion = registry.rollback(version)
        else:
            name = registry.predecessor(version)
            roll_out(registry, serving, name, lambda line: click.echo(line, err=True), move_pointer=True)
            champion = registry.require_champion()
        if as_json:
            return _print_json(asdict(champion))
        click.echo(f"{registry.uri()} is now {champion.version}; it was {champion.previous}")


def local_folder(run: Path | None) -> Path:
    """The folder of a run's own object store; RegistryError where there is none."""
    if run is None:
        raise RegistryError(
            "no S3 endpoint: give --endpoint (aws for Amazon's own S3), set AWS_ENDPOINT_URL, or name a run with "
            "--run DIR"
        )
    folder = run / "s3"
    if not folder.is_dir():
        raise RegistryError(f"{folder}: no such folder; {run} is not a run that kept its models on this machine")
    return folder


def _describe(registry: Registry, version: Version, champion: Champion | None) -> dict[str, Any]:
    return {
        "version": version.name,
        "uri": registry.uri(version.name),
        "champion": champion is not None and champion.version == version.name,
        "judged": version.judged,
        "created_at": version.created_at,
        "bytes": version.bytes,
        "manifest_sha256": version.manifest_sha256,
        "files": {path: asdict(file) for path, file in version.files.items()},
        "extra": dict(version.extra),
    }


def _describe_rejection(run: Path | None) -> str:
    """What the gate said of the last run in a folder, where it has rejected that one's candidate; else empty."""
    if run is None or not (run / "summary.json").is_file():
        return ""
    from conf_profile.tables import read_json

    gate = read_json(run / "summary.json", "run the pipeline again").get("gate", {})
    if gate.get("decision") != "reject":
        return ""
    failed = [reason for reason in gate.get("reasons", ()) if not reason.startswith("passed")]
    return f"the candidate of the last run was rejected ({run / 'report.html'}): {'; '.join(failed)}"


def _print_versions(
    registry: Registry, versions: list[Version], champion: Champion | None, as_json: bool, rejection: str
) -> None:
    described = [_describe(registry, version, champion) for version in versions]
    if as_json:
        return _print_json(described)
    if not described:
        return click.echo(f"{registry.uri()}: no version yet: {rejection or 'run the pipeline'}")
    rows = [
        (
            item["version"],
            "champion" if item["champion"] else "",
            _f1(item),
            _mib(item["bytes"]),
            item["created_at"],
        )
        for item in described
    ]
    _print_table(registry.uri(), ("version", "", "F1", "MiB", "created"), rows)
    if rejection:
        click.echo(rejection)


def _print_version(item: dict[str, Any]) -> None:
    click.echo(item["uri"] + (" (champion)" if item["champion"] else ""))
    click.echo(f"created {item['created_at']}, F1 {_f1(item)}, manifest SHA-256 {item['manifest_sha256']}")
    for name in ("reference_sha256", "config_sha256"):
        if item["extra"].get(name):
            click.echo(f"{name} {item['extra'][name]}")
    rows = [(path, _mib(file["size"]), file["sha256"]) for path, file in item["files"].items()]
    _print_table("files", ("file", "MiB", "SHA-256"), rows)


def _f1(item: dict[str, Any]) -> str:
    """The F1 at the evaluation, or that nobody has measured one."""
    if not item["judged"]:
        return "unjudged"
    value = item["extra"].get("metrics", {}).get("f1")
    return "" if value is None else f"{value:.3f}"


def _mib(size: int) -> str:
    return f"{size / 2**20:.1f}"


def _print_json(data: Any) -> None:
    click.echo(json.dumps(data, indent=2, ensure_ascii=False))


def _print_table(title: str, header: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title, title_justify="left")
    for name in header:
        table.add_column(name, overflow="fold")
    for row in rows:
        table.add_row(*row)
    Console().print(table)
