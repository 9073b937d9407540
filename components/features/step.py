"""Step 1: what is known of each user at one moment, read point-in-time through Feast, and the split of users.

People without consent are left out first: nothing but their consent is read, and the report counts them. The
latest consent at that moment decides, and somebody without demographics never gave any. True labels do not
reach this step.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from conf_profile import tables
from conf_profile.config import FeaturesConfig
from conf_profile.data import splits
from conf_profile.data.dataset import parse_time
from conf_profile.data.exact import exact_table
from conf_profile.dialogue import task as tasks
from conf_profile.errors import DataError
from conf_profile.features import FeatureSchema
from conf_profile.files import write_text

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class FeaturesReport:
    """Counts of users. `users`: those with consent; `without_history`: those of them without a keyphrase."""

    users: int
    dropped_without_consent: int
    without_history: int
    splits: dict[str, int]
    as_of: str


def run(
    behaviour: Path,
    demographics: Path,
    task_file: Path,
    features: Path,
    report: Path,
    workspace: Path,
    as_of: str,
    config: FeaturesConfig,
) -> FeaturesReport:
    """Writes the table `features` (`tables.features_table`) with the task's features, and the report (JSON).

    `as_of` is an ISO time with a zone, or empty for the time of the newest row; `workspace` receives Feast's registry,
    and a copy of a table that is not in the exact form.
    Raises DataError where nobody is left, or a table breaks its schema.
    """
    # Feast imports torch where it is installed, which takes as long as all of this step, and needs it for nothing here.
    with _hide_module("torch"):
        from feature_repo import store as feature_store

    declared = tasks.load(task_file).features
    behaviour = exact_table(behaviour, tables.behaviour_table(declared), workspace / "tables")
    demographics = exact_table(demographics, tables.demographics_table(declared), workspace / "tables")
    moment = parse_time(as_of, "as_of") if as_of else find_newest_time(behaviour, demographics)
    everybody = known_users(behaviour, demographics)
    store = feature_store.open_store(workspace, behaviour, demographics, config, declared)
    consenting = feature_store.consenting_users(store, everybody, moment)
    if not consenting:
        raise DataError(
            f"{demographics}: none of {len(everybody)} users had given consent by {moment.isoformat()}; "
            "nobody may be profiled: check the column 'consent' and features.as_of"
        )
    table = to_features(feature_store.training_features(store, consenting, moment), declared, config)
    tables.write(features, table, tables.features_table(declared))
    result = summarise(table, len(everybody) - len(consenting), moment)
    write_text(report, json.dumps(asdict(result), indent=2) + "\n")
    logger.info("features: %s", result)
    return result


@contextmanager
def _hide_module(module: str) -> Iterator[None]:
    """Hides a module that is not loaded yet from whoever imports it if it can."""
    hidden = module not in sys.modules
    if hidden:
        sys.modules[module] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        if hidden:
            del sys.modules[module]


def known_users(behaviour: Path, demographics: Path) -> list[str]:
    """The ids of everybody in either table, sorted: the entity frame. Nothing else is read past Feast."""
    return sorted({user_id for path in (behaviour, demographics) for user_id in _user_ids(path)})


def find_newest_time(behaviour: Path, demographics: Path) -> datetime:
    """The time of the newest row of both tables, which is what a scheduled run goes by."""
    latest = [pc.max(_column(path, "event_timestamp")).as_py() for path in (behaviour, demographics)]
    found = [parse_time(moment, f"{behaviour}: event_timestamp") for moment in latest if moment is not None]
    if not found:
        raise DataError(f"{behaviour}: neither it nor {demographics} has a row; nobody can be profiled")
    return max(found)


def to_features(known: pa.Table, declared: FeatureSchema, config: FeaturesConfig) -> pa.Table:
    """From what Feast knows to the table `features`: adds the split, turns a missing history into empty lists."""
    columns = {name: known.column(name) for name in known.column_names}
    for name in declared.lists:
        columns[name] = pc.coalesce(columns[name], pa.scalar([], pa.list_(pa.string())))
    columns["split"] = pa.array(splits.split_of(known.column("user_id").to_pylist(), config))
    return pa.table({field.name: columns[field.name] for field in tables.features_table(declared).schema})


def summarise(features: pa.Table, dropped: int, moment: datetime) -> FeaturesReport:
    """The counts of the report."""
    lists = (features.column(name) for name in tables.list_names(features))
    keyphrases = np.sum([pc.list_value_length(column).to_numpy() for column in lists], axis=0)
    return FeaturesReport(
        users=len(features),
        dropped_without_consent=dropped,
        without_history=int((keyphrases == 0).sum()),
        splits=splits.count(features.column("split").to_numpy()),
        as_of=moment.isoformat(),
    )


def _user_ids(path: Path) -> list[str]:
    users: list[str] = pc.unique(_column(path, "user_id")).to_pylist()
    return users


def _column(path: Path, name: str) -> pa.ChunkedArray:
    try:
        return pq.read_table(path, columns=[name]).column(name)
    except (OSError, KeyError, pa.ArrowInvalid) as error:
        raise DataError(f"{path}: the column {name!r} cannot be read: {error}") from error
