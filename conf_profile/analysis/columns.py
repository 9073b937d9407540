"""One column of a caller's table as a plain Arrow type: ids and tags as text, levels as int8, scores as float64."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pyarrow as pa
import pyarrow.compute as pc

from conf_profile.dialogue.output_format import LEVELS
from conf_profile.dialogue.taxonomy import UNKNOWN
from conf_profile.errors import DataError

TYPES: Mapping[str, pa.DataType] = {
    "user_id": pa.string(),
    "sample": pa.string(),
    "attribute": pa.string(),
    "tag": pa.string(),
    "level": pa.int8(),
    "score": pa.float64(),
    "well_formed": pa.bool_(),
}
NULLABLE = frozenset({"tag", "level", "score"})

_EXPECTATIONS = {
    "user_id": "ids are integers, or text that is not blank. pandas makes floats of integers where one is missing: "
    "drop those rows, then convert with .astype(int)",
    "sample": "samples are numbered by integers or named by text",
    "attribute": "attributes are named by text",
    "tag": "tags are text: convert with .astype('string'), samples and labels alike",
    "level": "levels are whole numbers from 1 to 5",
    "score": "scores are numbers from 0 to 1",
    "well_formed": "it is true or false",
}


def convert(column: pa.ChunkedArray, name: str, source: str, table: str) -> pa.ChunkedArray:
    """A column as TYPES[name]. DataError for another kind of value, with `source` and `table` in the message.

    A NaN becomes null, and so does a tag that is blank or `unknown`.
    """
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    converted = column.cast(TYPES[name]) if pa.types.is_null(column.type) else _CONVERTERS[name](column)
    if converted is None:
        where = f"{source}: column {name!r} of {table!r} has the type {column.type}"
        raise DataError(f"{where}; {_EXPECTATIONS[name]}")
    if name not in NULLABLE and converted.null_count:
        where = f"{source}: row {_find_first(pc.is_null(converted))} of {table!r} has no {name}"
        raise DataError(f"{where} ({converted.null_count} such rows); fill it in or drop them")
    if (row := _find_offence(converted, name)) is not None:
        value = column[row].as_py()
        raise DataError(f"{source}: row {row} of {table!r} has the {name} {value!r}; {_EXPECTATIONS[name]}")
    return converted.cast(TYPES[name])


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind))


def _to_text(column: pa.ChunkedArray) -> pa.ChunkedArray | None:
    return column.cast(pa.string()) if _is_text(column.type) else None


def _to_id(column: pa.ChunkedArray) -> pa.ChunkedArray | None:
    return column.cast(pa.string()) if pa.types.is_integer(column.type) else _to_text(column)


def _to_tag(column: pa.ChunkedArray) -> pa.ChunkedArray | None:
    text = _to_text(column)
    if text is None:
        return None
    no_answer = pc.is_in(pc.utf8_trim_whitespace(text), value_set=pa.array(["", UNKNOWN]))
    return pc.if_else(no_answer, pa.scalar(None, pa.string()), text)


def _to_number(column: pa.ChunkedArray) -> pa.ChunkedArray | None:
    """Levels come as floats too: pandas makes them of integers where one is missing."""
    if not _is_number(column.type):
        return None
    numbers = column.cast(pa.float64())
    return pc.if_else(pc.is_nan(numbers), pa.scalar(None, pa.float64()), numbers)


def _to_truth_value(column: pa.ChunkedArray) -> pa.ChunkedArray | None:
    return column if pa.types.is_boolean(column.type) else None


_CONVERTERS: Mapping[str, Callable[[pa.ChunkedArray], pa.ChunkedArray | None]] = {
    "user_id": _to_id,
    "sample": _to_id,
    "attribute": _to_text,
    "tag": _to_tag,
    "level": _to_number,
    "score": _to_number,
    "well_formed": _to_truth_value,
}


def _find_offence(column: pa.ChunkedArray, name: str) -> int | None:
    """The first row whose value cannot be right, null aside."""
    match name:
        case "user_id":
            offends = pc.equal(pc.utf8_trim_whitespace(column), "")
        case "level":
            offends = pc.invert(pc.is_in(column, value_set=pa.array(LEVELS, pa.float64())))
            offends = pc.and_(offends, pc.is_valid(column))
        case "score":
            offends = pc.or_(pc.less(column, 0), pc.greater(column, 1))
        case _:
            return None
    return _find_first(offends)


def _find_first(offends: pa.ChunkedArray) -> int | None:
    row: int = pc.index(offends, True).as_py()
    return row if row >= 0 else None
