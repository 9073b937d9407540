"""Events into one table of a DuckDB database, a row for each text, every cell as what it means.

What cannot be used stays in the table, marked by a null, until it has been counted and its first place found.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from conf_profile.errors import DataError
from conf_profile.ingest import values
from conf_profile.ingest.database import explain_errors, literal, one_row, rows
from conf_profile.ingest.features import MAX_KINDS
from conf_profile.ingest.plan import EventSource, Plan
from conf_profile.ingest.report import Report
from conf_profile.ingest.scan import Agreement, Layout, Role, Scan, make_scans, read_layout
from conf_profile.ingest.sources import SourceFile, fetch_files, find_files, portions

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

_TABLE = """
CREATE TABLE events ("file" UINTEGER, "user" VARCHAR, moment TIMESTAMP, form UTINYINT, kind VARCHAR, "text" VARCHAR,
                     text_form UTINYINT, is_first BOOLEAN)
"""
_UNUSABLE = (
    ("texts without a user id", '"user" IS NULL'),
    ("texts without a time that can be read", "moment IS NULL"),
    ("texts in the future", "moment > {as_of}"),
    ("texts without a kind", "kind IS NULL"),
    ("blank texts", '"text" IS NULL'),
)
"""Why a text is left out, the first reason that holds; the first three count towards the share that is refused."""
_REFUSED_REASONS = 3
MAX_LISTED = 0.01
"""Share of texts in brackets from which on they are no titles but lists that a program wrote as text."""


@dataclass(frozen=True)
class StagedFile:
    """A file whose rows are in the table, under its number."""

    source: EventSource
    file: SourceFile
    layout: Layout


@dataclass(frozen=True)
class Events:
    """The table `events`: its files by number, and SQL of what can be used and of an id as it is written."""

    files: Sequence[StagedFile]
    usable: str
    user: str
    kinds: Mapping[str, int]


def stage(connection: DuckDBPyConnection, plan: Plan, work: Path, report: Report) -> Events:
    """Reads all events and says what they are. DataError with place and remedy for what cannot be used."""
    connection.execute(_TABLE)
    files: list[StagedFile] = []
    seen: set[tuple[object, ...]] = set()
    for source in plan.events:
        found = find_files(source.place)
        for file in found.files:
            read = (file.name, source.texts, source.kind, source.feature)
            if read in seen:
                raise DataError(f"{file.name}: is named twice with the same columns; its events would count twice")
            seen.add(read)
        if found.ignored:
            report.warnings.append(f"{source.place}: {len(found.ignored)} file(s) of other kinds, or empty, not read")
        roles: dict[str, Role] = {source.user: "user", source.time: "time", **dict.fromkeys(source.texts, "text")}
        agreement = Agreement(source.place, roles | ({source.kind: "kind"} if source.kind else {}))
        for portion in portions(found.files):
            with fetch_files(portion, work) as paths:
                files += _stage_files(connection, plan, source, agreement, portion, paths, len(files))
    report.files += len(files)
    report.file_bytes += sum(staged.file.size for staged in files)
    report.rows, report.texts = one_row(connection, "SELECT coalesce(count_if(is_first), 0), count(*) FROM events")
    _refuse_huge_texts(connection, plan, files, work)
    _refuse_mixed_units(connection)
    usable = _count_drops(connection, plan, files, work, report)
    _count_changes(connection, usable, report)
    pointed = [number for number, f in enumerate(files) if f.layout.columns[f.source.user] == "decimal"]
    of_pointed = f'"file" IN ({", ".join(map(str, pointed)) or "NULL"})'
    user = write_ids(connection, "events", usable, of_pointed, report, plan.events[0].place)
    return Events(files, usable, user, _count_kinds(connection, plan, usable))


def write_ids(
    connection: DuckDBPyConnection, table: str, usable: str, of_pointed: str, report: Report, place: str
) -> str:
    """SQL of a table's ids as they are written: without `.0` where each of them is a whole number and some have it.

    `of_pointed` is SQL of rows whose ids were numbers with a point, and are texts without it by now. DataError where
    all are numbers, but not all whole ones.
    """
    pointed, others, from_numbers, texts, fraction = one_row(
        connection,
        f"SELECT coalesce(sum(c) FILTER (regexp_full_match(id, '[0-9]+\\.0+')), 0), "
        f"count_if(NOT regexp_full_match(id, '[0-9]+(\\.0+)?')), coalesce(sum(n), 0), "
        f"count_if(NOT regexp_full_match(id, '[0-9]+(\\.[0-9]+)?')), "
        f"min(id) FILTER (regexp_full_match(id, '[0-9]+\\.[0-9]*[1-9][0-9]*')) FROM (SELECT \"user\" AS id, "
        f"count(*) AS c, count(*) FILTER ({of_pointed}) AS n FROM {table} WHERE {usable} GROUP BY 1)",
    )
    if fraction is not None and not texts:
        raise DataError(
            f"{place}: every id is a number, but {fraction!r} is no whole one; name the right column with --user, or "
            "write ids as integers"
        )
    strips = pointed and not others
    report.change(
        f"ids of {table} written as whole numbers, 1.0 as '1'", int(from_numbers + (pointed if strips else 0))
    )
    if not strips:
        return f'{table}."user"'
    return f"regexp_replace({table}.\"user\", '\\.0+$', '')"


def _stage_files(
    connection: DuckDBPyConnection, plan: Plan, source: EventSource, agreement: Agreement,
    files: Sequence[SourceFile], paths: Sequence[Path], first: int,
) -> list[StagedFile]:  # fmt: skip
    layouts = []
    for file, path in zip(files, paths, strict=True):
        layouts.append(read_layout(connection, file, path, source.columns))
        agreement.check(file, layouts[-1])
    number = first
    for scan in make_scans(files, paths, layouts, source.columns):
        with explain_errors(scan.names):
            _refuse_broken_ids(connection, scan, source.user)
            for text in source.texts:
                connection.execute(f"INSERT INTO events {_select_texts(scan, source, text, plan, number)}")
        number += len(scan.files)
    return [StagedFile(source, file, layout) for file, layout in zip(files, layouts, strict=True)]


def _select_texts(scan: Scan, source: EventSource, text: str, plan: Plan, number: int, with_rows: bool = False) -> str:
    """SQL of the rows of `events`; `with_rows` adds each one's row in its file, which only one thread can count."""
    kinds = scan.layout.columns
    moment = values.moment(scan.column(source.time), kinds[source.time], plan.time_format)
    cells = (
        f'SELECT {scan.file_number(number)} AS "file", {values.user_id(scan.column(source.user), kinds[source.user])} '
        f'AS "user", {moment.value} AS moment, {moment.form} AS form, {_kind(scan, source, text)} AS kind, '
        f"{_cells(scan, text, plan.separator)} AS cells{', row_number() OVER () - 1 AS row' if with_rows else ''} "
        f"FROM {scan.source()}"
    )
    row = ", row" if with_rows else ""
    single = kinds[text] != "texts" and plan.separator is None
    each = (
        "cells AS cell, true AS is_first"
        if single
        else "unnest(cells) AS cell, unnest(range(len(cells))) = 0 AS is_first"
    )
    spread = f'SELECT "file", "user", moment, form, kind{row}, {each} FROM ({cells})'
    formed = f"SELECT *, {values.text_form('cell')} AS text_form FROM ({spread})"
    is_first = "is_first" if text == source.texts[0] else "false"
    return (
        f'SELECT "file", "user", moment, CASE WHEN moment IS NULL THEN {values.UNREADABLE} ELSE form END AS form, '
        f'kind, {values.keyphrase("cell", "text_form")} AS "text", text_form, {is_first} AS is_first{row} '
        f"FROM ({formed})"
    )


