"""Profiles of all users of a run, offline: shard by shard, resumable, to Parquet and from there to Feast.

    OUT/VERSION-IDENTITY/backfill.json             what was profiled by what
    OUT/VERSION-IDENTITY/part-00000.parquet ...    tables.PREDICTIONS of one shard each

The identity is a hash of all that decides the answers and the shards: another model, other data, another engine have
a folder of their own, and no file in a folder is ever in doubt. A shard's file appears whole or not at all, and one
that is there is not done again. Memory is bounded by the shard: its users' rows are cut out of the tables first,
because Feast's file store reads a whole table for every question.

A shard is a range of user ids. Its users are those with consent at the run's moment who have not withdrawn it since.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from conf_profile import tables
from conf_profile.config import FeaturesConfig
from conf_profile.data.dataset import parse_time, sha256
from conf_profile.data.inferred import profiles_from_predictions
from conf_profile.dialogue.prompts import UserFeatures
from conf_profile.files import atomic_path, write_text
from conf_profile.registry.format import content_hash, read_contents
from serving.backfill.engines import Engine, EngineName
from serving.model import bundle as bundles
from serving.model.bundle import Bundle

METADATA = b"conf_profile.backfill"
MANIFEST = "backfill.json"
SHARD_USERS = 20_000

Progress = Callable[[int], None]
"""Is told how many more users are done."""


@dataclass(frozen=True)
class Source:
    """Whose profiles, as of when."""

    behaviour: Path
    demographics: Path
    as_of: str


@dataclass(frozen=True)
class Identity:
    """All that decides what the files hold."""

    model_version: str
    data_digest: str
    as_of: str
    engine: EngineName
    shard_users: int

    @property
    def digest(self) -> str:
        """12 hexadecimal digits."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:12]


@dataclass(frozen=True)
class Shard:
    """The users whose id lies between `first` and `last`, both included; `users` counts them."""

    number: int
    first: str
    last: str
    users: int


@dataclass(frozen=True)
class Plan:
    """What is to be done, and where it is put."""

    source: Source
    model: Path
    bundle: Bundle
    identity: Identity
    folder: Path
    shards: Sequence[Shard]

    @property
    def users(self) -> int:
        """All of them, those without consent too."""
        return sum(shard.users for shard in self.shards)

    def part(self, shard: Shard) -> Path:
        """The file of a shard."""
        return self.folder / f"part-{shard.number:05d}.parquet"


@dataclass(frozen=True)
class Part:
    """What a shard's file says of itself. `profiled`: users who were asked about; `answered`: with any tag."""

    identity: str
    model_version: str
    written_at: str
    users: int
    profiled: int
    answered: int


@dataclass(frozen=True)
class WriteCounts:
    """Users of all shards on their way to Feast; see `feature_repo.inferred.WriteCounts`."""

    written: int
    nothing_new: int
    without_consent: int


def source_of(arguments: Mapping[str, Any]) -> Source:
    """The tables and the moment of a run, from its pipeline's arguments."""
    return Source(Path(arguments["behaviour_uri"]), Path(arguments["demographics_uri"]), str(arguments["as_of"]))


def plan(source: Source, model: Path, out: Path, engine: EngineName, shard_users: int = SHARD_USERS) -> Plan:
    """Looks at the users and the model, writes nothing. ServingError or DataError where one cannot be read."""
    bundle = bundles.load(model)
    identity = Identity(_version(bundle, model), _data_digest(source), source.as_of, engine, shard_users)
    folder = out / f"{identity.model_version}-{identity.digest}"
    return Plan(source, model, bundle, identity, folder, _shards(source, shard_users))


def fill(plan: Plan, make_engine: Callable[[], Engine], on_users: Progress = lambda users: None) -> list[Part]:
    """Answers for every shard that has no whole file yet; returns what all files say of themselves, in order.

    The engine is made when the first shard needs it. A call that was killed goes on with the shard that it was at.
    """
    write_text(plan.folder / MANIFEST, json.dumps(asdict(plan.identity) | {"users": plan.users}, indent=2))
    engine: Engine | None = None
    parts = []
    for shard in plan.shards:
        part = read_part(plan, shard)
        if part is None:
            engine = engine or make_engine()
            part = _fill(plan, shard, engine)
        parts.append(part)
        on_users(shard.users)
    return parts


def write_to_feast(plan: Plan, store: Any, on_users: Progress = lambda users: None) -> WriteCounts:
    """Writes the tags at the model's own thresholds to Feast's view inferred_profile, dated when they were answered.

    Repeating it changes nothing.
    """
    from feature_repo.inferred import write_inferred

    counts = [0, 0, 0]
    for shard in plan.shards:
        part = read_part(plan, shard)
        assert part is not None, "fill comes first"
        predictions = tables.read(plan.part(shard), tables.PREDICTIONS)
        moment = parse_time(part.written_at, str(plan.part(shard)))
        profiles = profiles_from_predictions(predictions, plan.bundle.thresholds, part.model_version, moment)
        written = write_inferred(store, profiles)
        for place, users in enumerate((written.written, written.nothing_new, written.without_consent)):
            counts[place] += users
        on_users(shard.users)
    return WriteCounts(*counts)


