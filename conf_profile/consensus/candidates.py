"""Streams candidate tables as blocks of whole users, in arrays that can be voted on.

Reads any number of rows in bounded memory: row groups are joined into blocks, text stays dictionary codes,
and no Python code runs for each row. The rows of a user must stand together, in one file; their order, and
samples that are missing, are free. It checks all that a vote relies on, and names the file and the row of an
offence.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from conf_profile import tables
from conf_profile.consensus.ballots import NO_ANSWER
from conf_profile.dialogue.taxonomy import Taxonomy
from conf_profile.errors import DataError

BLOCK_ROWS = 1 << 20
"""Rows that are decoded at once; a block's arrays take about 60 bytes for each of them."""

_CODE_TYPE = pa.dictionary(pa.int32(), pa.string())
_NOT_IN_TAXONOMY = -2
_REQUIRED_COLUMNS = ("user_id", "sample", "attribute", "well_formed")
_COLUMNS_OF_VOTES = (*_REQUIRED_COLUMNS, "tag", "level")

Codes = npt.NDArray[np.int32]
Number = TypeVar("Number", bound=np.generic)


@dataclass(frozen=True)
class UserRows:
    """Users of one file, [users]: their ids, and the row of the file where each of them begins."""

    path: Path
    users: pa.StringArray
    first_rows: npt.NDArray[np.int64]


@dataclass(frozen=True)
class Block:
    """Whole users from one file. The cubes are [attributes, users, samples].

    tags: index in the attribute's tags, -1 without an answer. levels: 1-5, 0 without an answer.
    citations: index into `rationales`, -1 where there is none; None where the file has no rationale at all.
    """

    user_rows: UserRows
    tags: npt.NDArray[np.int16]
    levels: npt.NDArray[np.int8]
    citations: Codes | None
    rationales: pa.StringArray | None
    rows: int
    malformed: int

    @property
    def users(self) -> pa.StringArray:
        """Ids, in the order of the cubes' second axis."""
        return self.user_rows.users


@dataclass(frozen=True)
class _Rows:
    """Decoded rows of whole users, still one entry a row; `at` is the file's row number of the first."""

    path: Path
    at: int
    table: pa.Table

    def codes(self, name: str) -> Codes:
        """A text column as codes into its dictionary, -1 for null."""
        codes: Codes = self.column(name).indices.fill_null(-1).to_numpy()
        return codes

    def dictionary(self, name: str) -> pa.StringArray:
        return self.column(name).dictionary

    def column(self, name: str) -> pa.Array:
        return self.table.column(name).chunk(0)

    def fail(self, row: int, problem: str) -> DataError:
        """The error for one row of the block."""
        user = self.column("user_id")[row].as_py()
        return DataError(f"{self.path}: row {self.at + row} (user {user!r}): {problem}")


def blocks(path: Path, taxonomy: Taxonomy, samples: int, block_rows: int = BLOCK_ROWS) -> Iterator[Block]:
    """All users of one candidates file, in its order. Raises DataError where it breaks the table's rules."""
    for rows in _whole_users(path, len(taxonomy.names) * samples, block_rows):
        yield _block(rows, taxonomy, samples)


def sample_count(paths: Sequence[Path]) -> int:
    """M, as the files show it: the greatest sample number and one more; 0 without rows."""
    highest = -1
    for path in paths:
        with _open_file(path) as file:
            for batch in file.iter_batches(columns=["sample"]):
                highest = max(highest, pc.max(batch.column(0)).as_py() or 0)
    return highest + 1


@dataclass(frozen=True)
class FormCounts:
    """How many samples were read in which form: of the well-formed ones, and why the others are malformed."""

    forms: Mapping[str, int]
    reasons: Mapping[str, int]


