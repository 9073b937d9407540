"""A user's table in the exact form of its schema, for whoever reads the file by its path: Feast, which casts nothing.

`tables` reads what other programs write as what it means: whole numbers as ids, categories as texts, moments without a
zone as UTC. Feast would look for the text "7" among the numbers and find nobody. So it gets a copy where the file is
not in the exact form, and the file itself where it is.
"""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from conf_profile import tables
from conf_profile.data import dataset
from conf_profile.data.dataset import Dataset
from conf_profile.dialogue import task as tasks
from conf_profile.errors import DataError
from conf_profile.files import atomic_folder
from conf_profile.tables import TableSchema

logger = logging.getLogger(__name__)


def exact_table(path: Path, table: TableSchema, folder: Path) -> Path:
    """`path` if it is in the exact form, else a checked copy of it in `folder`, which is made batch by batch."""
    differences = find_differences(_schema(path), table)
    if not differences:
        return path
    copy = folder / path.name
    write_exact(path, table, copy)
    logger.info("%s: copied to %s: %s", path, copy, "; ".join(differences))
    return copy


def write_exact(path: Path, table: TableSchema, target: Path) -> None:
    """A checked copy in the exact form, whole or not at all."""
    with tables.writer(target, table) as out:
        for part in tables.read_batches(path, table):
            out.write_table(part)


def copy_dataset(given: Dataset, folder: Path) -> Dataset:
    """The data set's files in a new folder, its tables in the exact form; DataError where the folder is not empty."""
    try:
        with atomic_folder(folder) as temporary:
            declared = tasks.load(given.task).features
            schemas = {
                dataset.BEHAVIOUR: tables.behaviour_table(declared),
                dataset.DEMOGRAPHICS: tables.demographics_table(declared),
                dataset.LABELS: tables.LABELS,
            }
            for name, path in given.paths.items():
                if name in schemas:
                    write_exact(path, schemas[name], temporary / name)
                else:
                    shutil.copyfile(path, temporary / name)
            dataset.finish(
                temporary, given.name, given.as_of, source=given.source, licence=given.licence, users=given.users
            )
    except OSError as error:
        raise DataError(f"{folder}: cannot be written: {error.strerror}; name a new folder with --out") from error
    return dataset.load(folder)


def find_differences(schema: pa.Schema, table: TableSchema) -> list[str]:
    """What a file's schema has otherwise than the table's, in words; empty where the file is in the exact form."""
    found = [
        f"the column {field.name!r} is missing, which stands for null"
        if schema.get_field_index(field.name) < 0
        else f"the column {field.name!r} has the type {schema.field(field.name).type}, not {field.type}"
        for field in table.schema
        if schema.get_field_index(field.name) < 0 or not _is_same(schema.field(field.name).type, field.type)
    ]
    index = _pandas_index(schema)
    return [*found, *([f"pandas reads {', '.join(index)} as an index and not as a column"] if index else [])]


def _is_same(given: pa.DataType, wanted: pa.DataType) -> bool:
    """Readers of a path know every unit of a moment, as long as it has a zone."""
    if pa.types.is_timestamp(wanted) and pa.types.is_timestamp(given):
        return given.tz is not None
    return bool(given == wanted)


def _pandas_index(schema: pa.Schema) -> list[str]:
    """Columns that pandas has noted as its index, and would not give as columns."""
    try:
        noted = json.loads((schema.metadata or {}).get(b"pandas", b"{}")).get("index_columns", [])
    except ValueError:
        return []
    return [name for name in noted if isinstance(name, str)]


def _schema(path: Path) -> pa.Schema:
    try:
        return pq.read_schema(path)
    except (OSError, pa.ArrowInvalid) as error:
        raise DataError(f"{path}: cannot be read as Parquet: {error}; write the file again") from error
