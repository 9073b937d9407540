"""The cost model: what each stage takes for a number of users, and from how many users on it no longer fits.

Arithmetic over measured figures and nothing else. A stage's time and memory grow with the users as they were seen to
grow between two sizes; start-up is left out, since at any size worth asking about it is small. Everybody is taken to
have consented, so the figures are upper bounds in that respect.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from benchmarks.scale.inputs import Inputs
from benchmarks.scale.sharding import ASKED_PER_SHARD, Balance, asked_share, ranges, shards_for
from benchmarks.usage import MILLION
from conf_profile.config import RunConfig
from conf_profile.storage.object_store import MULTIPART_THRESHOLD, PART_BYTES

GIB = 2**30
MEASURED_FILES = 11
"""Files of the model whose promotion was counted."""
STUDENT_ARMS = 3
"""Students that the evaluation asks: untrained, after SFT, after GRPO."""
WHOLE_READS = 6
"""Steps besides the shards that read all features: labelling, SFT, rejection, reference, GRPO, evaluation."""
CANDIDATE_MOVES = 3
"""Candidates are written once and read by labelling and evaluation."""
ONLINE = "online store"
MOST_USERS = 10**10

Resource = Literal["memory", "time"]


@dataclass(frozen=True)
class Limits:
    """What there is: memory of the largest pod, hours that a stage may take, teacher engines, memory of a Redis node.

    The engines are those of `pipelines.shardParallelism` in the chart.
    """

    pod_gib: float = 64.0
    hours: float = 24.0
    engines: int = 4
    redis_gib: float = 25.0

    def gib(self, stage: str) -> float:
        """The memory that a stage may take."""
        return self.redis_gib if stage == ONLINE else self.pod_gib


@dataclass(frozen=True)
class Load:
    """How much there is to do. `largest` is the number of users of the largest synthesis shard."""

    users: int
    asked: int
    shards: int
    largest: int

    @staticmethod
    def from_balance(balance: Balance) -> Load:
        """As the pipeline's own hash divides the users."""
        return Load(balance.users, balance.asked, balance.shards, balance.largest)

    @staticmethod
    def from_users(users: int, config: RunConfig) -> Load:
        """As the hash would divide them on average."""
        asked, shards = round(users * asked_share(config.features)), shards_for(users, config.features)
        return Load(users, asked, shards, -(-asked // shards))


@dataclass(frozen=True)
class Need:
    """What one stage takes: seconds of all its work, on `workers` at most, and GiB of its largest pod."""

    seconds: float
    gib: float
    workers: int = 1

    def hours(self, workers: int) -> float:
        """With that many workers, or as many of them as the stage can use."""
        return self.seconds / 3600 / min(workers, self.workers)


@dataclass(frozen=True)
class LimitBreak:
    """The number of users from which on a stage exceeds a limit."""

    stage: str
    resource: Resource
    users: int


def needs(load: Load, given: Inputs, config: RunConfig) -> dict[str, Need]:
    """Every stage in the pipeline's order, then what comes after a promotion."""
    millions, asked = load.users / MILLION, load.asked / MILLION
    people = millions * given["students.mib_per_million"] / 1024
    return {
        "features": Need(millions * given["features.seconds_per_million"], _gib(millions, given, "features")),
        "synthesis": _synthesis(load, given, config),
        "labelling": Need(asked * given["labelling.seconds_per_million"], _gib(asked, given, "labelling")),
        "sft": Need(_sequences(load, config) / given["sft.sequences_per_second"], people),
        "reference": Need(_reference_answers(load, config) / given["reference.answers_per_second"], people),
        "grpo": Need(given["grpo.seconds"], people),
        "evaluation": _evaluation(load, given, config, people),
        "materialise": Need(load.users / given["online.redis.users_per_second"], 0.0),
        ONLINE: Need(0.0, redis_gib(load, given)),
        "backfill": _backfill(load, given),
    }


def first_breaks(given: Inputs, config: RunConfig, limits: Limits) -> list[LimitBreak]:
    """Every limit that is reached below `MOST_USERS` users, the first one first."""
    names = needs(Load.from_users(MILLION, config), given, config)
    kinds: tuple[Resource, ...] = ("memory", "time")
    found = [
        LimitBreak(name, kind, _first_users_beyond(name, kind, given, config, limits))
        for name in names
        for kind in kinds
    ]
    return sorted((one for one in found if one.users < MOST_USERS), key=lambda one: one.users)


def teacher_engines(load: Load, given: Inputs, config: RunConfig, hours: float) -> int:
    """Replicas of the teacher that finish in time, each as fast as the one that was measured."""
    return _ceil(_teacher_seconds(load, given, config) / 3600 / hours)


def backfill_replicas(load: Load, given: Inputs, hours: float) -> int:
    """vLLM replicas that profile everybody in time, each with its share of the tables."""
    return _ceil(_backfill(load, given).seconds / 3600 / hours)


def redis_nodes(load: Load, given: Inputs, limits: Limits) -> int:
    """Primaries of a Redis cluster; as many replicas again where it must survive a node."""
    return _ceil(redis_gib(load, given) / limits.redis_gib)


def redis_gib(load: Load, given: Inputs) -> float:
    """Memory of the online store."""
    return load.users * given["online.redis.bytes_per_user"] / GIB


def storage_gib(load: Load, given: Inputs) -> dict[str, float]:
    """What lies in object storage after a run, and what its steps move to and from it."""
    features = load.users * given["features.bytes_per_user"] / GIB
    candidates = load.asked * given["synthesis.candidate_bytes_per_asked"] / GIB
    return {
        "tables": load.users * given["tables.bytes_per_user"] / GIB,
        "features": features,
        "candidates": candidates,
        "answers": load.asked * given["synthesis.answer_bytes_per_asked"] / GIB,
        "moved": features * (1 + load.shards + WHOLE_READS) + candidates * CANDIDATE_MOVES,
    }


def promotion_requests(given: Inputs, files: Sequence[int]) -> int:
    """S3 requests of promoting a model whose files have these sizes in bytes.

    Each file is written once and read back once; one above the threshold of multipart uploads is begun, sent in parts
    and completed instead.
    """
    parts = sum(1 + _ceil(size / PART_BYTES) for size in files if size >= MULTIPART_THRESHOLD)
    return round(given["promotion.requests_small"]) + 2 * (len(files) - MEASURED_FILES) + parts


def download_requests(given: Inputs, files: int) -> int:
    """S3 requests of one replica that fetches and verifies a model."""
    return round(given["download.requests"]) + files - MEASURED_FILES


def _synthesis(load: Load, given: Inputs, config: RunConfig) -> Need:
    """Every shard reads the whole features table before it keeps its own users; an engine needs a shard to work on."""
    millions = load.users / MILLION
    mib = millions * given["synthesis.table_mib_per_million"]
    mib += load.largest / MILLION * given["synthesis.asked_mib_per_million"]
    reading = load.shards * millions * given["synthesis.table_seconds_per_million"]
    return Need(_teacher_seconds(load, given, config) + reading, mib / 1024, load.shards)


def _teacher_seconds(load: Load, given: Inputs, config: RunConfig) -> float:
    tokens = load.asked * config.teacher.samples * given["teacher.tokens_per_answer"]
    return tokens / given["teacher.tokens_per_second"]


def _sequences(load: Load, config: RunConfig) -> float:
    trained = load.users * _training_share(config) * (1.0 - config.features.second_stage_share)
    users = min(trained, config.sft.max_users or trained)
    rows = config.sft.min_steps * config.sft.batch_size * config.sft.gradient_accumulation
    return max(rows, users * config.sft.rationales_per_user * config.sft.epochs)


def _reference_answers(load: Load, config: RunConfig) -> float:
    users = load.users * _training_share(config)
    return min(users, config.reference.max_users or users) * config.reference.samples


def _training_share(config: RunConfig) -> float:
    return 1.0 - config.features.test_share - config.features.validation_share


def _evaluation(load: Load, given: Inputs, config: RunConfig, people: float) -> Need:
    answers = load.users * (1.0 - _training_share(config)) * STUDENT_ARMS
    asked = load.asked / MILLION
    seconds = answers / given["reference.answers_per_second"] + asked * given["evaluation.seconds_per_million"]
    return Need(seconds, max(people, _gib(asked, given, "evaluation")))


def _backfill(load: Load, given: Inputs) -> Need:
    """One process; each shard looks through the whole table, which has to be ordered by user id."""
    shards, _ = ranges(load.users)
    millions = load.users / MILLION
    reading = shards * (given["backfill.read_seconds_per_shard"] + millions * given["cut.ordered.seconds_per_million"])
    return Need(load.users / given["backfill.users_per_second"] + reading, _gib(millions, given, "plan"))


def _gib(millions: float, given: Inputs, name: str) -> float:
    return millions * given[f"{name}.mib_per_million"] / 1024


_SCALE = [users for power in range(3, 10) for users in range(10**power, 10 ** (power + 1), 10 ** (power - 2))]
"""1,000 to `MOST_USERS`, in steps of one per cent of the power of ten below."""


def _first_users_beyond(name: str, kind: Resource, given: Inputs, config: RunConfig, limits: Limits) -> int:
    """The fewest users, to three digits, with which the stage exceeds the limit; `MOST_USERS` where none do."""

    def exceeds(users: int) -> bool:
        need = needs(Load.from_users(users, config), given, config)[name]
        return need.gib > limits.gib(name) if kind == "memory" else need.hours(limits.engines) > limits.hours

    found = bisect_left(_SCALE, True, key=exceeds)
    return _SCALE[found] if found < len(_SCALE) else MOST_USERS


def _ceil(value: float) -> int:
    return -int(-value // 1)


__all__ = ["ASKED_PER_SHARD", "LimitBreak", "Limits", "Load", "Need", "first_breaks", "needs"]
