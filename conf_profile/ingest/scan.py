"""Which columns a file has, whether all files agree, and the SQL that reads those that have the same form at once."""

from __future__ import annotations

import csv
import difflib
import gzip
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from conf_profile.errors import DataError
from conf_profile.ingest.database import explain_errors, identifier, literal, literals, rows
from conf_profile.ingest.sources import SourceFile
from conf_profile.ingest.values import ColumnKind, kind_of

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

Role = Literal["user", "time", "text", "kind", "tag", "field"]

_DELIMITERS = (",", "\t", ";", "|")
_HEADER_BYTES = 1 << 20
_PIECE_BYTES = 4096
LINE_BYTES = 1 << 20
_SAMPLE_OBJECTS = 20_480
_ALLOWED_KINDS: Mapping[Role, tuple[frozenset[ColumnKind], str]] = {
    "user": (frozenset({"text", "untyped", "whole", "decimal", "nothing"}), "ids are texts or whole numbers"),
    "time": (
        frozenset({"zoned", "zoneless", "day", "text", "untyped", "whole", "decimal", "nothing"}),
        "times are timestamps, days, ISO texts or numbers since 1970",
    ),
    "text": (
        frozenset({"text", "untyped", "texts", "nothing"}),
        "keyphrases are texts, or lists of texts: join the titles of numbered things first",
    ),
    "kind": (frozenset({"text", "untyped", "whole", "nothing"}), "kinds are texts or whole numbers"),
    "tag": (frozenset({"text", "untyped", "whole", "nothing"}), "attributes and tags are texts or whole numbers"),
}
_FAMILIES: Mapping[ColumnKind, str] = {
    "text": "text", "whole": "number", "decimal": "number", "zoned": "timestamp", "zoneless": "timestamp",
    "day": "timestamp", "texts": "list of texts",
}  # fmt: skip
"""Kinds that go together between files; CSV and JSON, which say no type, go with each."""


@dataclass(frozen=True)
class Layout:
    """One file's columns: kind by name, in order, and for CSV the delimiter. Partitions are columns, too."""

    columns: Mapping[str, ColumnKind]
    types: Mapping[str, str]
    delimiter: str = ""


@dataclass(frozen=True)
class Scan:
    """Files that one query reads: they have the same form, and the same value of every partition that is read."""

    files: tuple[SourceFile, ...]
    paths: tuple[Path, ...]
    layout: Layout

    @property
    def names(self) -> list[tuple[str, str]]:
        """Path and the user's name for it, for messages."""
        return [(str(path), file.name) for path, file in zip(self.paths, self.files, strict=True)]

    def source(self) -> str:
        """SQL of the table function."""
        files = literals([str(path) for path in self.paths])
        if self.files[0].format == "parquet":
            return f"read_parquet({files}, union_by_name=true, binary_as_string=true, hive_partitioning=false)"
        partitions = {name for name, _ in self.files[0].partitions}
        kinds = {name: kind for name, kind in self.layout.columns.items() if name not in partitions}
        types = {literal(name): "'VARCHAR[]'" if kind == "texts" else "'VARCHAR'" for name, kind in kinds.items()}
        columns = "{" + ", ".join(f"{name}: {type_name}" for name, type_name in types.items()) + "}"
        if self.files[0].format == "json":
            return f"read_json({files}, hive_partitioning=false, columns={columns})"
        options = {
            "auto_detect": "false",
            "header": "true",
            "delim": literal(self.layout.delimiter),
            "quote": literal('"'),
            "escape": literal('"'),
            "nullstr": literal(""),
            "hive_partitioning": "false",
            "columns": columns,
        }
        return f"read_csv({files}, {', '.join(f'{name}={value}' for name, value in options.items())})"

    def column(self, name: str) -> str:
        """SQL of a column."""
        values = dict(self.files[0].partitions)
        return f"CAST({literal(values[name])} AS VARCHAR)" if name in values else identifier(name)

    def file_name(self) -> str:
        """SQL of the user's name for a row's file."""
        paths = literals([str(path) for path in self.paths])
        return f"{literals([file.name for file in self.files])}[list_position({paths}, filename)]"

    def file_number(self, first: int) -> str:
        """SQL of a row's file, counted from `first`."""
        return f"{first} + list_position({literals([str(path) for path in self.paths])}, filename) - 1"