def _cells(scan: Scan, text: str, separator: str | None) -> str:
    """SQL of a row's text, or of its list of texts, which has at least one element, so that the row counts."""
    column = scan.column(text)
    if scan.layout.columns[text] == "texts":
        return f"CASE WHEN len({column}) > 0 THEN {column} ELSE [CAST(NULL AS VARCHAR)] END"
    column = f"CAST({column} AS VARCHAR)"
    if separator is None:
        return column
    return f"list_transform(string_split(coalesce({column}, ''), {literal(separator)}), lambda part: trim(part))"


def _kind(scan: Scan, source: EventSource, text: str) -> str:
    if source.kind is None:
        return literal(source.feature or text)
    column = f"trim(CAST({scan.column(source.kind)} AS VARCHAR))"
    return f"CASE WHEN NOT regexp_full_match({column}, {literal(values.BLANK)}) THEN {column} END"


def _refuse_broken_ids(connection: DuckDBPyConnection, scan: Scan, user: str) -> None:
    """A number such as 7.5 is nobody's id, and one from 2^53 on is several people's."""
    if scan.layout.columns[user] != "decimal":
        return
    for alone in _single_scans(scan):
        column = alone.column(user)
        found = rows(
            connection,
            f"SELECT row, id FROM (SELECT row_number() OVER () - 1 AS row, {column} AS id FROM {alone.source()}) "
            f"WHERE {values.broken_id('id')} LIMIT 1",
        )
        if found:
            raise DataError(
                f"{alone.files[0].name}: row {found[0][0]}: the column {user!r} has the number {found[0][1]}, which is "
                "no whole number, or too large to be exact; write ids as texts or as integers"
            )


