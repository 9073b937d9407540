"""Users into shards by the pipeline's own functions, from 10^4 to 10^8 users; and how long that takes.

Synthesis takes a user's shard from a hash of the id, after the split has said whether the teacher asks about the user
at all; a backfill cuts the sorted ids into ranges. Ids are generated; a hash does not care how they look.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from benchmarks import usage
from benchmarks.scale import people
from benchmarks.usage import MILLION
from components.synthesis.step import ASKED_SPLITS, shard_of
from conf_profile.config import FeaturesConfig, TeacherConfig, resolve
from conf_profile.data import splits
from serving.backfill.backfill import SHARD_USERS

DECADES = (10**4, 10**5, 10**6, 10**7, 10**8)
ASKED_PER_SHARD = 20_000
"""Users that one synthesis shard should ask about: their kept answers fit in a small pod."""
SHARD_LIMIT = int(TeacherConfig.model_json_schema()["properties"]["shards"]["maximum"])
_BATCH_USERS = 100_000
RANGES = (100_000, 500_000)

_PLAN = """
import sys
from pathlib import Path
from serving.backfill.backfill import SHARD_USERS, Source, _shards
folder = Path(sys.argv[1])
_shards(Source(folder / "behaviour.parquet", folder / "demographics.parquet", ""), SHARD_USERS)
"""
_CUT = """
import sys
from pathlib import Path
from conf_profile import tables
from serving.backfill.backfill import Source, _cut, _shards
folder = Path(sys.argv[1])
source = Source(folder / "behaviour.parquet", folder / "demographics.parquet", "")
for shard in _shards(source, 2_000)[: int(sys.argv[2])]:
    _cut(source.behaviour, shard, folder / "cut.parquet", tables.BEHAVIOUR)
"""


@dataclass(frozen=True)
class Balance:
    """How even the synthesis shards of `users` users are. Work is counted in characters of prompts."""

    users: int
    asked: int
    shards: int
    smallest: int
    largest: int
    largest_work: float
    """The work of the heaviest shard over the mean."""

    @property
    def mean(self) -> float:
        """Users of a shard."""
        return self.asked / self.shards


def shards_for(users: int, features: FeaturesConfig) -> int:
    """Synthesis shards of about `ASKED_PER_SHARD` users: two at least, as many as the configuration takes at most."""
    return min(max(2, round(users * asked_share(features) / ASKED_PER_SHARD)), SHARD_LIMIT)


def asked_share(features: FeaturesConfig) -> float:
    """The share of the users whom the teacher is asked about, as the split intends it."""
    trained = 1.0 - features.test_share - features.validation_share
    return 1.0 - trained * features.second_stage_share


def ranges(users: int) -> tuple[int, int]:
    """Shards of a backfill, and the users of its last one."""
    shards = -(-users // SHARD_USERS)
    return shards, users - (shards - 1) * SHARD_USERS


def balance(users: int) -> Balance:
    """Hashes every id; 10^8 of them take minutes."""
    features = resolve("tiny").features
    shards, lengths = shards_for(users, features), prompt_lengths()
    counts, work = np.zeros(shards, np.int64), np.zeros(shards)
    random = np.random.default_rng(0)
    for ids in _ids(users):
        asked = select_asked(ids, features)
        mine = np.fromiter((shard_of(user, shards) for user in asked), np.int64, len(asked))
        counts += np.bincount(mine, minlength=shards)
        work += np.bincount(mine, random.choice(lengths, len(mine)), minlength=shards)
    most = float(work.max() / work.mean())
    return Balance(users, int(counts.sum()), shards, int(counts.min()), int(counts.max()), round(most, 4))


def select_asked(ids: list[str], features: FeaturesConfig) -> list[str]:
    """Those whom the teacher is asked about."""
    chosen = np.isin(splits.split_of(ids, features), ASKED_SPLITS)
    return [user for user, asked in zip(ids, chosen, strict=True) if asked]


def prompt_lengths() -> npt.NDArray[np.float64]:
    """Characters of the features of people drawn from the world: a long tail, as histories have."""
    from conf_profile.data.world.world import build_world, draw

    phrases = np.array([len(phrase) for phrase in build_world().phrases], dtype=np.float64)
    return np.array([phrases[list(chosen)].sum() + 1.0 for chosen in draw(people.ORIGINALS, 0).phrases])


def simulate(decades: tuple[int, ...] = DECADES) -> list[dict[str, float]]:
    """`balance` of every decade, as it is kept beside the measured figures."""
    return [asdict(balance(users)) for users in decades]


def rates(work: Path) -> dict[str, float]:
    """Ids a second through split and shard; a backfill's plan and its cutting of shards."""
    features, ids = resolve("tiny").features, next(_ids(_BATCH_USERS))
    start = time.process_time()
    select_asked(ids, features)
    split_seconds = time.process_time() - start
    start = time.process_time()
    for user in ids:
        shard_of(user, 64)
    shard_seconds = time.process_time() - start
    return {"split.seconds_per_million": split_seconds * MILLION / len(ids),
            "shard.seconds_per_million": shard_seconds * MILLION / len(ids)} | _measure_planning(work)  # fmt: skip


def _measure_planning(work: Path) -> dict[str, float]:
    world = people.originals(work / "world")
    folders = [work / f"users-{users}" for users in RANGES]
    for users, folder in zip(RANGES, folders, strict=True):
        people.grow(world, users, folder)
    plans = [usage.measure(_PLAN, folder) for folder in folders]
    unordered = work / "unordered"
    people.grow(world, RANGES[0], unordered, by_id=False)
    figures = {f"plan.{name}": v for name, v in usage.growth(plans[0], plans[1], RANGES[1] - RANGES[0]).items()}
    for name, folder in (("ordered", folders[0]), ("unordered", unordered)):
        few, many = (usage.measure(_CUT, folder, shards) for shards in (2, 42))
        # Seconds to look through a table of a million users for one shard.
        figures[f"cut.{name}.seconds_per_million"] = (many.seconds - few.seconds) / 40 * MILLION / RANGES[0]
    return figures


def _ids(users: int) -> Iterator[list[str]]:
    for start in range(0, users, _BATCH_USERS):
        yield [f"user-{number:09d}" for number in range(start, min(start + _BATCH_USERS, users))]
