"""What users said of themselves, and who has consented: the rows of `demographics`.

Which columns become features without being named: those whose values many users share. A column in which nearly every
user has another value is an e-mail address, a telephone number or a free text: it goes into prompts only if it is
named.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from conf_profile.errors import DataError
from conf_profile.features import FeatureType
from conf_profile.ingest import values
from conf_profile.ingest.database import explain_errors, identifier, literal, one_row, rows
from conf_profile.ingest.events import Events, write_ids
from conf_profile.ingest.plan import Plan, UserSource
from conf_profile.ingest.report import Report
from conf_profile.ingest.scan import Agreement, Layout, Role, Scan, make_scans, read_layout
from conf_profile.ingest.sources import fetch_files, find_files, portions
from conf_profile.ingest.values import ColumnKind

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

MAX_CATEGORIES = 100
LARGEST_SHARED_NUMBER = 10_000
"""Whole numbers below it, such as ages and years, are no ids, even if few users share one."""
MIN_MATCHED = 0.5
_SPELLINGS = (
    ("another .0", r"regexp_replace({id}, '^([0-9]+)\.0+$', '\1')"),
    ("other zeros before it", "regexp_replace({id}, '^0+([0-9])', '\\1')"),
    ("other capital letters", "lower({id})"),
)
"""How programs change ids, and SQL of what remains of an id."""
_TRUTHS = ("true", "false", "yes", "no", "t", "f", "y", "n")


@dataclass(frozen=True)
class UserField:
    """A column of the users' table that becomes a feature."""

    column: str
    type: FeatureType
    values: int


@dataclass(frozen=True)
class Users:
    """The table `users`, SQL of an id in it as it is written, and the fields that become features."""

    user: str
    fields: Sequence[UserField]


def stage(connection: DuckDBPyConnection, plan: Plan, source: UserSource, work: Path, report: Report) -> Users:
    """Reads the users' table. DataError with place and remedy for what cannot be used."""
    columns: dict[str, ColumnKind] = {}
    agreement: Agreement | None = None
    pointed: list[str] = []
    found = find_files(source.place)
    for portion in portions(found.files):
        with fetch_files(portion, work) as paths:
            layouts = [
                read_layout(connection, f, p, _wanted_columns(source)) for f, p in zip(portion, paths, strict=True)
            ]
            if agreement is None:
                columns = _field_columns(source, layouts[0], portion[0].name)
                agreement = Agreement(source.place, _roles(source, columns))
                _create_table(connection, list(columns))
            for file, layout in zip(portion, layouts, strict=True):
                agreement.check(file, layout)
                pointed += [file.name] if layout.columns[source.user] == "decimal" else []
            for scan in make_scans(portion, paths, layouts, list(agreement.roles)):
                with explain_errors(scan.names):
                    _insert(connection, plan, source, scan, list(columns))
    report.files += len(found.files)
    _drop_unusable(connection, plan, source, report)
    of_pointed = f'"file" IN ({", ".join(map(literal, pointed)) or "NULL"})'
    user = write_ids(connection, "users", "true", of_pointed, report, source.place)
    _refuse_contradictions(connection, source, user)
    fields = (_field(connection, source, name, kind, report) for name, kind in columns.items())
    return Users(user, [field for field in fields if field])


def match(connection: DuckDBPyConnection, events: Events, users: Users, source: UserSource, report: Report) -> None:
    """Compares the users of both. DataError where nobody is in both, or one of them spells ids otherwise."""
    connection.execute(f"CREATE TABLE acting AS SELECT DISTINCT {events.user} AS id FROM events WHERE {events.usable}")
    connection.execute(f"CREATE TABLE known AS SELECT DISTINCT {users.user} AS id FROM users")
    for difference, same in _SPELLINGS:
        _refuse_other_spelling(connection, source, difference, same)
    acting, known, both = one_row(
        connection,
        "SELECT (SELECT count(*) FROM acting), (SELECT count(*) FROM known), "
        "(SELECT count(*) FROM acting SEMI JOIN known USING (id))",
    )
    report.users_known, report.users_in_both = known, both
    if not both:
        examples = [
            one_row(connection, f"SELECT coalesce(min(id), '') FROM {table}")[0] for table in ("acting", "known")
        ]
        raise DataError(
            f"{source.place}: none of its {known:,} users has an event, and nobody with events is there: ids of events "
            f"look like {examples[0]!r}, ids there like {examples[1]!r}; name the right column with --users-id"
        )
    if both < MIN_MATCHED * acting:
        report.warnings.append(f"{acting - both:,} of {acting:,} users with events are not in {source.place}")


