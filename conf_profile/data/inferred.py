"""What a model inferred of a user and may be passed on: the accepted tags alone. Data; Feast is `feature_repo`'s."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby
from operator import itemgetter
from typing import Any

import pyarrow as pa

from conf_profile import tables


@dataclass(frozen=True)
class InferredTag:
    """One accepted answer and its calibrated level, 1-5."""

    attribute: str
    tag: str
    level: int


@dataclass(frozen=True)
class InferredProfile:
    """All accepted tags of one user; none at all where the model was sure of nothing.

    `inferred_at` is the moment of the answer, with a zone; not the moment that the features speak of.
    """

    user_id: str
    tags: tuple[InferredTag, ...]
    model_version: str
    inferred_at: datetime


def to_table(profiles: Iterable[InferredProfile]) -> pa.Table:
    """tables.INFERRED: one row a profile, its tags as three lists of equal length."""
    return tables.from_rows([_row(profile) for profile in profiles], tables.INFERRED)


def profiles_from_predictions(
    predictions: pa.Table, thresholds: Mapping[str, int | None], model_version: str, inferred_at: datetime
) -> list[InferredProfile]:
    """tables.PREDICTIONS to profiles, by user id: the tags at or above their attribute's threshold (None: none of it).

    A user of whom nothing was said (a malformed answer) has none: it must not take an older profile's place.
    """
    by_user = groupby(predictions.sort_by("user_id").to_pylist(), key=itemgetter("user_id"))
    said = ((user_id, [row for row in rows if row["tag"] is not None]) for user_id, rows in by_user)
    return [
        InferredProfile(user_id, tuple(_select_accepted(rows, thresholds)), model_version, inferred_at)
        for user_id, rows in said
        if rows
    ]


def _select_accepted(rows: Sequence[Mapping[str, Any]], thresholds: Mapping[str, int | None]) -> Iterator[InferredTag]:
    for row in rows:
        lowest = thresholds[row["attribute"]]
        if lowest is not None and row["level"] >= lowest:
            yield InferredTag(row["attribute"], row["tag"], row["level"])


def _row(profile: InferredProfile) -> dict[str, Any]:
    return {
        "user_id": profile.user_id,
        "event_timestamp": profile.inferred_at,
        "attributes": [tag.attribute for tag in profile.tags],
        "tags": [tag.tag for tag in profile.tags],
        "levels": [tag.level for tag in profile.tags],
        "model_version": profile.model_version,
    }
