"""True labels of some users, for the evaluation alone: `labels.parquet`.

They have a column for each attribute of the task, or a row for each user and attribute (`attribute`, `tag`).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from conf_profile import tables
from conf_profile.data import dataset, lexicons
from conf_profile.dialogue import task as tasks
from conf_profile.dialogue.task import Task
from conf_profile.errors import DataError
from conf_profile.ingest import values
from conf_profile.ingest.database import explain_errors, literal, one_row, rows
from conf_profile.ingest.events import Events, write_ids
from conf_profile.ingest.plan import LabelSource
from conf_profile.ingest.report import Report
from conf_profile.ingest.scan import Agreement, Layout, Role, Scan, make_scans, read_layout
from conf_profile.ingest.sources import fetch_files, find_files, portions
from conf_profile.ingest.users import refuse_broken_ids

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

_TABLE = 'CREATE TABLE labels ("file" VARCHAR, row BIGINT, "user" VARCHAR, attribute VARCHAR, tag VARCHAR)'
_LONG = ("attribute", "tag")


def write(
    connection: DuckDBPyConnection, source: LabelSource, events: Events, folder: Path, work: Path, report: Report
) -> None:
    """Writes `labels.parquet` beside the `task.yaml` that stands in the folder.

    DataError for a tag that the task does not have, two tags of one user's attribute, or users who have no event.
    """
    task = tasks.load(folder / dataset.TASK)
    user = _stage(connection, source, task, work, report)
    _refuse_unknown_tags(connection, task)
    _refuse_contradictions(connection, source, user)
    query = f"SELECT DISTINCT {user} AS user_id, attribute, tag FROM labels ORDER BY user_id, attribute"
    found = connection.sql(query).to_arrow_table().cast(tables.LABELS.schema)
    if not len(found):
        raise DataError(f"{source.place}: no row has a tag; leave --labels out, and the run is unjudged")
    report.labels = len(found)
    report.labelled_users, matched, example = one_row(
        connection,
        "WITH labelled AS (SELECT DISTINCT " + user + " AS id FROM labels), "
        f"acting AS (SELECT DISTINCT {events.user} AS id FROM events WHERE {events.usable}) "
        "SELECT count(*), count(acting.id), min(labelled.id) FROM labelled LEFT JOIN acting USING (id)",
    )
    if not matched:
        raise DataError(
            f"{source.place}: none of its {report.labelled_users:,} users has an event; its ids look like {example!r}: "
            "name the right column with --labels-id"
        )
    if matched < report.labelled_users:
        report.warnings.append(
            f"{report.labelled_users - matched:,} of {report.labelled_users:,} users in {source.place} have no event"
        )
    tables.write(folder / dataset.LABELS, found, tables.LABELS)


def _stage(connection: DuckDBPyConnection, source: LabelSource, task: Task, work: Path, report: Report) -> str:
    """Reads the table `labels`; SQL of an id in it as it is written."""
    connection.execute(_TABLE)
    agreement: Agreement | None = None
    pointed: list[str] = []
    attributes: Sequence[str] = ()
    found = find_files(source.place)
    for portion in portions(found.files):
        with fetch_files(portion, work) as paths:
            layouts = [
                read_layout(connection, file, path, [source.user]) for file, path in zip(portion, paths, strict=True)
            ]
            if agreement is None:
                attributes = _attribute_columns(layouts[0], task, portion[0].name)
                _warn_of_missing(layouts[0], task, attributes, portion[0].name, source, report)
                roles: dict[str, Role] = {source.user: "user", **dict.fromkeys(attributes or _LONG, "tag")}
                agreement = Agreement(source.place, roles)
            for file, layout in zip(portion, layouts, strict=True):
                agreement.check(file, layout)
                pointed += [file.name] if layout.columns[source.user] == "decimal" else []
            for scan in make_scans(portion, paths, layouts, list(agreement.roles)):
                refuse_broken_ids(connection, scan, source.user)
                with explain_errors(scan.names):
                    _insert(connection, source, scan, attributes)
    report.files += len(found.files)
    of_pointed = f'"file" IN ({", ".join(map(literal, pointed)) or "NULL"})'
    return write_ids(connection, "labels", "true", of_pointed, report, source.place)


def _attribute_columns(layout: Layout, task: Task, name: str) -> list[str]:
    """The attributes that have a column of their own; none where rows name attribute and tag."""
    attributes = [attribute for attribute in task.names if attribute in layout.columns]
    if not attributes and not set(_LONG) <= set(layout.columns):
        raise DataError(
            f"{name}: has {', '.join(layout.columns)}; expected a column for each attribute of the task "
            f"({', '.join(task.names)}), or the columns {' and '.join(_LONG)}"
        )
    return attributes


def _warn_of_missing(
    layout: Layout, task: Task, attributes: Sequence[str], name: str, source: LabelSource, report: Report
) -> None:
    """A column with a slip in its name would be overlooked."""
    missing = [attribute for attribute in task.names if attribute not in attributes]
    if attributes and missing:
        others = [column for column in layout.columns if column not in (*attributes, source.user)]
        report.warnings.append(
            f"{name}: no column is called {' or '.join(missing)}, so there are no labels of it; other columns there: "
            f"{', '.join(others) or 'none'}"
        )


def _insert(connection: DuckDBPyConnection, source: LabelSource, scan: Scan, attributes: Sequence[str]) -> None:
    """Adds the filled cells of users; a row without an id says nothing about anybody."""
    user = values.user_id(scan.column(source.user), scan.layout.columns[source.user])
    pairs = [(literal(name), scan.column(name)) for name in attributes]
    pairs = pairs or [(scan.column("attribute"), scan.column("tag"))]
    for attribute, tag in pairs:
        text = f"trim(CAST({tag} AS VARCHAR))"
        connection.execute(
            f"INSERT INTO labels SELECT * FROM (SELECT {scan.file_name()}, row_number() OVER (PARTITION BY filename) "
            f'- 1, {user} AS "user", {attribute}, {text} AS tag FROM {scan.source()}) '
            f'WHERE "user" IS NOT NULL AND NOT regexp_full_match(tag, {literal(values.BLANK)})'
        )


def _refuse_unknown_tags(connection: DuckDBPyConnection, task: Task) -> None:
    """The first place of each pair is kept: a spelling that is wrong once is easily overlooked."""
    found = rows(
        connection,
        'SELECT attribute, tag, arg_min("file", ("file", row)), arg_min(row, ("file", row)), count(*) FROM labels '
        "GROUP BY 1, 2 ORDER BY 5 DESC, 1, 2",
    )
    for attribute, tag, file, row, count in found:
        more = f" and {count - 1:,} more" if count > 1 else ""
        lexicons.check_tag(attribute, tag, task, f"{file}: row {row}{more}")


def _refuse_contradictions(connection: DuckDBPyConnection, source: LabelSource, user: str) -> None:
    found = rows(
        connection,
        f"SELECT {user} AS id, attribute, min(tag), max(tag) FROM labels GROUP BY 1, 2 HAVING min(tag) <> max(tag) "
        "ORDER BY 1, 2 LIMIT 1",
    )
    if found:
        user_id, attribute, one, other = found[0]
        raise DataError(
            f"{source.place}: user {user_id!r} has the tags {one!r} and {other!r} of {attribute}; keep the true one"
        )
