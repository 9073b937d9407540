"""`python -m feature_repo.materialise`: the definitions into Feast's registry, new rows into the online store.

For a schedule: each call goes on where the last one that succeeded has ended. CONF_PROFILE_BEHAVIOUR and
CONF_PROFILE_DEMOGRAPHICS name the tables, files or s3:// URIs. Feast's own `materialize-incremental` begins a year ago
when it has never run, and misses rows that arrive after their time.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import fsspec
import pyarrow.dataset as ds
from feast import FeatureStore

from conf_profile import tables
from conf_profile.data.exact import find_differences
from conf_profile.errors import DataError
from feature_repo import jobs
from feature_repo import store as feature_store
from feature_repo.definitions import TASK_VARIABLE, declared_features

TABLES = ("CONF_PROFILE_BEHAVIOUR", "CONF_PROFILE_DEMOGRAPHICS")


@dataclass(frozen=True)
class Interval:
    """What one view's materialisation covers."""

    view: str
    start: datetime
    end: datetime


def register(store: FeatureStore, environment: Mapping[str, str] = os.environ) -> None:
    """Puts the definitions into the registry; doing so again changes nothing. DataError where a table has no name.

    CONF_PROFILE_TASK names the task whose features they are; without it they are the default ones.
    """
    missing = [name for name in TABLES if not environment.get(name)]
    if missing:
        raise DataError(
            f"{', '.join(missing)}: not set; name the Parquet file, e.g. s3://BUCKET/tables/behaviour.parquet"
        )
    behaviour, demographics = (environment[name] for name in TABLES)
    features = declared_features(environment.get(TASK_VARIABLE, ""))
    feature_store.register(store, behaviour, demographics, features)


def plan(store: FeatureStore, now: datetime, late: timedelta, full: bool = False) -> list[Interval]:
    """For each view from the last end, less the time by which rows may be late, until now; from the beginning where
    there was none yet, or if `full`."""
    intervals = []
    for view in feature_store.MATERIALISED_VIEWS:
        before = None if full else feature_store.read_materialised_until(store, view)
        intervals.append(Interval(view, before - late if before else feature_store.EPOCH, now))
    return intervals


def run(store: FeatureStore, intervals: Sequence[Interval]) -> None:
    """Brings them online. A call that was killed is repeated by the next one: only a finished view is recorded."""
    for interval in intervals:
        feature_store.materialise_view(store, interval.view, interval.start, interval.end)
        print(f"{interval.view}: rows from {interval.start:%Y-%m-%d %H:%M} to {interval.end:%Y-%m-%d %H:%M} are online")


def refuse_inexact_tables(environment: Mapping[str, str] = os.environ) -> None:
    """DataError for a table that Feast would not read as it is meant: it casts nothing, and finds no text "7" among
    numbers."""
    features = declared_features(environment.get(TASK_VARIABLE, ""))
    for name, make_table in zip(TABLES, (tables.behaviour_table, tables.demographics_table), strict=True):
        files, path = fsspec.core.url_to_fs(environment[name])
        differences = find_differences(
            ds.dataset(path, filesystem=files, format="parquet").schema, make_table(features)
        )
        if differences:
            raise DataError(
                f"{environment[name]}: {'; '.join(differences)}; write it in the exact form with `conf-profile data "
                "--dataset parquet --data FOLDER --out EXACT`, and put that one there"
            )


def main(given: Sequence[str] | None = None) -> None:
    """The program; status 2 and one line for what a user can put right."""
    parser = argparse.ArgumentParser(prog="python -m feature_repo.materialise")
    parser.add_argument("--repository", type=Path, default=jobs.REPOSITORY, help="folder with feature_store.yaml")
    parser.add_argument("--register-only", action="store_true", help="the definitions, and no rows")
    parser.add_argument("--late-hours", type=float, default=24.0, help="rows may arrive so long after their time")
    parser.add_argument("--full", action="store_true", help="read everything, not only what is new")
    options = parser.parse_args(given)
    jobs.run_job("materialise", lambda: _materialise(options))


def _materialise(options: argparse.Namespace) -> None:
    with jobs.repository(options.repository) as store:
        register(store)
        if options.register_only:
            print(f"{store.project}: the definitions are in the registry")
            return
        refuse_inexact_tables()
        run(store, plan(store, datetime.now(UTC), timedelta(hours=options.late_hours), options.full))


if __name__ == "__main__":
    main()
