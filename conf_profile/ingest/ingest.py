"""From event logs to a data set's folder: `behaviour.parquet`, `demographics.parquet`, `task.yaml`, `ingest.json`, and
`labels.parquet` where true labels are given.

The folder appears when everything is in it. DuckDB reads and sorts, with bounded memory and its temporary files in the
folder to come; lists are built from the sorted rows batch by batch.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

from conf_profile import tables
from conf_profile.data import dataset
from conf_profile.errors import DataError
from conf_profile.files import atomic_folder, leftovers
from conf_profile.ingest import events as event_tables
from conf_profile.ingest import labels as label_tables
from conf_profile.ingest import users as user_tables
from conf_profile.ingest.database import explain_errors, literal, one_row, open_database
from conf_profile.ingest.events import Events
from conf_profile.ingest.features import FoundFeature, TaskFile, check_names, name_features, read_task, write_task
from conf_profile.ingest.plan import Plan
from conf_profile.ingest.report import Report
from conf_profile.ingest.snapshots import SnapshotBuilder
from conf_profile.ingest.users import Users
from conf_profile.tables import TableSchema

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

BATCH_ROWS = 100_000
_WORK = ".work"
_LOCK = "writer.lock"
_UNIQUE = ("user_id", "event_timestamp")


def ingest(plan: Plan) -> Report:
    """Builds the data set and says what it read, left out and changed. DataError with place and remedy."""
    from filelock import FileLock

    _refuse_filled_folder(plan.out)
    _remove_leftovers(plan.out)
    task, report, began = read_task(plan.task), Report(), time.monotonic()
    try:
        with atomic_folder(plan.out) as folder:
            (folder / _WORK).mkdir()
            with FileLock(folder / _WORK / _LOCK), open_database(folder / _WORK, plan.memory) as connection:
                _build(connection, plan, task, folder, report)
            shutil.rmtree(folder / _WORK)
            report.seconds = round(time.monotonic() - began, 1)
            report.write(folder)
    except OSError as error:
        place = error.filename if isinstance(error.filename, str) else plan.out
        raise DataError(
            f"{place}: cannot be read or written: {error.strerror or error}; put that right, or name another --out"
        ) from error
    return report


def _build(connection: DuckDBPyConnection, plan: Plan, task: TaskFile, folder: Path, report: Report) -> None:
    if plan.labels is not None and not task.attributes:
        raise DataError(f"{task.path}: has no attributes; write those that {plan.labels.place} has tags of")
    events = event_tables.stage(connection, plan, folder / _WORK, report)
    users = None
    if plan.users is not None:
        users = user_tables.stage(connection, plan, plan.users, folder / _WORK, report)
        user_tables.match(connection, events, users, plan.users, report)
    lists, scalars = _name(plan, task, events, users)
    _write_behaviour(connection, plan, events, lists, folder, report)
    _write_demographics(connection, plan, events, users, scalars, folder, report)
    write_task(folder / dataset.TASK, [*lists, *scalars], task)
    if plan.labels is not None:
        label_tables.write(connection, plan.labels, events, folder, folder / _WORK, report)
    _describe(connection, events, users, [*lists, *scalars], report)


def _refuse_filled_folder(out: Path) -> None:
    if out.is_dir():
        if any(out.iterdir()):
            raise DataError(f"{out}: is not empty; name a new folder with --out, or delete this one first")
    elif out.exists():
        raise DataError(f"{out}: is a file; name a new folder with --out")


def _remove_leftovers(out: Path) -> None:
    """Deletes what killed ingestions have left beside `out`, up to the size of their logs; a living one has a lock."""
    from filelock import FileLock, Timeout

    for folder in leftovers(out.parent, out.name):
        with suppress(Timeout), FileLock(folder / _WORK / _LOCK, timeout=0):
            shutil.rmtree(folder)


def _name(
    plan: Plan, task: TaskFile, events: Events, users: Users | None
) -> tuple[list[FoundFeature], list[FoundFeature]]:
    fields = users.fields if users else []
    words = {*events.kinds, *(field.column for field in fields)}
    unknown = [word for word in plan.names if word not in words]
    if unknown:
        raise DataError(
            f"--name {unknown[0]!r}: no event is of this kind, and no field is called so; there are "
            f"{', '.join(sorted(words)[:30])}"
        )
    lists = name_features([(kind, "list") for kind in events.kinds], plan.names, task, "kind")
    scalars = name_features([(field.column, field.type) for field in fields], plan.names, task, "field")
    if not lists:
        raise DataError("every kind of event is left out by --name; at least one list is needed")
    check_names([*lists, *scalars], plan.names, task)
    return lists, scalars


def _write_behaviour(
    connection: DuckDBPyConnection, plan: Plan, events: Events, found: Sequence[FoundFeature], folder: Path,
    report: Report,
) -> None:  # fmt: skip
    names = list(dict.fromkeys(feature.name for feature in found))
    numbers = ", ".join(f"({literal(feature.word)}, {names.index(feature.name)})" for feature in found)
    # Rows of one moment stay in the order of the files.
    query = (
        f'SELECT {events.user} AS "user", moment, number AS kind, "text" FROM events '
        f"JOIN (VALUES {numbers}) AS words(word, number) ON kind = word WHERE {events.usable} "
        'ORDER BY 1, 2, events."file", events.rowid'
    )
    builder = SnapshotBuilder(names, plan.snapshot, plan.keyphrases)
    table = TableSchema("behaviour", builder.schema, unique=_UNIQUE)
    with tables.writer(folder / dataset.BEHAVIOUR, table) as out, explain_errors():
        for batch in connection.sql(query).to_arrow_reader(BATCH_ROWS):
            for snapshots in builder.add(batch):
                _append(out, snapshots, report)
        for snapshots in builder.finish():
            _append(out, snapshots, report)
    report.drop(f"texts older than the {plan.keyphrases} most recent of their list", builder.left_out)


def _append(out: pa.parquet.ParquetWriter, snapshots: pa.Table, report: Report) -> None:
    out.write_table(snapshots)
    report.snapshots += len(snapshots)
    report.texts_written += sum(len(chunk.values) for column in snapshots.columns[2:] for chunk in column.chunks)


def _write_demographics(
    connection: DuckDBPyConnection, plan: Plan, events: Events, users: Users | None, found: Sequence[FoundFeature],
    folder: Path, report: Report,
) -> None:  # fmt: skip
    names = {feature.word: feature.name for feature in found}
    kept = Users(users.user, [field for field in users.fields if field.column in names]) if users else None
    fields = [
        pa.field("user_id", pa.string(), nullable=False),
        pa.field("event_timestamp", pa.timestamp("us", tz="UTC"), nullable=False),
        *(pa.field(f.name, pa.float64() if f.type == "number" else pa.string()) for f in found),
        pa.field("consent", pa.bool_(), nullable=False),
    ]
    table = TableSchema("demographics", pa.schema(fields), unique=_UNIQUE)
    path = folder / dataset.DEMOGRAPHICS
    with tables.writer(path, table) as out, explain_errors():
        query = user_tables.select_demographics(plan, events, kept, names)
        for batch in connection.sql(query).to_arrow_reader(BATCH_ROWS):
            out.write_table(tables.check(pa.Table.from_batches([_in_utc(batch)]), table, str(path)))
    (report.users_with_consent,) = one_row(
        connection,
        "SELECT count_if(agreed) FROM (SELECT arg_max(consent, event_timestamp) AS agreed FROM "
        f"read_parquet({literal(str(path))}) GROUP BY user_id)",
    )
    if not report.users_with_consent:
        report.warnings.append("nobody has consented: a run would refuse these tables")


def _in_utc(batch: pa.RecordBatch) -> pa.RecordBatch:
    place = batch.schema.get_field_index("event_timestamp")
    moments = batch.column(place).cast(pa.timestamp("us", tz="UTC"))
    return batch.set_column(place, "event_timestamp", moments)


def _describe(
    connection: DuckDBPyConnection, events: Events, users: Users | None, found: Sequence[FoundFeature], report: Report
) -> None:
    filled = dict(events.kinds) | {field.column: field.values for field in (users.fields if users else [])}
    for feature in found:
        entry = report.features.setdefault(feature.name, {"type": feature.type, "from": [], "values": 0})
        entry["from"].append(feature.word)
        entry["values"] += filled[feature.word]
    report.users, first, last = one_row(
        connection,
        f"SELECT count(DISTINCT {events.user}), min(moment), max(moment) FROM events WHERE {events.usable}",
    )
    report.first_event, report.last_event = (
        moment.isoformat(timespec="seconds") + "+00:00" for moment in (first, last)
    )