def _single_scans(scan: Scan) -> Iterator[Scan]:
    for file, path in zip(scan.files, scan.paths, strict=True):
        yield replace(scan, files=(file,), paths=(path,))


def _refuse_huge_texts(connection: DuckDBPyConnection, plan: Plan, files: Sequence[StagedFile], work: Path) -> None:
    condition = f"text_form = {values.HUGE_TEXT}"
    found = rows(connection, f'SELECT "file", count(*) FROM events WHERE {condition} GROUP BY 1 ORDER BY 1')
    if found:
        place = _find_place(connection, plan, files[found[0][0]], condition, work)
        raise DataError(
            f"{place}: a text of more than {values.MAX_TEXT_BYTES >> 20} MiB, one of {sum(n for _, n in found)}; a "
            "keyphrase is short: name another column with --text, or cut the texts"
        )


def _refuse_mixed_units(connection: DuckDBPyConnection) -> None:
    """A unit is known by the size of the numbers: two of them in one log are a mistake of one or the other."""
    units = ", ".join(map(str, values.EPOCHS))
    found = rows(connection, f"SELECT form, count(*) FROM events WHERE form IN ({units}) GROUP BY 1 ORDER BY 1")
    if len(found) > 1:
        said = ", ".join(f"{count:,} {values.FORMS[form]}" for form, count in found)
        raise DataError(f"the numbers in the column of the time are {said}; write all of them in one unit")


