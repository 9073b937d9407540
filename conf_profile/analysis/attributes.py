"""The attributes and tags of a caller's tables: a taxonomy that is given, else the one that the tables show."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa

from conf_profile.dialogue import task as tasks
from conf_profile.dialogue.taxonomy import Attribute, Taxonomy
from conf_profile.errors import DataError

MAX_TAGS = int(np.iinfo(np.int16).max)
"""Votes number the tags of an attribute in two bytes."""

GivenTaxonomy = Taxonomy | Mapping[str, Sequence[str]]
"""A taxonomy, or {attribute: [tag, ...]}."""


def find_taxonomy(given: GivenTaxonomy | None, rows: Sequence[pa.Table], call: str) -> Taxonomy:
    """The given taxonomy, else the attributes of the first table with the tags of all of them, each in the order of
    their text (code points), so that the order of rows changes no vote.

    TaxonomyError where the given one breaks a rule, DataError for a column of tags that is no closed set.
    """
    if isinstance(given, Taxonomy):
        return given
    if given is not None:
        return tasks.parse({"attributes": given}, f"{call}: taxonomy")
    tags: dict[str, set[str]] = {name: set() for name in sorted(rows[0]["attribute"].unique().to_pylist())}
    for table in rows:
        for name, tag in _list_pairs(table):
            if name in tags and tag is not None:
                tags[name].add(tag)
    for name, found in tags.items():
        if len(found) > MAX_TAGS:
            raise DataError(
                f"{call}: attribute {name!r} has {len(found)} different tags; a vote needs a closed set of them, "
                f"at most {MAX_TAGS}"
            )
    return Taxonomy(tuple(Attribute(name, tuple(sorted(found))) for name, found in tags.items()))


def _list_pairs(rows: pa.Table) -> list[tuple[str, str | None]]:
    """The different pairs of attribute and tag."""
    pairs = rows.select(["attribute", "tag"]).group_by(["attribute", "tag"]).aggregate([]).to_pydict()
    return list(zip(pairs["attribute"], pairs["tag"], strict=True))
