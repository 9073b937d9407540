"""The tables between the steps: schemas declared once, checked on every read and write.

Files are Parquet, written whole or not at all (`files`). What other programs write is read as what it means: whole
numbers as ids, categories as texts, moments without a zone as UTC. What could mean two things is refused.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from conf_profile import files
from conf_profile.errors import DataError
from conf_profile.features import DEFAULT_FEATURES, FeatureSchema, FeatureType

logger = logging.getLogger(__name__)

BATCH_ROWS = 65_536
LARGEST_EXACT_FLOAT = 2**53
"""From here on a floating-point number stands for several whole ones."""
_KEYPHRASES = pa.list_(pa.string())
_TIMESTAMP = pa.timestamp("us", tz="UTC")


@dataclass(frozen=True)
class TableSchema:
    """One table's name, columns and rules. A column is nullable only where its Arrow field says so.

    Files of earlier releases lack the columns `added`, which are nullable.
    """

    name: str
    schema: pa.Schema
    unique: tuple[str, ...] = ()
    level_column: str | None = None
    added: tuple[str, ...] = ()


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
            # How the sample was read, an AnswerForm; null where nobody has noted it.
            _field("form", pa.string(), nullable=True),
        ]
    ),
    level_column="level",
    added=("form",),
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
    with _explain_unreadable(path, table):
        try:
            data = pq.read_table(path, coerce_int96_timestamp_unit="us")
        except pa.ArrowNotImplementedError:  # a list column of more than 2 GiB in one row group
            data = pa.concat_tables(read_batches(path, table))
    return check(data, table, str(path))


def read_batches(path: Path | str, table: TableSchema) -> Iterator[pa.Table]:
    """A table in pieces of BATCH_ROWS rows, each checked, so that memory does not grow with it; at least one piece.

    Whether the schema's unique columns are unique in the whole is the caller's to check, with `check_unique`.
    """
    first = 0
    with _explain_unreadable(path, table), pq.ParquetFile(path, coerce_int96_timestamp_unit="us") as file:
        for batch in file.iter_batches(BATCH_ROWS, columns=_stored_columns(file.schema_arrow, table)):
            yield check(pa.Table.from_batches([batch]), table, str(path), first)
            first += len(batch)
        if not first:
            yield check(file.schema_arrow.empty_table(), table, str(path))


def read_keys(path: Path | str, table: TableSchema) -> pa.Table:
    """Checks a whole table and returns its unique columns alone: the rest is not held in memory."""
    keys = pa.concat_tables(part.select(table.unique) for part in read_batches(path, table))
    check_unique(keys, table, str(path))
    return keys


@contextmanager
def _explain_unreadable(path: Path | str, table: TableSchema) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file; expected the table {table.name!r}") from error
    except (OSError, pa.ArrowInvalid) as error:
        raise DataError(f"{path}: cannot be read as Parquet: {error}; write the file again") from error


def _stored_columns(schema: pa.Schema, table: TableSchema) -> list[str]:
    """The columns of a file that the table has; a column that stands there twice counts as missing."""
    return [name for name in table.schema.names if schema.get_field_index(name) >= 0]


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


def check(data: pa.Table, table: TableSchema, source: str, first_row: int = 0) -> pa.Table:
    """Columns, types, nulls, levels and uniqueness; returns the table in the schema's column order.

    Nullable columns that are missing are null. `first_row` is the number of the first row in the file, for messages.
    DataError tells everything that is wrong with the columns at once.
    """
    missing = [field.name for field in table.schema if data.schema.get_field_index(field.name) < 0]
    required = [name for name in missing if not table.schema.field(name).nullable]
    if required:
        raise DataError(
            f"{source}: the table {table.name!r} lacks the column(s) {', '.join(required)}; "
            f"it has {', '.join(data.column_names)}"
        )
    columns, problems = [], []
    for field in table.schema:
        column = pa.chunked_array([pa.nulls(len(data))]) if field.name in missing else data.column(field.name)
        where = f"{source}: column {field.name!r} of {table.name!r}"
        try:
            columns.append(_check_column(column, field, where, first_row))
        except DataError as error:
            problems.append(str(error))
    if problems:
        raise DataError("\n".join(problems))
    checked = pa.Table.from_arrays(columns, schema=table.schema)
    _check_levels(checked, table, source, first_row)
    check_unique(checked, table, source)
    return checked


def check_stored(schema: pa.Schema, table: TableSchema, source: str) -> None:
    """For whoever reads a file of a step column by column: DataError unless it has every column that was not added
    later, each of a type that differs from the table's in its width or coding alone."""
    absent = [name for name in table.schema.names if schema.get_field_index(name) < 0]
    missing = [name for name in absent if name not in table.added]
    if missing:
        raise DataError(
            f"{source}: the table {table.name!r} lacks the column(s) {', '.join(missing)}; it has "
            f"{', '.join(schema.names)}"
        )
    for field in (each for each in table.schema if each.name not in absent):
        stored = schema.field(field.name).type
        given = stored.value_type if pa.types.is_dictionary(stored) else stored
        alike = any(kind(given) and kind(field.type) for kind in (_is_text, pa.types.is_integer))
        if not (given == field.type or alike or pa.types.is_null(given)):
            raise DataError(
                f"{source}: column {field.name!r} of {table.name!r} has the type {stored}, expected {field.type}; "
                f"{_remedy(given, field.type)}"
            )