def count_forms(paths: Sequence[Path], taxonomy: Taxonomy) -> FormCounts | None:
    """The most frequent first; None for files of earlier releases, which do not say it."""
    counts = {True: Counter[str](), False: Counter[str]()}
    for path in paths:
        with _open_file(path) as file:
            if "form" not in file.schema_arrow.names or _is_empty(file, "form"):
                continue
            for batch in file.iter_batches(BLOCK_ROWS, columns=["attribute", "well_formed", "form"]):
                # Each sample has a row for each attribute.
                attribute = batch.column("attribute")
                first = pc.equal(attribute.indices, attribute.dictionary.index(taxonomy.names[0]))
                for well_formed, counter in counts.items():
                    chosen = pc.and_(first, pc.equal(batch.column("well_formed"), well_formed))
                    forms_read = batch.column("form").filter(chosen).drop_null().cast(pa.string())
                    counter.update({each["values"]: each["counts"] for each in forms_read.value_counts().to_pylist()})
    forms, reasons = (dict(counts[well_formed].most_common()) for well_formed in (True, False))
    return FormCounts(forms, reasons) if forms or reasons else None


def check_users(found: Sequence[UserRows]) -> None:
    """DataError where a user's rows are not together, within a file or over the files."""
    users = pa.chunked_array([one.users for one in found], pa.string())
    if pc.count_distinct(users).as_py() == len(users):
        return
    codes = users.combine_chunks().dictionary_encode().indices.to_numpy()
    again = np.ones(len(codes), dtype=np.bool_)
    again[np.unique(codes, return_index=True)[1]] = False
    second = int(again.argmax())
    first = int(np.flatnonzero(codes == codes[second])[0])
    raise DataError(
        f"{_place(found, second)}: user {users[second].as_py()!r} appears again (first in "
        f"{_place(found, first)}); keep the rows of a user together, in one shard"
    )


def _place(found: Sequence[UserRows], position: int) -> str:
    for one in found:
        if position < len(one.users):
            return f"{one.path}: row {one.first_rows[position]}"
        position -= len(one.users)
    raise IndexError(position)


def _whole_users(path: Path, most_rows: int, block_rows: int) -> Iterator[_Rows]:
    """Joins the file's batches and cuts them again between two users."""
    at, pending, waiting = 0, [], 0
    for batch in _batches(path, block_rows):
        pending.append(batch)
        waiting += len(batch)
        if waiting < block_rows:
            continue
        table = _join(pending)
        cut = _last_user(table)
        if len(table) - cut > most_rows:
            user = table.column("user_id")[cut].as_py()
            raise DataError(f"{path}: user {user!r} has more than {most_rows} rows, from row {at + cut} on")
        if cut:
            yield _Rows(path, at, table.slice(0, cut))
        # Decoded and coded anew: a slice would keep, and pass on, the whole dictionary of its block.
        at, pending, waiting = at + cut, [_encode_texts(_decode_texts(table.slice(cut)))], len(table) - cut
    if waiting:
        yield _Rows(path, at, _join(pending))


def _batches(path: Path, block_rows: int) -> Iterator[pa.Table]:
    with _open_file(path) as file:
        columns = _columns(file)
        for batch in file.iter_batches(block_rows, columns=columns):
            yield _encode_texts(pa.Table.from_batches([batch]))


@contextmanager
def _open_file(path: Path) -> Iterator[pq.ParquetFile]:
    """The file with its columns checked; DataError where it cannot be read, also later in the block."""
    try:
        with pq.ParquetFile(path, read_dictionary=["user_id", "attribute", "tag", "rationale"]) as file:
            tables.check_stored(file.schema_arrow, tables.CANDIDATES, str(path))
            yield file
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file; expected the table 'candidates'") from error
    except (OSError, pa.ArrowInvalid) as error:
        raise DataError(f"{path}: cannot be read as Parquet: {error}") from error


def _columns(file: pq.ParquetFile) -> list[str]:
    """The columns to read: not the rationales where the file's own statistics say that there are none."""
    names = list(_COLUMNS_OF_VOTES)
    return names if _is_empty(file, "rationale") else [*names, "rationale"]


def _is_empty(file: pq.ParquetFile, name: str) -> bool:
    position = file.schema_arrow.get_field_index(name)
    groups = (file.metadata.row_group(group) for group in range(file.metadata.num_row_groups))
    return all(
        (statistics := group.column(position).statistics) is not None and statistics.null_count == group.num_rows
        for group in groups
    )


