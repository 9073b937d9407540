"""What a cell means, as SQL: an id, a moment, a text, an agreement, whatever type it has.

A column has one of the kinds below. CSV and JSON say nothing of types: their cells are read as texts, so that an id 007
keeps its zeros.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from conf_profile.ingest.database import literal

ColumnKind = Literal[
    "text", "untyped", "whole", "decimal", "zoned", "zoneless", "day", "truth", "texts", "nothing", "other"
]
MAX_CHARACTERS = 1000
"""Longer texts are cut: a prompt shows 80 characters of a keyphrase, unless a task says otherwise."""
MAX_TEXT_BYTES = 1 << 20
"""A larger cell is no keyphrase: the column is another one, or a quote was never closed."""
LARGEST_EXACT_FLOAT = 2**53

BLANK = r"[\s\p{Z}\p{C}]*"
"""Nothing that a reader would see: also zero-width characters, where nothing else stands beside them."""
_NO_ID = ("nan", "none", "null", "<na>", "nat", "undefined")
"""What programs write for a missing id when they make a text of it."""
_WHOLE_TYPE = re.compile(r"U?(TINY|SMALL|BIG|HUGE)?INT(EGER)?|DECIMAL\(\d+,0\)")

ZONED_FORM, ZONELESS, DAY, SECONDS, MILLISECONDS, MICROSECONDS, NANOSECONDS, UNREADABLE = range(8)
"""Forms of a moment."""
FORMS = {
    ZONELESS: "times without a zone, taken as UTC",
    DAY: "days, taken as midnight UTC",
    SECONDS: "times in seconds since 1970",
    MILLISECONDS: "times in milliseconds since 1970",
    MICROSECONDS: "times in microseconds since 1970",
    NANOSECONDS: "times in nanoseconds since 1970",
}
EPOCHS = (SECONDS, MILLISECONDS, MICROSECONDS, NANOSECONDS)
_HAS_ZONE = r":\d\d(\.\d+)?\s*([Zz]|[+-]\d\d(:?\d\d)?|[A-Za-z]{3,4}|[A-Za-z_]+/[A-Za-z_/]+)$"

WHOLE_TEXT, BLANK_TEXT, CUT_TEXT, HUGE_TEXT = range(4)
"""Forms of a text."""


@dataclass(frozen=True)
class Moment:
    """SQL of a timestamp in UTC (null where it cannot be read), and of its form."""

    value: str
    form: str


def kind_of(type_name: str) -> ColumnKind:
    """The kind of a column from DuckDB's name of its type."""
    name = type_name.strip('"')
    if name.endswith("[]"):
        return "texts" if kind_of(name[:-2]) in ("text", "nothing") else "other"
    known: dict[str, ColumnKind] = {
        "VARCHAR": "text", "UUID": "text", "FLOAT": "decimal", "DOUBLE": "decimal", "BOOLEAN": "truth",
        "TIMESTAMP WITH TIME ZONE": "zoned", "TIMESTAMPTZ_NS": "zoned", "DATE": "day", "NULL": "nothing",
    }  # fmt: skip
    if name in known:
        return known[name]
    if name.startswith("ENUM("):
        return "text"
    if _WHOLE_TYPE.fullmatch(name):
        return "whole"
    if name.startswith("DECIMAL("):
        return "decimal"
    return "zoneless" if name.startswith("TIMESTAMP") else "other"


def user_id(column: str, kind: ColumnKind) -> str:
    """An id as text, null where there is none. Numbers with a point are whole ones: `broken_id` finds others."""
    if kind == "decimal":
        number = f"CAST({column} AS DOUBLE)"
        return f"CASE WHEN isfinite({number}) THEN CAST(CAST({number} AS BIGINT) AS VARCHAR) END"
    text = f"trim(CAST({column} AS VARCHAR))"
    missing = ", ".join(map(literal, _NO_ID))
    blank = f"regexp_full_match({text}, {literal(BLANK)}) OR lower({text}) IN ({missing})"
    return f"CASE WHEN {blank} THEN NULL ELSE {text} END"


def broken_id(column: str) -> str:
    """Whether a number with a point stands for no whole number, or for several."""
    number = f"CAST({column} AS DOUBLE)"
    return f"isfinite({number}) AND ({number} <> floor({number}) OR abs({number}) >= {LARGEST_EXACT_FLOAT})"


