"""The tables between the steps: schemas declared once, checked on every read and write.

Files are Parquet, written whole or not at all (`files`).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from conf_profile import files
from conf_profile.errors import DataError
from conf_profile.features import DEFAULT_FEATURES, FeatureSchema, FeatureType

_KEYPHRASES = pa.list_(pa.string())
_TIMESTAMP = pa.timestamp("us", tz="UTC")


@dataclass(frozen=True)
class TableSchema:
    """One table's name, columns and rules. A column is nullable only where its Arrow field says so."""

    name: str
    schema: pa.Schema
    unique: tuple[str, ...] = ()
    level_column: str | None = None


def _field(name: str, kind: pa.DataType, nullable: bool = False) -> pa.Field:
    return pa.field(name, kind, nullable=nullable)


_USER = _field("user_id", pa.string())
_ATTRIBUTE = _field("attribute", pa.string())


def behaviour_table(features: FeatureSchema) -> TableSchema:
    """Snapshots of the lists."""
    lists = [_field(name, _KEYPHRASES) for name in features.lists]
    return TableSchema(
        "behaviour",
        pa.schema([_USER, _field("event_timestamp", _TIMESTAMP), *lists]),
        unique=("user_id", "event_timestamp"),
    )


def demographics_table(features: FeatureSchema) -> TableSchema:
    """Snapshots of the scalars, and the consent."""
    return TableSchema(
        "demographics",
        pa.schema(
            [_USER, _field("event_timestamp", _TIMESTAMP), *_scalar_fields(features), _field("consent", pa.bool_())]
        ),
        unique=("user_id", "event_timestamp"),
    )


def features_table(features: FeatureSchema) -> TableSchema:
    """What is known of each user at one moment, and the user's split."""
    lists = [_field(name, _KEYPHRASES) for name in features.lists]
    return TableSchema(
        "features",
        pa.schema([_USER, _field("split", pa.string()), *lists, *_scalar_fields(features)]),
        unique=("user_id",),
    )


def arrow_type(kind: FeatureType) -> pa.DataType:
    """How a feature of this type is stored."""
    return _KEYPHRASES if kind == "list" else pa.float64() if kind == "number" else pa.string()


def _scalar_fields(features: FeatureSchema) -> list[pa.Field]:
    return [_field(name, arrow_type(features.types[name]), nullable=True) for name in features.scalars]


BEHAVIOUR = behaviour_table(DEFAULT_FEATURES)
DEMOGRAPHICS = demographics_table(DEFAULT_FEATURES)
FEATURES = features_table(DEFAULT_FEATURES)
"""The tables of the default features; of another task's, see the functions above."""
LABELS = TableSchema(
    "labels",
    pa.schema([_USER, _ATTRIBUTE, _field("tag", pa.string())]),
    unique=("user_id", "attribute"),
)
CANDIDATES = TableSchema(
    "candidates",
    pa.schema(
        [
            _USER,
            _field("sample", pa.int32()),
            _ATTRIBUTE,
            _field("tag", pa.string(), nullable=True),
            # Null only where the sample was malformed.
            _field("level", pa.int8(), nullable=True),
            _field("rationale", pa.string(), nullable=True),
            _field("well_formed", pa.bool_()),
        ]
    ),
    level_column="level",
)
PSEUDO_LABELS = TableSchema(
    "pseudo_labels",
    pa.schema(
        [
            _USER,
            _ATTRIBUTE,
            _field("tag", pa.string()),
            _field("score", pa.float64()),
            _field("level", pa.int8()),
            _field("votes", pa.int32()),
            _field("rationale", pa.string(), nullable=True),
        ]
    ),
    unique=("user_id", "attribute"),
    level_column="level",
)
REFERENCE = TableSchema(
    "reference",
    pa.schema([_USER, _ATTRIBUTE, _field("tag", pa.string()), _field("confidence", pa.float64())]),
    unique=("user_id", "attribute"),
)
SUPPORT = TableSchema(
    "support",
    # Beside the reference: the confidence of every tag that a sample named, not of the vote's winner alone.
    pa.schema([_USER, _ATTRIBUTE, _field("tag", pa.string()), _field("support", pa.float64())]),
    unique=("user_id", "attribute", "tag"),
)
FILTERED = TableSchema(
    "filtered",
    pa.schema([_USER, _field("confidence", pa.float64()), _field("kept", pa.bool_())]),
    unique=("user_id",),
)
PREDICTIONS = TableSchema(
    "predictions",
    pa.schema(
        [
            _USER,
            _ATTRIBUTE,
            _field("tag", pa.string(), nullable=True),
            _field("level", pa.int8(), nullable=True),
            _field("score", pa.float64(), nullable=True),
        ]
    ),
    unique=("user_id", "attribute"),
    level_column="level",
)
INFERRED = TableSchema(
    "inferred_profile",
    # One row a user and change: the accepted tags, three lists of equal length.
    pa.schema(
        [
            _USER,
            _field("event_timestamp", _TIMESTAMP),
            _field("attributes", pa.list_(pa.string())),
            _field("tags", pa.list_(pa.string())),
            _field("levels", pa.list_(pa.int64())),
            _field("model_version", pa.string()),
        ]
    ),
    unique=("user_id", "event_timestamp", "model_version"),
)


def read(path: Path | str, table: TableSchema) -> pa.Table:
    """Reads and checks a table. DataError names the file, the column and, where it can, the row."""
    try:
        data = pq.read_table(path)
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file; expected the table {table.name!r}") from error
    except (OSError, pa.ArrowInvalid) as error:
        raise DataError(f"{path}: cannot be read as Parquet: {error}") from error
    return check(data, table, str(path))


