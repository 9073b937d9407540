"""DuckDB, which reads, sorts and counts: bounded memory, its temporary files in a given folder, no network.

DuckDB counts what its own buffers take towards the limit; what aggregates hold beside them does not spill. So nothing
here gathers texts by an aggregate: it sorts, and `snapshots` builds the lists from the sorted rows.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from conf_profile.errors import ConfigError, ConfProfileError, DataError
from conf_profile.processes.machine import usable_cores

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

THREAD_BYTES = 256 << 20
"""Memory that a thread needs at least to sort without failing."""
_UNITS = {"MB": 10**6, "GB": 10**9, "MIB": 1 << 20, "GIB": 1 << 30}


@contextmanager
def open_database(folder: Path, memory: str) -> Iterator[DuckDBPyConnection]:
    """A new database in a folder that is the caller's to delete. ConfigError for a memory that is no size."""
    try:
        import duckdb
    except ModuleNotFoundError as error:
        raise ConfProfileError("ingest needs the package duckdb: install it with `pip install duckdb`") from error
    limit = parse_memory(memory)
    with explain_errors(), duckdb.connect(str(folder / "events.duckdb")) as connection:
        for name, value in _settings(folder, limit).items():
            connection.execute(f"SET {name} = {value if isinstance(value, int) else literal(value)}")
        yield connection


def parse_memory(text: str) -> int:
    """Bytes of a size such as 2GB."""
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)\s*([KMG]i?B)", text, re.IGNORECASE)
    size = int(float(match[1]) * _UNITS.get(match[2].upper(), 0)) if match else 0
    if size < THREAD_BYTES:
        raise ConfigError(f"--memory {text}: give a size of at least 256MiB, such as 2GB")
    return size


def _settings(folder: Path, limit: int) -> dict[str, str | int]:
    return {
        "memory_limit": f"{limit >> 10}KiB",
        "threads": max(1, min(usable_cores(), limit // THREAD_BYTES)),
        "temp_directory": str(folder / "spill"),
        # A list within a row, and rows of the same moment, keep their order.
        "preserve_insertion_order": "true",
        "autoinstall_known_extensions": "false",
        "autoload_known_extensions": "false",
        "enable_progress_bar": "false",
        "python_enable_replacements": "false",
        "TimeZone": "UTC",
    }


def identifier(name: str) -> str:
    """A quoted name for SQL."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str | None) -> str:
    """A quoted text for SQL."""
    return "NULL" if text is None else "'" + text.replace("'", "''") + "'"


def literals(texts: Sequence[str]) -> str:
    """A list of texts for SQL."""
    return "[" + ", ".join(map(literal, texts)) + "]"


def rows(connection: DuckDBPyConnection, query: str) -> list[tuple[Any, ...]]:
    """All rows of a small result."""
    found: list[tuple[Any, ...]] = connection.execute(query).fetchall()
    return found


def one_row(connection: DuckDBPyConnection, query: str) -> tuple[Any, ...]:
    """The row of a result that has one."""
    return rows(connection, query)[0]


@contextmanager
def explain_errors(names: Sequence[tuple[str, str]] = ()) -> Iterator[None]:
    """What DuckDB raises becomes a DataError; `names` are pairs of a path that it knows and the user's name for it."""
    import duckdb

    try:
        yield
    except duckdb.OutOfMemoryException as error:
        raise DataError(
            f"the memory does not suffice: {_first_line(error)}; give more with --memory, or fewer --keyphrases"
        ) from error
    except RuntimeError as error:
        # What DuckDB makes of Ctrl-C while it works.
        if "interrupted" in str(error).lower():
            raise KeyboardInterrupt from error
        raise
    except duckdb.Error as error:
        message, where = str(error), [name for path, name in names if len(names) == 1 or path in str(error)]
        for path, name in names:
            message = message.replace(path, name)
        raise DataError(_explain(message, where[0] if where else "")) from error


_CSV_LINE = re.compile(r"CSV Error on Line: (\d+)")
_CSV_FILE = re.compile(r"^\s*file = (.*)$", re.MULTILINE)
_CSV_REASONS = (
    (r"Expected Number of Columns: (\d+) Found: (\d+)",
     "has {1} fields, the header has {0}; quote texts that hold the delimiter (\"a, b\"), or write Parquet"),
    (r"not utf-8 encoded", "is not UTF-8; convert the file, e.g. with `iconv -f LATIN1 -t UTF-8`"),
    (r"[Uu]nterminated quote", "has a quote that is not closed; write a quote within a text twice (\"\")"),
    (r"Maximum line size", "is longer than 2 MB; look for a quote that is not closed, or for the wrong column"),
)  # fmt: skip
_JSON = re.compile(r'(?:Malformed JSON|JSON transform error) in file "(.*?)", (?:at byte \d+ )?in line (\d+): (.*)')


def _explain(message: str, place: str) -> str:
    line = _CSV_LINE.search(message)
    if line:
        file = _CSV_FILE.search(message)
        where = f"{file[1] if file else 'CSV'}: line {line[1]}"
        for pattern, reason in _CSV_REASONS:
            if match := re.search(pattern, message):
                return f"{where} {reason.format(*match.groups())}"
        return f"{where} cannot be read as CSV; write it as other programs read it, or as Parquet"
    if found := _JSON.search(message):
        return f"{found[1]}: line {found[2]} cannot be read as JSON: {found[3].strip()}; write one object a line"
    if "maximum_object_size" in message:
        return f"{place or 'JSON'}: line with an object of more than 16 MB; look for the wrong file, or cut the texts"
    if any(said in message for said in ("No space left on device", "max_temp_directory_size", "Could not write file")):
        return f"the disk of --out is full, or limited: {_first_line(message)}; give --out on a larger one"
    where = f"{place}: " if place else ""
    return f"{where}cannot be read: {_first_line(message)}; write the file again, or leave it out"


def _first_line(error: object) -> str:
    return " ".join(str(error).splitlines()[0].split())
