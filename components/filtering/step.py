"""Difficulty filtering: which users the second stage trains on, by their aggregated reference confidence.

A user's confidence is the mean over the attributes a of C_ref(a); an attribute without a reference counts 0, since
the student knew nothing there. Low confidence is mostly noise and high confidence is already solved, so a shape
(`conf_profile.consensus.filtering`) keeps mostly what lies between. It reads no label.
"""

from __future__ import annotations

import json
import logging
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from conf_profile import tables
from conf_profile.config import FilteringConfig
from conf_profile.consensus import filtering
from conf_profile.errors import DataError
from conf_profile.files import write_text

log = logging.getLogger(__name__)


def run(reference: Path, filtered: Path, report: Path, config: FilteringConfig, seed: int) -> None:
    """Writes `filtered` (tables.FILTERED, all users, ordered by id) and a report (JSON: filtering.Summary).

    The result does not depend on the order of the rows. Raises DataError for an empty reference, or where
    nobody would be left.
    """
    table = tables.read(reference, tables.REFERENCE)
    users, confidence = _aggregate(table, str(reference))
    strata = _rarest_tags(table, users) if config.strata == "rarest_tag" else None
    kept = filtering.select(confidence, config.shape, config.keep, seed, strata)
    if not kept.any():
        raise DataError(f"{reference}: filtering.keep={config.keep} of {len(users)} user(s) leaves nobody; raise it")
    table = pa.table({"user_id": users, "confidence": confidence, "kept": kept}, schema=tables.FILTERED.schema)
    tables.write(filtered, table, tables.FILTERED)
    summary = {
        "shape": config.shape,
        "keep": config.keep,
        "strata": config.strata,
        **asdict(filtering.summarise(confidence, kept)),
    }
    write_text(report, json.dumps(summary, indent=2) + "\n")
    log.info("kept %d of %d users, shape %s", int(kept.sum()), len(users), config.shape)


def _aggregate(reference: pa.Table, source: str) -> tuple[pa.ChunkedArray, np.ndarray]:
    """Users, ordered by id, and the mean confidence of each."""
    if not len(reference):
        raise DataError(f"{source}: the reference is empty; the student answered for nobody")
    attributes = pc.count_distinct(reference.column("attribute")).as_py()
    sums = reference.group_by("user_id").aggregate([("confidence", "sum")]).sort_by("user_id")
    # Divided by the number of attributes, not of the user's rows: a missing one counts 0. Rounded, since the last
    # digits of a sum depend on the order of the rows.
    return sums.column("user_id"), np.round(sums.column("confidence_sum").to_numpy() / attributes, 12)


def _rarest_tags(reference: pa.Table, users: pa.ChunkedArray) -> np.ndarray:
    """The stratum of each user: of the tags that the reference gives, the one that fewest users have."""
    names = reference.column("attribute").combine_chunks().dictionary_encode()
    tags = pc.binary_join_element_wise(reference.column("attribute"), reference.column("tag"), "\x1f").combine_chunks()
    groups = np.full((len(users), len(names.dictionary)), -1, dtype=np.int64)
    row = pc.index_in(reference.column("user_id"), users.combine_chunks()).to_numpy()
    groups[row, names.indices.to_numpy()] = tags.dictionary_encode().indices.to_numpy()
    return filtering.assign_rarest_group(groups)