def moment(column: str, kind: ColumnKind, time_format: str | None) -> Moment:
    """A moment between 1970 and whenever, from timestamps, days, ISO texts, and numbers since 1970 by their size."""
    if kind == "zoned":
        # Nanoseconds do not reach as far as the bounds.
        return _bounded_moment(f"timezone('UTC', CAST({column} AS TIMESTAMP WITH TIME ZONE))", str(ZONED_FORM))
    if kind in ("zoneless", "day"):
        return _bounded_moment(f"CAST({column} AS TIMESTAMP)", str(ZONELESS if kind == "zoneless" else DAY))
    if kind == "nothing":
        return Moment("CAST(NULL AS TIMESTAMP)", str(UNREADABLE))
    number = f"TRY_CAST({column} AS DOUBLE)"
    if kind in ("whole", "decimal"):
        return _bounded_moment(_since_1970(number), _unit(number))
    if time_format is not None:
        form = str(ZONED_FORM if "%z" in time_format.lower() else ZONELESS)
        return _bounded_moment(f"CAST(try_strptime({column}, {literal(time_format)}) AS TIMESTAMP)", form)
    form = (
        f"CASE WHEN regexp_matches({column}, {literal(_HAS_ZONE)}) THEN {ZONED_FORM} WHEN {number} IS NOT NULL THEN "
        f"{_unit(number)} WHEN length({column}) <= 10 THEN {DAY} ELSE {ZONELESS} END"
    )
    iso = f"timezone('UTC', TRY_CAST({column} AS TIMESTAMP WITH TIME ZONE))"
    return _bounded_moment(f"coalesce({iso}, {_since_1970(number)})", form)


def _bounded_moment(value: str, form: str) -> Moment:
    return Moment(f"CASE WHEN {value} BETWEEN TIMESTAMP '1970-01-02' AND TIMESTAMP '9999-01-01' THEN {value} END", form)


def _since_1970(number: str) -> str:
    """Seconds from 1973 on: what is smaller may be anything."""
    return (
        f"CASE WHEN {number} < 1e8 THEN NULL WHEN {number} < 1e11 THEN make_timestamp(CAST({number} * 1e6 AS BIGINT)) "
        f"WHEN {number} < 1e14 THEN make_timestamp(CAST({number} * 1e3 AS BIGINT)) "
        f"WHEN {number} < 1e17 THEN make_timestamp(CAST({number} AS BIGINT)) "
        f"WHEN {number} < 9e18 THEN make_timestamp(CAST({number} / 1e3 AS BIGINT)) END"
    )


def _unit(number: str) -> str:
    return (
        f"CASE WHEN {number} < 1e11 THEN {SECONDS} WHEN {number} < 1e14 THEN {MILLISECONDS} "
        f"WHEN {number} < 1e17 THEN {MICROSECONDS} ELSE {NANOSECONDS} END"
    )


def timestamp(moment: datetime) -> str:
    """SQL of a moment in UTC."""
    return f"TIMESTAMP '{moment.astimezone(UTC).replace(tzinfo=None).isoformat(sep=' ')}'"


def text_form(text: str) -> str:
    """The form of a text."""
    return (
        f"CASE WHEN {text} IS NULL OR regexp_full_match({text}, {literal(BLANK)}) THEN {BLANK_TEXT} "
        f"WHEN strlen({text}) > {MAX_TEXT_BYTES} THEN {HUGE_TEXT} "
        f"WHEN length({text}) > {MAX_CHARACTERS} THEN {CUT_TEXT} ELSE {WHOLE_TEXT} END"
    )


def keyphrase(text: str, form: str) -> str:
    """A text as it is, or as many of its characters as fit, none torn apart; null where there is nothing to see."""
    cut = f"left_grapheme({text}, {MAX_CHARACTERS})"
    return f"CASE {form} WHEN {WHOLE_TEXT} THEN {text} WHEN {CUT_TEXT} THEN {cut} END"


def consent(column: str) -> str:
    """True, false, or null for what is neither; a blank cell is no consent."""
    text = f"lower(trim(CAST({column} AS VARCHAR)))"
    return (
        f"CASE WHEN {text} IN ('true', 't', 'yes', 'y', '1', '1.0') THEN true WHEN {text} IS NULL OR {text} IN "
        f"('', 'nan', 'false', 'f', 'no', 'n', '0', '0.0') THEN false END"
    )
