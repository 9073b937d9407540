"""Which model versions a user has, or may have, taken part in training.

A manifest records how a version was trained, not on whom. What the run's folder does tell is the user's split in every
features table that the run has made. Training reads the splits `train` and `second_stage` and no other, so all
versions that a run published may know a user who was in one of these. That names too many rather than too few: a
version may be older than the user's first row, and a cap on users or the difficulty filter may have left them out.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow.parquet as pq

from conf_profile import parquet_rows
from conf_profile.data import splits
from conf_profile.registry.format import Champion, Version

TRAINING_SPLITS = (splits.TRAIN, splits.SECOND_STAGE)
SPLIT = "split"


@dataclass(frozen=True)
class TrainedVersion:
    """A version, and the user's splits in the tables that it may have been trained on.

    `promoted_at` is the pointer's for the champion. For others it is the time of their publication, seconds before
    their promotion: only the pointer knows when it was moved, and it forgets.
    """

    version: str
    splits: tuple[str, ...]
    promoted_at: str
    champion: bool

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> TrainedVersion:
        """From its JSON form."""
        return cls(data["version"], tuple(data["splits"]), data["promoted_at"], data["champion"])


def trained_versions(
    versions: Iterable[Version], champion: Champion | None, taught: tuple[str, ...]
) -> list[TrainedVersion]:
    """These versions as versions that were or may have been trained with a user of the splits `taught`."""
    return [_make_trained_version(version, champion, taught) for version in versions if taught]


def training_splits(run: Path, user_id: str) -> tuple[str, ...]:
    """The user's splits that training reads, in any features table under the run's artefacts."""
    tables = parquet_rows.tables_of_users(run / "artefacts")
    return select_training_splits(split for path in tables for split in read_splits(path, user_id))


def read_splits(table: Path | BinaryIO, user_id: str) -> frozenset[str]:
    """The user's splits in a Parquet table with a column user_id; empty where it has no column of splits."""
    if SPLIT not in pq.read_schema(table).names:
        return frozenset()
    rows = pq.read_table(table, columns=[SPLIT], filters=[(parquet_rows.USER_ID, "==", user_id)])
    return frozenset(rows.column(SPLIT).to_pylist())


def select_training_splits(found: Iterable[str]) -> tuple[str, ...]:
    """Those of the splits that training reads, in its order."""
    known = frozenset(found)
    return tuple(split for split in TRAINING_SPLITS if split in known)


def read_published_versions(run: Path) -> frozenset[str]:
    """Versions that the run's promotions say they published."""
    outcomes = (json.loads(path.read_text(encoding="utf-8")) for path in run.glob("artefacts/*/promotion/outcome"))
    return frozenset(outcome["version"] for outcome in outcomes if outcome.get("promoted"))


def _make_trained_version(version: Version, champion: Champion | None, taught: tuple[str, ...]) -> TrainedVersion:
    if champion is not None and champion.version == version.name:
        return TrainedVersion(version.name, taught, champion.promoted_at, True)
    return TrainedVersion(version.name, taught, version.created_at, False)
