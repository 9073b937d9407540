"""From tables to arrays: the users of one split, what is true of them, and what an arm said of them.

Every arm is measured over the same users. A user whom an arm did not answer at all means that inference was
cut short, and is an error; a null tag is an abstention, and is not.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from conf_profile import tables
from conf_profile.dialogue.task import Task
from conf_profile.errors import DataError
from conf_profile.evaluation import slices
from conf_profile.evaluation.metrics import BoolArray, Cells, IntArray
from conf_profile.evaluation.rows import integers, positions, read_cells, read_truth, select_users


@dataclass(frozen=True)
class Population:
    """The users of one split in a fixed order, and the true tags of those that are labelled."""

    split: str
    features: pa.Table
    taxonomy: Task
    truth: IntArray

    @cached_property
    def user_ids(self) -> pa.Array:
        """User ids, in the order of every array's first axis."""
        return self.features["user_id"].combine_chunks()

    def __len__(self) -> int:
        return len(self.features)


def population(features: pa.Table, labels: pa.Table, split: str, taxonomy: Task) -> Population:
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
    """How many keyphrases each user has, over all lists."""
    lists = (people.features[name] for name in tables.list_names(people.features))
    return np.asarray(np.stack([integers(pc.list_value_length(column)) for column in lists]).sum(axis=0))


def feature_slices(people: Population) -> dict[str, BoolArray]:
    """Groups of users by what is known of them; none is made from a label.

    By each category of the task, by how much history there is, and by whether users said anything about an attribute
    themselves, where the task has features for that.
    """
    features = people.taxonomy.features
    found: dict[str, BoolArray] = {}
    for feature in features:
        if feature.type == "category":
            found |= slices.by_category(feature.label, people.features[feature.name].to_pylist())
    found |= slices.by_history(history_lengths(people))
    reports = [people.features[feature.name] for feature in features if feature.self_report_of]
    if reports:
        stated = np.any([pc.is_valid(column).to_numpy() for column in reports], axis=0)
        found |= slices.by_self_report(np.asarray(stated, dtype=np.bool_))
    return found
