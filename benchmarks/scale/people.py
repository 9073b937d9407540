"""Tables of any number of users for measuring: the generated world's people, copied under other ids.

Copies have the lengths and words of real rows of the world without its exact posterior, which takes far longer.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from conf_profile import tables
from conf_profile.data import dataset
from conf_profile.data.world import files as world_files
from conf_profile.data.world.world import AS_OF
from conf_profile.tables import TableSchema

ORIGINALS = 2_000
"""People of the world that are drawn; all others are their copies."""


@dataclass(frozen=True)
class Tables:
    """The files that a run begins with."""

    behaviour: Path
    demographics: Path
    taxonomy: Path
    lexicon: Path
    as_of: str


def originals(folder: Path) -> dataset.Dataset:
    """`ORIGINALS` people of the world, seed 0."""
    return world_files.build(folder, ORIGINALS, seed=0)


def grow(world: dataset.Dataset, users: int, folder: Path, by_id: bool = True) -> Tables:
    """Writes tables of `users` users, a multiple of `ORIGINALS`.

    Ordered by user id, or so that every row group holds ids of the whole range, as an export by time does.
    """
    if users % ORIGINALS:
        raise ValueError(f"{users} users: give a multiple of {ORIGINALS}")
    folder.mkdir(parents=True, exist_ok=True)
    behaviour, demographics = folder / "behaviour.parquet", folder / "demographics.parquet"
    for source, target, schema in (
        (world.behaviour, behaviour, tables.BEHAVIOUR),
        (world.demographics, demographics, tables.DEMOGRAPHICS),
    ):
        _copies(source, target, schema, users // ORIGINALS, by_id)
    return Tables(behaviour, demographics, world.task, world.paths["lexicon.json"], AS_OF.isoformat())


def _copies(source: Path, target: Path, schema: TableSchema, copies: int, by_id: bool) -> None:
    rows = tables.read(source, schema)
    with tables.writer(target, schema) as out:
        for copy in range(copies):
            out.write_table(rows.set_column(0, schema.schema.field("user_id"), _ids(rows, copy, by_id)))


def _ids(rows: pa.Table, copy: int, by_id: bool) -> pa.ChunkedArray:
    own, number = rows.column("user_id"), pa.scalar(f"{copy:06d}")
    return pc.binary_join_element_wise(*((number, own) if by_id else (own, number)), "-")