def read_part(plan: Plan, shard: Shard) -> Part | None:
    """What the shard's file says of itself; None where it has none, or not a whole one."""
    try:
        metadata = pq.read_schema(plan.part(shard)).metadata or {}
    except (OSError, pa.ArrowInvalid):
        return None
    if METADATA not in metadata:
        return None
    part = Part(**json.loads(metadata[METADATA]))
    return part if part.identity == plan.identity.digest else None


def _fill(plan: Plan, shard: Shard, engine: Engine) -> Part:
    asked = people(plan, shard)
    answers = engine.answer(asked) if asked else tables.from_rows([], tables.PREDICTIONS)
    predictions = tables.check(answers, tables.PREDICTIONS, f"shard {shard.number}").sort_by("user_id")
    part = Part(
        identity=plan.identity.digest,
        model_version=plan.identity.model_version,
        written_at=datetime.now(UTC).isoformat(timespec="seconds"),
        users=shard.users,
        profiled=len(asked),
        answered=pc.count_distinct(predictions.filter(pc.field("tag").is_valid()).column("user_id")).as_py(),
    )
    described = predictions.replace_schema_metadata({METADATA: json.dumps(asdict(part))})
    with atomic_path(plan.part(shard)) as temporary:
        pq.write_table(described, temporary, compression="zstd")
    return part


def people(plan: Plan, shard: Shard) -> list[UserFeatures]:
    """The features of the shard's users who may be asked about, point-in-time through Feast.

    What is cut out lies in the folder, not in /tmp, so that an erasure finds what a kill leaves there.
    """
    from feature_repo import store as feature_store

    work = plan.folder / ".work"
    shutil.rmtree(work, ignore_errors=True)
    try:
        behaviour, demographics = work / "behaviour.parquet", work / "demographics.parquet"
        declared = plan.bundle.task.features
        _cut(plan.source.behaviour, shard, behaviour, tables.behaviour_table(declared))
        _cut(plan.source.demographics, shard, demographics, tables.demographics_table(declared))
        store = feature_store.open_store(work / "features", behaviour, demographics, FeaturesConfig(), declared)
        moment = parse_time(plan.source.as_of, "as_of")
        users = sorted({*_user_ids(behaviour), *_user_ids(demographics)})
        allowed = feature_store.consenting_users(store, users, moment)
        allowed = feature_store.consenting_users(store, allowed, max(moment, datetime.now(UTC)))
        return list(_features(feature_store.training_features(store, allowed, moment)))
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _features(known: pa.Table) -> Iterator[UserFeatures]:
    for row in known.to_pylist():
        yield UserFeatures(**{name: value for name, value in row.items() if name != "consent"})


def _cut(table: Path, shard: Shard, target: Path, schema: tables.TableSchema) -> None:
    """The rows of a shard, read and written batch by batch."""
    dataset, user_id = ds.dataset(table, format="parquet"), pc.field("user_id")
    if not pa.types.is_string(dataset.schema.field("user_id").type):
        user_id = user_id.cast(pa.string())  # a dictionary has no order; but a cast sees no statistics
    within = (user_id >= shard.first) & (user_id <= shard.last)
    stored = [name for name in schema.schema.names if name in dataset.schema.names]
    rows = dataset.scanner(columns=stored, filter=within)
    with tables.writer(target, schema) as out:
        for batch in rows.to_batches():
            out.write_table(tables.check(pa.Table.from_batches([batch]), schema, str(table)))


def _shards(source: Source, users: int) -> list[Shard]:
    """Equal shards of all users by id; the last one has what is left."""
    ids = pc.unique(pa.chunked_array([c for path in (source.behaviour, source.demographics) for c in _ids(path)]))
    ids = ids.take(pc.sort_indices(ids))
    return [
        Shard(number, ids[start].as_py(), ids[min(start + users, len(ids)) - 1].as_py(), min(users, len(ids) - start))
        for number, start in enumerate(range(0, len(ids), users))
    ]


def _ids(table: Path) -> list[pa.Array]:
    column: pa.ChunkedArray = pq.read_table(table, columns=["user_id"]).column("user_id").cast(pa.string())
    return list(column.chunks)


def _user_ids(table: Path) -> set[str]:
    return set(pq.read_table(table, columns=["user_id"]).column("user_id").to_pylist())


def _version(bundle: Bundle, model: Path) -> str:
    """The registry's name, else one that is bound to the folder's content."""
    if bundle.version != bundles.UNRELEASED_VERSION:
        return bundle.version
    content = content_hash({path: file.digest for path, file in read_contents(model, {}).items()})
    return f"{bundle.version}-{content[:8]}"


def _data_digest(source: Source) -> str:
    hashes = [sha256(source.behaviour), sha256(source.demographics)]
    return hashlib.sha256(json.dumps(hashes).encode()).hexdigest()