@dataclass
class Agreement:
    """What the files of one place have in common: every column in each, of kinds that go together.

    A file that comes later is compared with the first one that had the column filled.
    """

    place: str
    roles: Mapping[str, Role]
    _first: dict[str, tuple[str, str]] = field(default_factory=dict)

    def check(self, file: SourceFile, layout: Layout) -> None:
        """DataError where a column is missing, means something else, or is of another kind than in another file."""
        missing = [name for name in self.roles if name not in layout.columns]
        if missing:
            raise DataError(f"{file.name}: lacks the column(s) {', '.join(missing)}; {_advice(missing, layout)}")
        problems = [
            problem for name, role in self.roles.items() if (problem := self._problem(file, layout, name, role))
        ]
        if problems:
            raise DataError("\n".join(problems))

    def _problem(self, file: SourceFile, layout: Layout, name: str, role: Role) -> str:
        kind, type_name = layout.columns[name], layout.types[name]
        where = f"{file.name}: the column {name!r}"
        allowed, what = _ALLOWED_KINDS.get(role, (frozenset({kind}), ""))
        if kind not in allowed:
            nested = "; flatten it into columns of its own first" if type_name.startswith("STRUCT") else ""
            return f"{where} has the type {type_name}; {what}{nested}"
        family = _FAMILIES.get(kind)
        if family is None:
            return ""
        first_family, first_name = self._first.setdefault(name, (family, f"{file.name} has {type_name}"))
        if family != first_family:
            return f"{where} has the type {type_name}, {first_name}; write it alike in every file, or ingest them apart"
        return ""


def read_layout(connection: DuckDBPyConnection, file: SourceFile, path: Path, wanted: Iterable[str]) -> Layout:
    """The columns of a file; of CSV by its header, of JSON by its first objects."""
    if file.format == "csv":
        names, delimiter = _read_header(file, path, list(wanted))
        columns: dict[str, ColumnKind] = dict.fromkeys(names, "untyped")
        types = dict.fromkeys(names, "text of CSV")
    else:
        delimiter = ""
        with explain_errors([(str(path), file.name)]):
            found = rows(connection, f"DESCRIBE SELECT * FROM {_sample(file, path)}")
        types = {row[0]: row[1] for row in found}
        columns = {name: kind_of(kind) for name, kind in types.items()}
        if file.format == "json":
            # A number of JSON is read as its text, and so is what has several types.
            columns = {n: "untyped" if types[n] == "JSON" or k not in ("texts", "other") else k
                       for n, k in columns.items()}  # fmt: skip
    given = {name: value for name, value in file.partitions if name not in columns}
    kinds: dict[str, ColumnKind] = dict.fromkeys(given, "untyped")
    return Layout(columns | kinds, types | dict.fromkeys(given, "text of a folder's name"), delimiter)


def make_scans(
    files: Sequence[SourceFile], paths: Sequence[Path], layouts: Sequence[Layout], columns: Sequence[str]
) -> Iterator[Scan]:
    """The files, in order, by neighbours that one query can read."""
    start = 0
    forms = [_form(file, layout, columns) for file, layout in zip(files, layouts, strict=True)]
    for end in range(1, len(files) + 1):
        if end == len(files) or forms[end] != forms[start]:
            given = [
                pair for pair in files[start].partitions if pair[0] in columns and pair[0] in layouts[start].columns
            ]
            kept = [
                SourceFile(f.name, f.format, f.size, tuple(given), f.path, f.store, f.key) for f in files[start:end]
            ]
            yield Scan(tuple(kept), tuple(paths[start:end]), layouts[start])
            start = end