def read_features(path: Path | str) -> pa.Table:
    """Reads and checks a table `features` of any task: which features it has, it says itself."""
    try:
        stored = pq.read_schema(path)
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file; expected the table 'features'") from error
    except (OSError, pa.ArrowInvalid) as error:
        raise DataError(f"{path}: cannot be read as Parquet: {error}") from error
    fields = [field for field in stored if field.name not in ("user_id", "split")]
    lists = [_field(field.name, _KEYPHRASES) for field in fields if _is_list(field.type)]
    scalars = [
        _field(field.name, pa.float64() if pa.types.is_floating(field.type) else pa.string(), nullable=True)
        for field in fields
        if not _is_list(field.type)
    ]
    columns = pa.schema([_USER, _field("split", pa.string()), *lists, *scalars])
    return read(path, TableSchema("features", columns, unique=("user_id",)))


def list_names(features: pa.Table) -> list[str]:
    """The columns of a table `features` that are lists, in order."""
    return [field.name for field in features.schema if _is_list(field.type)]


def write(path: Path | str, data: pa.Table, table: TableSchema) -> None:
    """Checks a table and writes it whole or not at all."""
    checked = check(data, table, str(path))
    with writer(path, table) as out:
        out.write_table(checked)


def from_rows(rows: Sequence[dict[str, Any]], table: TableSchema) -> pa.Table:
    """Builds a table from dictionaries with the schema's columns."""
    return pa.Table.from_pylist(list(rows), schema=table.schema)


@contextmanager
def writer(path: Path | str, table: TableSchema) -> Iterator[pq.ParquetWriter]:
    """A streaming writer; the file appears under its name only when the block ends without an error."""
    final = Path(path)
    with (
        files.atomic_path(final) as temporary,
        pq.ParquetWriter(temporary, table.schema, compression="zstd") as out,
    ):
        yield out


def read_json(path: Path, advice: str) -> dict[str, Any]:
    """The object in a JSON file that a step wrote; DataError says what is wrong and gives the advice."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}; {advice}") from error
    except ValueError as error:
        raise DataError(f"{path}: not valid JSON: {error}; {advice}") from error
    if not isinstance(data, dict):
        raise DataError(f"{path}: expected a JSON object, found {type(data).__name__}; {advice}")
    return data


def check(data: pa.Table, table: TableSchema, source: str) -> pa.Table:
    """Columns, types, nulls, levels and uniqueness; returns the table in the schema's column order."""
    missing = [name for name in table.schema.names if name not in data.column_names]
    if missing:
        raise DataError(
            f"{source}: the table {table.name!r} lacks the column(s) {', '.join(missing)}; "
            f"it has {', '.join(data.column_names)}"
        )
    data = data.select(table.schema.names)
    columns = [_check_column(data.column(field.name), field, table, source) for field in table.schema]
    checked = pa.Table.from_arrays(columns, schema=table.schema)
    _check_levels(checked, table, source)
    _check_unique(checked, table, source)
    return checked


def _check_column(column: pa.ChunkedArray, field: pa.Field, table: TableSchema, source: str) -> pa.ChunkedArray:
    where = f"{source}: column {field.name!r} of {table.name!r}"
    if pa.types.is_timestamp(field.type) and pa.types.is_timestamp(column.type) and column.type.tz is None:
        raise DataError(f"{where} has timestamps without a zone; store them with one (UTC)")
    if column.type != field.type:
        if not _convertible(column.type, field.type):
            raise DataError(f"{where} has the type {column.type}, expected {field.type}")
        try:
            column = column.cast(field.type)
        except pa.ArrowInvalid as error:
            raise DataError(f"{where} cannot be read as {field.type}: {error}") from error
    if not field.nullable and column.null_count:
        row = pc.index(column.is_null(), True).as_py()
        raise DataError(f"{where} is empty in {column.null_count} row(s), the first is row {row}")
    if pa.types.is_list(field.type) and column.combine_chunks().flatten().null_count:
        raise DataError(f"{where} holds a list with an empty (null) element")
    return column


def _is_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind))


def _convertible(given: pa.DataType, wanted: pa.DataType) -> bool:
    """Casts that lose nothing: between widths of one kind, and from dictionary or large to plain strings."""
    if pa.types.is_dictionary(given):
        given = given.value_type
    if pa.types.is_list(wanted):
        return _is_list(given) and _convertible(given.value_type, wanted.value_type)
    if pa.types.is_floating(wanted) and pa.types.is_integer(given):
        return True
    kinds = (
        lambda t: pa.types.is_string(t) or pa.types.is_large_string(t) or pa.types.is_string_view(t),
        pa.types.is_integer,
        pa.types.is_floating,
        pa.types.is_timestamp,
        pa.types.is_boolean,
    )
    return pa.types.is_null(given) or any(kind(given) and kind(wanted) for kind in kinds)


def _check_levels(data: pa.Table, table: TableSchema, source: str) -> None:
    if table.level_column is None or not len(data):
        return
    column = data.column(table.level_column)
    outside = pc.fill_null(pc.or_(pc.less(column, 1), pc.greater(column, 5)), False)
    row = pc.index(outside, True).as_py()
    if row >= 0:
        raise DataError(f"{source}: row {row} of {table.name!r} has the level {column[row].as_py()}; levels are 1 to 5")


def _check_unique(data: pa.Table, table: TableSchema, source: str) -> None:
    if not table.unique or len(data) < 2:
        return
    counts = data.select(table.unique).group_by(list(table.unique)).aggregate([([], "count_all")])
    if len(counts) == len(data):
        return
    twice = counts.filter(pc.greater(counts.column("count_all"), 1)).slice(0, 1).to_pylist()[0]
    key = ", ".join(f"{name}={twice[name]!s}" for name in table.unique)
    raise DataError(f"{source}: {table.name!r} has {twice['count_all']} rows for {key}; one is allowed")