def _refuse_other_spelling(connection: DuckDBPyConnection, source: UserSource, difference: str, same: str) -> None:
    """DataError where ids of users are ids of events, spelt otherwise, and no table needs the difference itself."""
    one, other = same.format(id="acting.id"), same.format(id="known.id")
    found = rows(
        connection,
        "SELECT acting.id, known.id FROM (FROM acting ANTI JOIN known USING (id)) AS acting JOIN (FROM known ANTI JOIN "
        f"acting USING (id)) AS known ON {one} = {other} ORDER BY 1 LIMIT 1",
    )
    if not found:
        return
    is_needed = one_row(
        connection,
        " SELECT " + " OR ".join(f"(SELECT count(DISTINCT {same.format(id='id')}) < count(*) FROM {table})"
                                 for table in ("acting", "known")),
    )[0]  # fmt: skip
    if not is_needed:
        raise DataError(
            f"{source.place}: user {found[0][1]!r} is {found[0][0]!r} in the events, with {difference}; write ids "
            "alike in both, as texts or integers"
        )


def select_demographics(plan: Plan, events: Events, users: Users | None, names: dict[str, str]) -> str:
    """SQL of `demographics`; `names` gives columns the names of their features.

    Without a time of their own, rows count as known from the log's first event on.
    """
    fields = users.fields if users else []
    columns = "".join(f", {_field_value(field)} AS {identifier(names[field.column])}" for field in fields)
    nothing = "".join(f", NULL AS {identifier(names[field.column])}" for field in fields)
    start = f"(SELECT min(moment) FROM events WHERE {events.usable})"
    parts = []
    if users is not None:
        agreed = "true" if plan.consent_for_all else "consent"
        parts.append(f"SELECT DISTINCT {users.user} AS user_id, coalesce(moment, {start}) AS event_timestamp{columns}, "
                     f"{agreed} AS consent FROM users")  # fmt: skip
    if plan.consent_for_all:
        others = f" AND {events.user} NOT IN (SELECT {users.user} FROM users)" if users is not None else ""
        parts.append(f"SELECT DISTINCT {events.user} AS user_id, {start} AS event_timestamp{nothing}, true AS consent "
                     f"FROM events WHERE {events.usable}{others}")  # fmt: skip
    return f"SELECT * FROM ({' UNION ALL '.join(parts)}) ORDER BY user_id, event_timestamp"


def _wanted_columns(source: UserSource) -> list[str]:
    given = (source.user, source.time, source.consent, *(source.fields or ()))
    return [name for name in given if name is not None]


def _field_columns(source: UserSource, layout: Layout, name: str) -> dict[str, ColumnKind]:
    if source.fields is None:
        taken = {source.user, source.time, source.consent}
        return {column: kind for column, kind in layout.columns.items() if column not in taken}
    for column in source.fields:
        if layout.columns.get(column) in ("texts", "other"):
            raise DataError(
                f"{name}: the column {column!r} has the type {layout.types[column]}; a field is a text or a number: "
                "make events of it, or leave it out"
            )
    return {column: layout.columns.get(column, "untyped") for column in source.fields}


def _roles(source: UserSource, columns: dict[str, ColumnKind]) -> dict[str, Role]:
    roles: dict[str, Role] = {source.user: "user", **dict.fromkeys(columns, "field")}
    if source.time:
        roles[source.time] = "time"
    if source.consent:
        roles[source.consent] = "field"
    return roles


def _create_table(connection: DuckDBPyConnection, fields: Sequence[str]) -> None:
    columns = "".join(f", {_column(field)} VARCHAR" for field in fields)
    connection.execute(
        'CREATE TABLE users ("file" VARCHAR, row BIGINT, "user" VARCHAR, moment TIMESTAMP, consent BOOLEAN, '
        f"consent_cell VARCHAR{columns})"
    )


def _column(field: str) -> str:
    """No column of the user's can have the name of one of ours."""
    return identifier(f"field {field}")


def _insert(connection: DuckDBPyConnection, plan: Plan, source: UserSource, scan: Scan, fields: Sequence[str]) -> None:
    kinds = scan.layout.columns
    refuse_broken_ids(connection, scan, source.user)
    moment = (
        values.moment(scan.column(source.time), kinds[source.time], plan.time_format).value if source.time else "NULL"
    )
    agreed = scan.column(source.consent) if source.consent else "NULL"
    cells = "".join(f", {_cell(scan.column(field), kinds[field])}" for field in fields)
    connection.execute(
        f"INSERT INTO users SELECT {scan.file_name()}, row_number() OVER (PARTITION BY filename) - 1, "
        f"{values.user_id(scan.column(source.user), kinds[source.user])}, {moment}, {values.consent(agreed)}, "
        f"CAST({agreed} AS VARCHAR){cells} FROM {scan.source()}"
    )


def refuse_broken_ids(connection: DuckDBPyConnection, scan: Scan, user: str) -> None:
    """DataError for a number such as 7.5, which is nobody's id, and one from 2^53 on, which is several people's."""
    if scan.layout.columns[user] != "decimal":
        return
    column = scan.column(user)
    with explain_errors(scan.names):
        found = rows(
            connection,
            f"SELECT {scan.file_name()}, {column} FROM {scan.source()} WHERE {values.broken_id(column)} LIMIT 1",
        )
    if found:
        raise DataError(f"{found[0][0]}: the column {user!r} has the number {found[0][1]}, which is no whole number, "
                        "or too large to be exact; write ids as texts or as integers")  # fmt: skip