def _form(file: SourceFile, layout: Layout, columns: Sequence[str]) -> object:
    read = tuple((name, layout.types.get(name)) for name in columns)
    header = tuple(layout.columns) if file.format == "csv" else ()
    stored = tuple(pair for pair in file.partitions if pair[0] in columns)
    return file.format, read, header, layout.delimiter, stored


def _sample(file: SourceFile, path: Path) -> str:
    if file.format == "parquet":
        return f"read_parquet({literals([str(path)])}, binary_as_string=true, hive_partitioning=false)"
    return f"read_json({literals([str(path)])}, sample_size={_SAMPLE_OBJECTS}, hive_partitioning=false)"


def _read_header(file: SourceFile, path: Path, wanted: Sequence[str]) -> tuple[list[str], str]:
    """The names in a CSV's first line, split by the delimiter that gives the most of what is wanted."""
    try:
        _refuse_endless_lines(file, path)
        with path.open("rb") as raw, gzip.open(raw) if file.name.lower().endswith(".gz") else raw as stream:
            text = stream.read(_HEADER_BYTES).decode("utf-8-sig", errors="replace")
    except (OSError, EOFError) as error:
        raise DataError(f"{file.name}: cannot be read: {error}; write the file again") from error
    if "\0" in text:
        raise DataError(f"{file.name}: is not UTF-8 text; convert it, e.g. with `iconv -f UTF-16 -t UTF-8`")
    readers = {mark: next(csv.reader(io.StringIO(text), delimiter=mark), []) for mark in _DELIMITERS}
    best = max(_DELIMITERS, key=lambda mark: (len(set(wanted) & set(readers[mark])), len(readers[mark])))
    names = readers[best]
    twice = sorted({name for name in wanted if names.count(name) > 1})
    if twice:
        raise DataError(f"{file.name}: two columns are called {twice[0]!r}; rename one of them")
    # Columns that nobody reads may have one name, or none; DuckDB tells names apart by more than their case.
    folded = [name.casefold() for name in names]
    is_plain = [bool(n) and (n in wanted or folded.count(n.casefold()) == 1) for n in names]
    return [n if plain else f"{n}#{place}" for place, (n, plain) in enumerate(zip(names, is_plain, strict=True))], best


def _refuse_endless_lines(file: SourceFile, path: Path) -> None:
    """DuckDB 2.0 may lose the last line of a CSV, and say nothing, if it is longer than 2 MB."""
    find = _find_endless_line_in_gzip if file.name.lower().endswith(".gz") else _find_endless_line
    start = find(path)
    if start is not None:
        raise DataError(
            f"{file.name}: the line at byte {start} is longer than {LINE_BYTES >> 20} MB; look for a quote that is not "
            "closed, or for the wrong file"
        )


def _find_endless_line(path: Path) -> int | None:
    """A line that is twice as long as a block covers a whole one; any other block is left after its first line."""
    with path.open("rb") as stream:
        for start in range(0, path.stat().st_size - LINE_BYTES, LINE_BYTES):
            stream.seek(start)
            if not any(b"\n" in stream.read(_PIECE_BYTES) for _ in range(LINE_BYTES // _PIECE_BYTES)):
                return start
    return None


def _find_endless_line_in_gzip(path: Path) -> int | None:
    """What is zipped has to be read as a whole."""
    start = 0
    with gzip.open(path) as stream:
        while block := stream.read(LINE_BYTES):
            if len(block) == LINE_BYTES and b"\n" not in block:
                return start
            start += len(block)
    return None


def _advice(missing: Sequence[str], layout: Layout) -> str:
    names = {name.casefold(): name for name in layout.columns}
    near = [names[match] for name in missing for match in difflib.get_close_matches(name.casefold(), names, 1)]
    shown = ", ".join(list(layout.columns)[:30])
    nested = [name for name in missing if "." in name and name.split(".")[0] in layout.columns]
    if nested:
        return f"{nested[0]} is part of another column; write it as a column of its own first"
    return f"it has {shown}" + (f"; did you mean {', '.join(near)}?" if near else "")