def _encode_texts(table: pa.Table) -> pa.Table:
    """The same table with every text column as dictionary codes."""

    def encode(name: str) -> pa.ChunkedArray:
        column = table.column(name)
        is_text = tables.CANDIDATES.schema.field(name).type == pa.string()
        if not is_text or column.type == _CODE_TYPE:
            return column
        return column.cast(pa.string()).dictionary_encode()

    return pa.table({name: encode(name) for name in table.column_names})


def _decode_texts(table: pa.Table) -> pa.Table:
    return pa.table(
        {
            name: column.cast(pa.string()) if column.type == _CODE_TYPE else column
            for name, column in zip(table.column_names, table.columns, strict=True)
        }
    )


def _join(pending: list[pa.Table]) -> pa.Table:
    return pa.concat_tables(pending).unify_dictionaries().combine_chunks()


def _last_user(table: pa.Table) -> int:
    """The row where the last user's rows begin."""
    codes = table.column("user_id").chunk(0).indices.fill_null(-1).to_numpy()
    others = np.flatnonzero(codes != codes[-1])
    return int(others[-1]) + 1 if len(others) else 0


def _block(rows: _Rows, taxonomy: Taxonomy, samples: int) -> Block:
    _check_nulls(rows)
    starts = _starts(rows.codes("user_id"))
    attribute = _attributes(rows, taxonomy)
    well_formed = rows.column("well_formed").to_numpy(zero_copy_only=False)
    tags = np.where(well_formed, _tags(rows, attribute, taxonomy), NO_ANSWER).astype(np.int16)
    levels = np.where(tags == NO_ANSWER, 0, _levels(rows)).astype(np.int8)
    _check_answers(rows, tags, levels)
    shape = (len(taxonomy.names), len(starts), samples)
    cells = _cells(rows, starts, attribute, _samples(rows, samples), shape)
    return Block(
        user_rows=UserRows(
            rows.path, rows.column("user_id").take(pa.array(starts)).cast(pa.string()), starts + rows.at
        ),
        tags=_cube(tags, cells, shape, NO_ANSWER),
        levels=_cube(levels, cells, shape, 0),
        citations=_citations(rows, cells, shape),
        rationales=rows.dictionary("rationale") if "rationale" in rows.table.column_names else None,
        rows=len(rows.table),
        malformed=int(len(well_formed) - np.count_nonzero(well_formed)),
    )


def _starts(user_codes: Codes) -> npt.NDArray[np.int64]:
    changes = np.flatnonzero(user_codes[1:] != user_codes[:-1]) + 1
    return np.concatenate([[0], changes]).astype(np.int64)


def _check_nulls(rows: _Rows) -> None:
    for name in _REQUIRED_COLUMNS:
        if rows.column(name).null_count:
            raise rows.fail(pc.index(rows.column(name).is_null(), True).as_py(), f"the column {name!r} is empty")


def _attributes(rows: _Rows, taxonomy: Taxonomy) -> Codes:
    """Each row's attribute as its position in the taxonomy."""
    positions = {name: position for position, name in enumerate(taxonomy.names)}
    names = rows.dictionary("attribute").to_pylist()
    lookup = np.asarray([positions.get(name, _NOT_IN_TAXONOMY) for name in names], dtype=np.int32)
    attribute = lookup[rows.codes("attribute")]
    if (row := _first_row(attribute == _NOT_IN_TAXONOMY)) is not None:
        name = rows.column("attribute")[row].as_py()
        raise rows.fail(row, f"attribute {name!r} is not in the taxonomy; it has: {', '.join(taxonomy.names)}")
    return attribute


def _tags(rows: _Rows, attribute: Codes, taxonomy: Taxonomy) -> npt.NDArray[np.int16]:
    """Each row's tag as its index among its attribute's tags."""
    names = rows.dictionary("tag").to_pylist()
    # The last column is for null: the code -1 reaches it.
    lookup = np.asarray(
        [[of.index.get(name, _NOT_IN_TAXONOMY) for name in names] + [NO_ANSWER] for of in taxonomy.attributes],
        dtype=np.int16,
    )
    tags = lookup[attribute, rows.codes("tag")]
    if (row := _first_row(tags == _NOT_IN_TAXONOMY)) is not None:
        of, tag = taxonomy.attributes[attribute[row]], rows.column("tag")[row].as_py()
        raise rows.fail(
            row,
            f"{of.name} has the tag {tag!r}, which is not in the taxonomy (empty means unknown); "
            f"it has: {', '.join(of.tags)}",
        )
    return tags