def _check_column(column: pa.ChunkedArray, field: pa.Field, where: str, first_row: int) -> pa.ChunkedArray:
    converted = _convert(column, field.type, where, first_row)
    if field.nullable and pa.types.is_floating(field.type):
        converted = pc.if_else(pc.is_nan(converted), None, converted)
    if not field.nullable and converted.null_count:
        row = pc.index(converted.is_null(), True).as_py() + first_row
        raise DataError(
            f"{where} is empty in {converted.null_count} row(s), the first is row {row}; give every row "
            f"{'a list, [] where there is nothing' if pa.types.is_list(field.type) else 'a value, or leave it out'}"
        )
    if pa.types.is_list(field.type):
        _refuse_null_elements(converted, where, first_row)
    return converted


def _refuse_null_elements(lists: pa.ChunkedArray, where: str, first_row: int) -> None:
    """Chunk by chunk: a column of lists may hold more than 2 GiB, an array of them may not."""
    for chunk in lists.chunks:
        if chunk.flatten().null_count:
            parents = pc.list_parent_indices(chunk)
            row = parents[pc.index(chunk.flatten().is_null(), True).as_py()].as_py() + first_row
            raise DataError(f"{where} holds a list with an empty (null) element in row {row}; leave the element out")
        first_row += len(chunk)


def _convert(column: pa.ChunkedArray, wanted: pa.DataType, where: str, first_row: int) -> pa.ChunkedArray:
    """Casts that lose nothing; DataError for any other, with the remedy."""
    given = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    if column.type == wanted:
        return column
    if not _convertible(given, wanted):
        raise DataError(f"{where} has the type {column.type}, expected {wanted}; {_remedy(given, wanted)}")
    if given != column.type:
        column = column.cast(given)
    try:
        if pa.types.is_timestamp(wanted):
            return _to_moments(column, wanted, where)
        if pa.types.is_string(wanted) and pa.types.is_floating(given):
            column = _whole_numbers(column, where, first_row)
        return column.cast(wanted)
    except pa.ArrowInvalid as error:
        raise DataError(f"{where} cannot be read as {wanted}: {error}; {_remedy(given, wanted)}") from error


def _to_moments(column: pa.ChunkedArray, wanted: pa.DataType, where: str) -> pa.ChunkedArray:
    if not pa.types.is_timestamp(column.type) or column.type.tz is None:
        _warn_once(f"{where} has {column.type} without a zone: taken as UTC")
    # What is finer than a microsecond is cut off, as no event depends on it; other units are checked.
    finer = pa.types.is_timestamp(column.type) and column.type.unit == "ns"
    return column.cast(wanted, safe=not finer)


