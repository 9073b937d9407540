"""One user's rows in Parquet files, whatever their table: found by the column user_id, counted, taken out.

Files are read and copied batch by batch, so that memory does not grow with them, and known by their content: KFP's
artefacts have no suffix.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from conf_profile.errors import DataError
from conf_profile.files import atomic_path, is_temporary

USER_ID = "user_id"
MAGIC = b"PAR1"


def tables_of_users(folder: Path, left_out: Iterable[str] = ()) -> Iterator[Path]:
    """Every Parquet file under `folder` with a column user_id, in order; `left_out` names folders directly in it.

    DataError for a file that begins like Parquet and cannot be read: nobody knows whom it holds.
    """
    for path in _files(folder, frozenset(left_out)):
        if not is_temporary(path) and _begins_like_parquet(path) and USER_ID in _schema(path, str(path)).names:
            yield path


def find_unfinished(folder: Path, left_out: Iterable[str] = ()) -> Iterator[Path]:
    """Half-written Parquet files that a kill has left behind. They may hold anybody, and nobody reads them."""
    for path in _files(folder, frozenset(left_out)):
        if is_temporary(path) and _begins_like_parquet(path):
            yield path


def schema_of(file: BinaryIO, where: str) -> pa.Schema | None:
    """The schema of an open Parquet file that has a column user_id; None for any other file.

    DataError, naming `where`, for one that begins like Parquet and cannot be read.
    """
    file.seek(0)
    if file.read(len(MAGIC)) != MAGIC:
        return None
    schema = _schema(file, where)
    return schema if USER_ID in schema.names else None


def count(path: Path | BinaryIO, user_id: str) -> int:
    """Rows of this user."""
    with pq.ParquetFile(path) as file:
        return sum(pc.sum(_belongs_to(batch, user_id)).as_py() or 0 for batch in file.iter_batches(columns=[USER_ID]))


def remove(path: Path, user_id: str) -> int:
    """Takes the user's rows out and returns how many there were. The file is replaced as a whole, or not at all.

    Schema, metadata and permissions stay. A file without such a row is not touched.
    """
    found = count(path, user_id)
    if found:
        with atomic_path(path) as temporary:
            _copy_others(path, temporary, user_id)
            shutil.copymode(path, temporary)
    return found


def _copy_others(path: Path, target: Path, user_id: str) -> None:
    with (
        pq.ParquetFile(path) as file,
        pq.ParquetWriter(target, file.schema_arrow, compression="zstd") as out,
    ):
        for batch in file.iter_batches():
            others = batch.filter(pc.invert(_belongs_to(batch, user_id)))
            out.write_batch(pa.record_batch(list(map(_reencode, others.columns)), schema=others.schema))


def _reencode(column: pa.Array) -> pa.Array:
    """A dictionary keeps its values, whoever may have used them, until it is made again."""
    if not pa.types.is_dictionary(column.type):
        return column
    return column.dictionary_decode().dictionary_encode().cast(column.type)


def _belongs_to(batch: pa.RecordBatch, user_id: str) -> pa.Array:
    return pc.fill_null(pc.equal(batch.column(USER_ID).cast(pa.string()), user_id), False)


def _files(folder: Path, left_out: frozenset[str]) -> Iterator[Path]:
    for where, folders, names in os.walk(folder):
        if Path(where) == folder:
            folders[:] = [name for name in folders if name not in left_out]
        folders.sort()
        yield from (path for name in sorted(names) if not (path := Path(where, name)).is_symlink())


def _begins_like_parquet(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(len(MAGIC)) == MAGIC
    except FileNotFoundError:  # a server that is running comes and goes with its own temporary files
        return False


def _schema(file: Path | BinaryIO, where: str) -> pa.Schema:
    try:
        return pq.read_schema(file)
    except (OSError, pa.ArrowInvalid) as error:
        raise DataError(f"{where}: cannot be read as Parquet: {error}; delete it, or have it written again") from error