def _levels(rows: _Rows) -> npt.NDArray[np.int8]:
    """Each row's level, 0 for null."""
    column = rows.column("level")
    bounds = pc.min_max(column).as_py()
    if bounds["min"] is not None and not (bounds["min"] >= 1 and bounds["max"] <= 5):
        row = pc.index(pc.or_(pc.less(column, 1), pc.greater(column, 5)).fill_null(False), True).as_py()
        raise rows.fail(row, f"the level is {column[row].as_py()}; levels are 1 to 5")
    levels: npt.NDArray[np.int8] = column.cast(pa.int8()).fill_null(0).to_numpy()
    return levels


def _samples(rows: _Rows, samples: int) -> Codes:
    column: Codes = rows.column("sample").cast(pa.int32()).to_numpy()
    if (row := _first_row((column < 0) | (column >= samples))) is not None:
        raise rows.fail(row, f"sample {column[row]} where {samples} were asked for (0 to {samples - 1})")
    return column


def _check_answers(rows: _Rows, tags: npt.NDArray[np.int16], levels: npt.NDArray[np.int8]) -> None:
    if (row := _first_row((tags != NO_ANSWER) & (levels == 0))) is not None:
        raise rows.fail(row, "a tag without a level; each answer states its confidence, 1 to 5")


def _cells(
    rows: _Rows, starts: npt.NDArray[np.int64], attribute: Codes, sample: Codes, shape: tuple[int, int, int]
) -> npt.NDArray[np.int64] | None:
    """Each row's place in the flat cube; None for the regular layout, where a transposition is enough."""
    attributes, users, samples = shape
    if _is_regular(starts, attribute, sample, shape):
        return None
    user = np.repeat(np.arange(users), np.diff(starts, append=len(sample)))
    cells = (attribute.astype(np.int64) * users + user) * samples + sample
    taken = np.zeros(attributes * users * samples, dtype=np.bool_)
    taken[cells] = True
    if np.count_nonzero(taken) != len(cells):
        once = np.zeros(len(cells), dtype=np.bool_)
        once[np.unique(cells, return_index=True)[1]] = True
        row = int(np.flatnonzero(~once)[0])
        raise rows.fail(row, f"a second row for sample {sample[row]} of this user and attribute")
    return cells


def _is_regular(starts: npt.NDArray[np.int64], attribute: Codes, sample: Codes, shape: tuple[int, int, int]) -> bool:
    """Whether each user has all samples in order, and each sample all attributes in the taxonomy's order."""
    attributes, users, samples = shape
    each = attributes * samples
    if len(sample) != users * each or not np.array_equal(starts, np.arange(users) * each):
        return False
    ordered_samples = np.repeat(np.arange(samples), attributes)
    ordered_attributes = np.tile(np.arange(attributes), samples)
    return bool(
        (sample.reshape(users, each) == ordered_samples).all()
        and (attribute.reshape(users, each) == ordered_attributes).all()
    )


def _cube(
    values: npt.NDArray[Number], cells: npt.NDArray[np.int64] | None, shape: tuple[int, int, int], empty: int
) -> npt.NDArray[Number]:
    attributes, users, samples = shape
    if cells is None:
        return np.ascontiguousarray(values.reshape(users, samples, attributes).transpose(2, 0, 1))
    cube = np.full(attributes * users * samples, empty, dtype=values.dtype)
    cube[cells] = values
    return cube.reshape(shape)


def _citations(rows: _Rows, cells: npt.NDArray[np.int64] | None, shape: tuple[int, int, int]) -> Codes | None:
    if "rationale" not in rows.table.column_names:
        return None
    return _cube(rows.codes("rationale"), cells, shape, -1)


def _first_row(offences: npt.NDArray[np.bool_]) -> int | None:
    """The first row that offends, None where none does."""
    row = int(offences.argmax()) if len(offences) else 0
    return row if len(offences) and offences[row] else None