def _whole_numbers(column: pa.ChunkedArray, where: str, first_row: int) -> pa.ChunkedArray:
    """What pandas makes of whole numbers in a column with gaps: 1.0 is 1, NaN is null."""
    column = pc.if_else(pc.is_nan(column), None, column)
    exact = pc.and_(pc.equal(pc.floor(column), column), pc.less(pc.abs(column), LARGEST_EXACT_FLOAT))
    row = pc.index(exact, False).as_py()
    if row >= 0:
        raise DataError(
            f"{where} has the number {column[row].as_py()} in row {row + first_row}, which stands for no text; "
            "write the column as text, or as whole numbers of an integer type"
        )
    if column.null_count < len(column):
        _warn_once(f"{where} has whole numbers of the type {column.type}: read as texts without the point, 1.0 as '1'")
    return column.cast(pa.int64())


@lru_cache(maxsize=256)
def _warn_once(message: str) -> None:
    logger.warning(message)


def _is_text(kind: pa.DataType) -> bool:
    kinds = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view, pa.types.is_binary)
    return any(is_kind(kind) for is_kind in kinds)


def _is_list(kind: pa.DataType) -> bool:
    kinds = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list, pa.types.is_list_view)
    return any(is_kind(kind) for is_kind in (*kinds, pa.types.is_large_list_view))


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind))


def _convertible(given: pa.DataType, wanted: pa.DataType) -> bool:
    """Kinds that say the same: texts however they are stored, whole numbers as texts, moments and days as moments.

    Values may still be refused, as 1.5 for a text.
    """
    if pa.types.is_dictionary(given):
        given = given.value_type
    if pa.types.is_null(given):
        return True
    if pa.types.is_list(wanted):
        return _is_list(given) and _has_convertible_elements(given.value_type, wanted.value_type)
    if pa.types.is_string(wanted):
        whole = pa.types.is_integer(given) or (pa.types.is_decimal(given) and given.scale == 0)
        return _is_text(given) or whole or pa.types.is_floating(given) or pa.types.is_boolean(given)
    if pa.types.is_timestamp(wanted):
        return bool(pa.types.is_timestamp(given) or pa.types.is_date(given))
    if pa.types.is_floating(wanted):
        return _is_number(given)
    return bool(given == wanted or (pa.types.is_integer(wanted) and pa.types.is_integer(given)))


def _has_convertible_elements(given: pa.DataType, wanted: pa.DataType) -> bool:
    """Numbers in a list of texts are ids of things, which no prompt should show as words."""
    return _convertible(given, wanted) and not (pa.types.is_string(wanted) and _is_number(given))


def _remedy(given: pa.DataType, wanted: pa.DataType) -> str:
    if pa.types.is_list(wanted):
        return "write lists of texts, also for a single one; `conf-profile ingest` makes them from events"
    if pa.types.is_timestamp(wanted):
        return "write timestamps with a zone, in pandas by pd.to_datetime(column, utc=True)"
    if pa.types.is_boolean(wanted):
        return "write true and false of the type bool"
    if pa.types.is_string(wanted):
        return "write texts, in pandas by column.astype('string')"
    return f"write numbers of the type {wanted}"


def _check_levels(data: pa.Table, table: TableSchema, source: str, first_row: int) -> None:
    if table.level_column is None or not len(data):
        return
    column = data.column(table.level_column)
    outside = pc.fill_null(pc.or_(pc.less(column, 1), pc.greater(column, 5)), False)
    row = pc.index(outside, True).as_py()
    if row >= 0:
        raise DataError(
            f"{source}: row {row + first_row} of {table.name!r} has the level {column[row].as_py()}; levels are 1 to 5"
        )


def check_unique(data: pa.Table, table: TableSchema, source: str) -> None:
    """DataError where two rows have the same values in the schema's unique columns."""
    if not table.unique or len(data) < 2:
        return
    counts = data.select(table.unique).group_by(list(table.unique)).aggregate([([], "count_all")])
    if len(counts) == len(data):
        return
    twice = counts.filter(pc.greater(counts.column("count_all"), 1)).slice(0, 1).to_pylist()[0]
    key = ", ".join(f"{name}={twice[name]!s}" for name in table.unique)
    raise DataError(f"{source}: {table.name!r} has {twice['count_all']} rows for {key}; keep one of them")
