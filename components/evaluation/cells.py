"""From tables to arrays: the users of one split, what is true of them, and what an arm said of them.

Every arm is measured over the same users. A user whom an arm did not answer at all means that inference was
cut short, and is an error; a null tag is an abstention, and is not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from conf_profile import tables
from conf_profile.dialogue.taxonomy import Taxonomy
from conf_profile.errors import DataError
from conf_profile.evaluation.metrics import BoolArray, Cells, IntArray
from conf_profile.evaluation.rows import integers, positions, read_cells, read_truth, select_users
from conf_profile.features import LISTS


@dataclass(frozen=True)
class Population:
    """The users of one split in a fixed order, and the true tags of those that are labelled."""

    split: str
    features: pa.Table
    taxonomy: Taxonomy
    truth: IntArray

    @cached_property
    def user_ids(self) -> pa.Array:
        """User ids, in the order of every array's first axis."""
        return self.features["user_id"].combine_chunks()

    def __len__(self) -> int:
        return len(self.features)


def population(features: pa.Table, labels: pa.Table, split: str, taxonomy: Taxonomy) -> Population:
    """The users of `split`, with truth [users, attributes]; NO_TAG where a label is missing."""
    chosen = features.filter(pc.equal(features["split"], split))
    truth = read_truth(labels, chosen["user_id"].combine_chunks(), taxonomy, "labels")
    return Population(split, chosen, taxonomy, truth)


def read_predictions(path: Path, people: Population, arm: str) -> Cells:
    """One arm's answers for these users; DataError when a user is missing from the table altogether."""
    rows = select_users(tables.read(path, tables.PREDICTIONS), people.user_ids)
    at = positions(rows, people.user_ids, people.taxonomy, str(path))
    require_all_users(at.user, people, f"{path} (arm {arm!r})")
    return read_cells(rows, at, people.truth)


def require_all_users(seen: IntArray, people: Population, source: str) -> None:
    """DataError unless every user of the population was seen."""
    missing = len(people) - len(np.unique(seen))
    if missing:
        raise DataError(
            f"{source}: {missing} of the {len(people)} {people.split} users have no row at all; every arm "
            f"must answer for the same users, so run the inference again to its end"
        )


def history_lengths(people: Population) -> IntArray:
    """How many keyphrases each user has, over all three lists."""
    lists = (people.features[name] for name in LISTS)
    return np.asarray(np.stack([integers(pc.list_value_length(column)) for column in lists]).sum(axis=0))


def regions(people: Population) -> Sequence[str | None]:
    """Each user's region, None where it is not known."""
    found: list[str | None] = people.features["region"].to_pylist()
    return found


def has_self_report(people: Population) -> BoolArray:
    """Whether each user stated an age or a gender."""
    stated = pc.or_(pc.is_valid(people.features["self_age"]), pc.is_valid(people.features["self_gender"]))
    return np.asarray(stated.to_numpy(), dtype=np.bool_)