def _cell(column: str, kind: ColumnKind) -> str:
    """Any cell as a text, null where it is blank, NaN or a list."""
    if kind in ("texts", "other"):
        return "NULL"
    if kind == "decimal":
        return f"CASE WHEN isfinite(CAST({column} AS DOUBLE)) THEN CAST({column} AS VARCHAR) END"
    if kind in ("zoned", "zoneless"):
        return f"strftime({column}, '%Y-%m-%d %H:%M')"
    text = f"CAST({column} AS VARCHAR)"
    return f"CASE WHEN NOT regexp_full_match({text}, {literal(values.BLANK)}) THEN {text} END"


def _drop_unusable(connection: DuckDBPyConnection, plan: Plan, source: UserSource, report: Report) -> None:
    where = "name the right column, or put it right"
    total, no_id, no_time = one_row(
        connection,
        'SELECT count(*), count(*) FILTER ("user" IS NULL), count(*) FILTER ("user" IS NOT NULL AND moment IS NULL) '
        "FROM users",
    )
    if source.consent is not None:
        broken = rows(connection, 'SELECT "file", row FROM users WHERE consent IS NULL ORDER BY 1, 2 LIMIT 1')
        if broken:
            file, row = broken[0]
            raise DataError(
                f"{file}: row {row}: the column {source.consent!r} says neither yes nor no; write true or false, or "
                "name another column with --consent"
            )
        (blank,) = one_row(connection, "SELECT coalesce(count_if(trim(coalesce(consent_cell, '')) = ''), 0) FROM users")
        report.change("blank cells of consent, taken as no", blank)
    condition = '"user" IS NULL' + (" OR moment IS NULL" if source.time else "")
    first = rows(connection, f'SELECT "file", row FROM users WHERE {condition} ORDER BY 1, 2 LIMIT 1')
    place = f"{first[0][0]}: row {first[0][1]}" if first else ""
    lost = no_id + (no_time if source.time else 0)
    report.drop("users without an id" + (", or without a time that can be read" if source.time else ""), lost, place)
    if not total or lost > plan.max_dropped * total:
        raise DataError(
            f"{source.place}: {lost:,} of {total:,} rows have no id{' or no time' if source.time else ''}, the first "
            f"is {place or 'none: there are no rows'}; {where} (or --max-dropped)"
        )
    connection.execute(f"DELETE FROM users WHERE {condition}")
    later = f"moment > {values.timestamp(plan.as_of or datetime.now(UTC))}"
    (count,) = one_row(connection, f"SELECT count(*) FROM users WHERE {later}")
    if count + lost == total:
        raise DataError(f"{source.place}: all {count:,} rows are in the future; correct the column of --users-time")
    report.drop("rows of users in the future", count)
    connection.execute(f"DELETE FROM users WHERE {later}")


def _refuse_contradictions(connection: DuckDBPyConnection, source: UserSource, user: str) -> None:
    """Two rows of one user and moment that say different things."""
    found = rows(
        connection,
        f'SELECT id, count(*) FROM (SELECT DISTINCT {user} AS id, * EXCLUDE ("file", row, "user", consent_cell) '
        "FROM users) GROUP BY id, moment HAVING count(*) > 1 ORDER BY 1 LIMIT 1",
    )
    if found:
        remedy = "" if source.time else "; name the column with the time of each row with --users-time, or"
        raise DataError(f"{source.place}: user {found[0][0]!r} has {found[0][1]} different rows{remedy} keep one row")


def _field(
    connection: DuckDBPyConnection, source: UserSource, name: str, kind: ColumnKind, report: Report
) -> UserField | None:
    column = _column(name)
    number = f"TRY_CAST({column} AS DOUBLE)"
    is_truth = f"lower({column}) IN ({', '.join(map(literal, _TRUTHS))})"
    filled, different, numbers, zeros, fractions, largest, truths = one_row(
        connection,
        f"SELECT count({column}), count(DISTINCT {column}), count_if(isfinite({number})), "
        f"count_if(regexp_matches({column}, '^[+-]?0[0-9]')), count_if({number} <> floor({number})), "
        f"coalesce(max(abs({number})), 0), count_if({is_truth}) FROM users",
    )
    is_number = kind in ("whole", "decimal") or (kind == "untyped" and filled and numbers == filled and not zeros)
    few = different * 2 <= filled or truths == filled
    shared = few or (is_number and (fractions > 0 or largest < LARGEST_SHARED_NUMBER))
    if source.fields is None and not (filled and shared):
        why = "nearly every user has another value" if filled else "it is empty, or holds lists"
        report.warnings.append(
            f"{source.place}: the column {name!r} is left out: {why}; name it with --field to use it"
        )
        return None
    if is_number:
        return UserField(name, "number", filled)
    return UserField(name, "category" if few and different <= MAX_CATEGORIES else "text", filled)


def _field_value(field: UserField) -> str:
    column = _column(field.column)
    return f"TRY_CAST({column} AS DOUBLE)" if field.type == "number" else column
