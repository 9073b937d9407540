"""DataFrames of pandas and polars, and Arrow tables: in, and out again as the same kind.

Neither library is imported: who passes a DataFrame has loaded its library. Any other object with Arrow's stream
interface (a record batch's reader, a DuckDB relation) is read into a `pyarrow.Table`, and answered with one.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any, Protocol, TypeVar

import pyarrow as pa

from conf_profile.errors import DataError


class ArrowStream(Protocol):
    """Anything that gives its rows as a stream of Arrow record batches (the Arrow PyCapsule interface)."""

    def __arrow_c_stream__(self, requested_schema: Any = None) -> Any:
        """A capsule with the stream."""
        ...


Frame = TypeVar("Frame", bound=ArrowStream)
"""A pandas DataFrame, a polars DataFrame or a pyarrow Table: a function returns the kind that it was given."""


def open_frame(frame: object, call: str, name: str) -> Any:
    """The DataFrame as it is, anything else as a pyarrow Table; DataError where it is no table at all.

    `call` and `name` are the function and its argument, for the message.
    """
    if _library(frame) is not None or isinstance(frame, pa.Table):
        return frame
    if hasattr(frame, "__arrow_c_stream__"):
        try:
            return pa.table(frame)
        except (pa.ArrowException, TypeError, ValueError) as error:
            raise DataError(f"{call}: {name!r} cannot be read as a table: {error}") from error
    advice = "collect() it first" if hasattr(frame, "collect") else "read or convert it with one of those libraries"
    raise DataError(
        f"{call}: {name!r} is of the type {type(frame).__name__}; expected a DataFrame of pandas or polars, or an "
        f"Arrow table; {advice}"
    )


def column_names(frame: Any) -> list[Any]:
    """The names as they stand in an opened frame; pandas allows any object, and one name twice."""
    return list(frame.column_names if isinstance(frame, pa.Table) else frame.columns)


def index_names(frame: Any) -> list[Any]:
    """What a pandas DataFrame has in its index, where a caller may have left a column."""
    return list(frame.index.names) if _library(frame) == "pandas" else []


def select_columns(frame: Any, names: Sequence[str], call: str) -> pa.Table:
    """Some columns as Arrow. pandas' NaN and None become null. DataError where a column holds no one type."""
    try:
        if _library(frame) == "pandas":
            return pa.Table.from_pandas(frame[list(names)], preserve_index=False)
        if _library(frame) == "polars":
            return frame.select(list(names)).to_arrow()
        return frame.select(list(names))
    except (pa.ArrowException, NotImplementedError) as error:
        detail = "; ".join(map(str, error.args))
        raise DataError(f"{call}: {detail}; give each column one type, for example with .astype('string')") from error


def convert_like(table: pa.Table, frame: Any) -> Any:
    """A result in the kind of frame that a caller gave."""
    match _library(frame):
        case "pandas":
            return table.to_pandas()
        case "polars":
            return sys.modules["polars"].from_arrow(table)
        case _:
            return table


def replace_column(frame: Any, name: str, values: pa.Array) -> Any:
    """The frame with one column more, or another one in its place; its index and its other columns stay.

    Small integers with null become pandas' Int8, where 3 stays 3.
    """
    match _library(frame):
        case "pandas":
            integer = sys.modules["pandas"].Int8Dtype()
            return frame.assign(**{name: values.to_pandas(types_mapper={pa.int8(): integer}.get).array})
        case "polars":
            return frame.with_columns(sys.modules["polars"].Series(name, values))
        case _ if name in frame.column_names:
            return frame.set_column(frame.column_names.index(name), name, values)
        case _:
            return frame.append_column(name, values)


def _library(frame: object) -> str | None:
    """`pandas` or `polars` where the frame is a DataFrame of it."""
    for name in ("pandas", "polars"):
        kind = getattr(sys.modules.get(name), "DataFrame", None)
        if kind is not None and isinstance(frame, kind):
            return name
    return None
