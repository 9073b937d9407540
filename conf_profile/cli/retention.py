"""`conf-profile retention apply | sweep | show`: how long users' rows stay in the bucket of a cluster's runs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from conf_profile.cli.models import Storage, storage_options
from conf_profile.cli.places import artefacts_option, open_artefacts, open_bucket

if TYPE_CHECKING:
    from collections.abc import Iterator

    from conf_profile.erasure.retention import Rule
    from conf_profile.erasure.store import Place


@click.group(short_help="Let users' rows in the object store expire.")
def retention() -> None:
    """Let users' rows in the object store expire: uploads, kept answers, artefacts. Models are never touched."""


@retention.command("apply")
@click.option("--days", type=click.IntRange(0), required=True, help="After the last write; 0: take our rules away.")
@artefacts_option
@storage_options
def apply_command(storage: Storage, as_json: bool, days: int, artefacts: tuple[str, ...]) -> None:
    """Merge lifecycle rules into those of the bucket, read them back, and print all that are there."""
    from conf_profile.erasure import expiry
    from conf_profile.erasure.retention import RULED_PREFIXES, Retention

    with _places(storage, artefacts, RULED_PREFIXES) as places:
        found = [
            (some[0].store.bucket, expiry.apply(some[0].store, [place.prefix for place in some], Retention(days)))
            for some in _group_by_bucket(places)
        ]
        _show_rules(found, as_json)


@retention.command()
@click.option("--days", type=click.IntRange(1), required=True, help="What was written longer ago is deleted.")
@click.option("--dry-run", is_flag=True, help="Only count.")
@artefacts_option
@storage_options
def sweep(storage: Storage, as_json: bool, days: int, dry_run: bool, artefacts: tuple[str, ...]) -> None:
    """Delete what has expired, for a store that has no lifecycle rules. Run it once a day."""
    from datetime import UTC, datetime

    from conf_profile.erasure import expiry
    from conf_profile.erasure.retention import EXPIRING_PREFIXES, Retention

    with _places(storage, artefacts, EXPIRING_PREFIXES) as places:
        now = datetime.now(UTC)
        swept = [
            {"bucket": place.store.bucket, **asdict(found)}
            for place in places
            for found in expiry.sweep(place.store, [place.prefix], Retention(days), now, dry_run)
        ]
    if as_json:
        return click.echo(json.dumps(swept, indent=2))
    verb = "would delete" if dry_run else "deleted"
    for one in swept:
        click.echo(
            f"s3://{one['bucket']}/{one['prefix']}: {verb} {one['objects']} object(s) of {one['bytes']} bytes and "
            f"{one['unfinished_uploads']} unfinished upload(s)"
        )


@retention.command()
@artefacts_option
@storage_options
def show(storage: Storage, as_json: bool, artefacts: tuple[str, ...]) -> None:
    """Print the lifecycle rules of the bucket, and of the artefacts'."""
    from conf_profile.erasure import expiry
    from conf_profile.erasure.retention import RULED_PREFIXES

    with _places(storage, artefacts, RULED_PREFIXES) as places:
        stores = [some[0].store for some in _group_by_bucket(places)]
        _show_rules([(store.bucket, expiry.rules(store)) for store in stores], as_json)


@contextmanager
def _places(storage: Storage, artefacts: Sequence[str], prefixes: Sequence[str]) -> Iterator[list[Place]]:
    from conf_profile.erasure.store import Place

    with open_bucket(storage) as bucket:
        yield [*(Place(bucket, prefix) for prefix in prefixes), *open_artefacts(artefacts, bucket)]


def _group_by_bucket(places: Sequence[Place]) -> list[list[Place]]:
    found: dict[tuple[str, str], list[Place]] = {}
    for place in places:
        found.setdefault((place.store.endpoint, place.store.bucket), []).append(place)
    return list(found.values())


def _show_rules(found: Sequence[tuple[str, Sequence[Rule]]], as_json: bool) -> None:
    if as_json:
        shown = [{"bucket": bucket, "rules": rules} for bucket, rules in found]
        return click.echo(json.dumps(shown, indent=2, default=str))
    for bucket, rules in found:
        if not rules:
            click.echo(f"s3://{bucket}: no lifecycle rule")
        for rule in rules:
            click.echo(f"s3://{bucket}: {_describe_rule(rule)}")


def _describe_rule(rule: Rule) -> str:
    from conf_profile.erasure.retention import RULE_PREFIX

    name = str(rule.get("ID", "(without a name)"))
    if not name.startswith(RULE_PREFIX):
        return f"{name}: somebody else's, {rule['Status']}"
    days: Any = rule.get("Expiration", {}).get("Days")
    return f"{name}: {rule['Filter']['Prefix']} expires after {days} day(s), {rule['Status']}"
