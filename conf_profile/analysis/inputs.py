"""A caller's frames as checked Arrow tables with our own column names and plain types.

Whatever cannot be right is a DataError that names the call, the column, the row (counted from 0) and the remedy.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from conf_profile import tables
from conf_profile.analysis import frames
from conf_profile.analysis.columns import NULLABLE, TYPES, convert
from conf_profile.errors import DataError


@dataclass(frozen=True)
class Argument:
    """A frame that a function was given: the function, the argument's name, and the columns that are read.

    `columns` and `optional` map our names to the caller's; None: ours, and for an optional column only where it exists.
    No two rows may agree in all of `unique`.
    """

    call: str
    name: str
    columns: Mapping[str, str | None]
    optional: Mapping[str, str | None] = field(default_factory=dict)
    unique: tuple[str, ...] = ()

    @property
    def source(self) -> str:
        """The call, with the columns that its caller named, for messages."""
        columns = {**self.columns, **self.optional}
        given = ", ".join(f"{ours}={theirs!r}" for ours, theirs in columns.items() if theirs not in (None, ours))
        return f"{self.call}({given})" if given else self.call


def read_rows(frame: Any, argument: Argument) -> pa.Table:
    """Reads and checks what `argument` names of an opened frame; other columns are ignored."""
    names = _find_columns(frame, argument)
    given = frames.select_columns(frame, list(dict.fromkeys(names.values())), argument.source)
    columns = {
        ours: convert(given.column(theirs), ours, argument.source, argument.name) for ours, theirs in names.items()
    }
    schema = tables.TableSchema(
        argument.name,
        pa.schema([pa.field(name, TYPES[name], nullable=name in NULLABLE) for name in columns]),
        unique=argument.unique if set(argument.unique) <= columns.keys() else (),
    )
    return tables.check(pa.table(columns), schema, argument.source)


def _find_columns(frame: Any, argument: Argument) -> dict[str, str]:
    """Our name -> the caller's, of all columns to read."""
    present = frames.column_names(frame)
    names = {ours: theirs or ours for ours, theirs in argument.columns.items()}
    names |= {ours: theirs or ours for ours, theirs in argument.optional.items() if theirs or ours in present}
    if missing := [name for name in names.values() if name not in present]:
        raise DataError(_describe_missing(missing, present, frames.index_names(frame), argument))
    if twice := [name for name in names.values() if present.count(name) > 1]:
        raise DataError(f"{argument.source}: {argument.name!r} has several columns {twice[0]!r}; rename all but one")
    return names


def _describe_missing(missing: Sequence[str], present: Sequence[Any], index: Sequence[Any], argument: Argument) -> str:
    found = ", ".join(map(str, present)) or "none"
    problem = f"{argument.source}: {argument.name!r} lacks the column(s) {', '.join(missing)}; it has {found}"
    if lost := [name for name in missing if name in index]:
        return f"{problem}. {', '.join(lost)} is in the index: pass {argument.name}.reset_index()"
    if set(missing) & {"level", "score"}:
        return f"{problem}. vote() gives a score, apply_calibration() a level"
    if "attribute" in missing:
        return (
            f"{problem}. A row is one answer on one attribute; where there is one attribute only, add a column with it"
        )
    return f"{problem}. Rename the column that holds it, or name it where the function has a keyword for it"