def _count_drops(
    connection: DuckDBPyConnection, plan: Plan, files: Sequence[StagedFile], work: Path, report: Report
) -> str:
    """Notes what is left out, and returns SQL of what is not. DataError where that is too much."""
    as_of = values.timestamp(plan.as_of or datetime.now(UTC))
    reasons = [(what, condition.format(as_of=as_of)) for what, condition in _UNUSABLE]
    cases = " ".join(f"WHEN {condition} THEN {number}" for number, (_, condition) in enumerate(reasons))
    usable = " AND ".join(f"NOT ({condition})" for _, condition in reasons)
    found = {
        reason: (count, file)
        for reason, count, file in rows(
            connection,
            f'SELECT CASE {cases} END AS reason, count(*), min("file") FROM events GROUP BY 1 HAVING reason >= 0',
        )
    }
    notes = {}
    for reason, (count, file) in sorted(found.items()):
        what, condition = reasons[reason]
        alone = " AND ".join([condition, *(f"NOT ({earlier})" for _, earlier in reasons[:reason])])
        report.drop(what, count, _find_place(connection, plan, files[file], alone, work))
        notes[reason] = report.dropped[-1]
    counted = [note for reason, note in notes.items() if reason < _REFUSED_REASONS - (plan.as_of is not None)]
    lost = sum(note.count for note in counted)
    if not report.texts or sum(note.count for note in notes.values()) == report.texts:
        if not report.texts:
            raise DataError(f"{plan.events[0].place}: no event can be used: the files have no row")
        raise DataError(
            f"{plan.events[0].place}: no event can be used: {'; '.join(map(str, notes.values()))}; name the right "
            "columns (times in another form than ISO: --time-format)"
        )
    if lost > plan.max_dropped * report.texts:
        raise DataError(
            f"{plan.events[0].place}: {lost / report.texts:.0%} of the texts cannot be used: "
            f"{'; '.join(map(str, counted))}; put them right, name the right columns (times in another form than ISO: "
            f"--time-format), or allow as many with --max-dropped {lost / report.texts + 0.01:.2f}"
        )
    return usable


def _count_changes(connection: DuckDBPyConnection, usable: str, report: Report) -> None:
    for form, count in rows(connection, f"SELECT form, count(*) FROM events WHERE {usable} GROUP BY 1 ORDER BY 1"):
        if form in values.FORMS:
            report.change(values.FORMS[form], count)
    (cut,) = one_row(connection, f"SELECT count(*) FROM events WHERE {usable} AND text_form = {values.CUT_TEXT}")
    report.change(f"texts cut to {values.MAX_CHARACTERS} characters", cut)
    (listed,) = one_row(
        connection,
        f"SELECT count(*) FROM events WHERE {usable} AND starts_with(\"text\", '[') AND ends_with(\"text\", ']')",
    )
    if listed > MAX_LISTED * report.texts:
        report.warnings.append(
            f"{listed:,} texts look like whole lists ('[...]'), each of which is one keyphrase now; write lists as "
            "Parquet or JSON lines, or split them with --separator"
        )


def _count_kinds(connection: DuckDBPyConnection, plan: Plan, usable: str) -> dict[str, int]:
    """Texts of each kind, the most frequent kind first."""
    found = rows(connection, f"SELECT kind, count(*) FROM events WHERE {usable} GROUP BY 1 ORDER BY 2 DESC, 1")
    kept = [kind for kind, _ in found if plan.names.get(kind, kind) is not None]
    if len(kept) > MAX_KINDS:
        columns = sorted({source.kind for source in plan.events if source.kind})
        raise DataError(
            f"{plan.events[0].place}: the column(s) {', '.join(columns)} name {len(kept):,} kinds of events, more than "
            f"{MAX_KINDS}; each would be a feature: name another column with --kind, or leave kinds out with "
            "--name 'KIND='"
        )
    return dict(found)


def _find_place(connection: DuckDBPyConnection, plan: Plan, staged: StagedFile, condition: str, work: Path) -> str:
    """File and row of the first text for which a condition holds: the file is read once more, until there."""
    with fetch_files([staged.file], work) as paths:
        for scan in make_scans([staged.file], paths, [staged.layout], staged.source.columns):
            with explain_errors(scan.names):
                for text in staged.source.texts:
                    selected = _select_texts(scan, staged.source, text, plan, 0, with_rows=True)
                    found = rows(connection, f"SELECT row FROM ({selected}) AS events WHERE {condition} LIMIT 1")
                    if found:
                        return f"{staged.file.name}: row {found[0][0]}"
    return staged.file.name
