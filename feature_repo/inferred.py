"""What our models inferred, kept in Feast for other models to read: the view `inferred_profile`, online and offline.

A row is news: it is written when the store holds nothing of the user, or something else that is older. So a write
that is repeated leaves one row, and a user whose tags stay the same has one, however often somebody asks. Whoever has
no consent in the online store at that moment is not written, and not read either.

Offline the view is one Parquet file: Feast 0.67 cannot join a folder of several where most users have no row (dask
finds no divisions), and its own offline push fails on lists. So the file is copied for every write, under a lock that
all writers of a machine share.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from feast import FeatureStore
from filelock import FileLock

from conf_profile import tables
from conf_profile.data.inferred import InferredProfile, InferredTag, to_table
from feature_repo.definitions import CONSENT, DEMOGRAPHICS, INFERRED, INFERRED_FEATURES, USER_ID

FILE = "inferred_profile.parquet"
USERS_OF_A_READ = 1000
"""Users of one online read: sqlite takes some ten thousand parameters in a statement, and Redis waits for none else."""
_REFERENCES = [*(f"{INFERRED}:{name}" for name in INFERRED_FEATURES), f"{DEMOGRAPHICS}:{CONSENT}"]
_KEY = ("user_id", "event_timestamp", "model_version")


@dataclass(frozen=True)
class WriteCounts:
    """Users of one write. `nothing_new`: what the store holds of them is the same, or newer."""

    written: int
    nothing_new: int
    without_consent: int


@dataclass(frozen=True)
class _StoredUser:
    """One user as the online store knows them."""

    consent: bool
    profile: InferredProfile | None


def inferred_file(store: FeatureStore) -> Path:
    """The view's offline source; it lies beside feature_store.yaml."""
    return Path(store.repo_path).resolve() / FILE


def prepare(store: FeatureStore) -> None:
    """Makes the offline source, empty, where there is none: Feast joins no file that is missing."""
    with lock_for_writing(store) as file:
        if not file.is_file():
            tables.write(file, to_table([]), tables.INFERRED)


def write_inferred(store: FeatureStore, profiles: Iterable[InferredProfile]) -> WriteCounts:
    """Writes what is news, offline first and then online; of several profiles of a user, the latest.

    The same call again, also after a kill in between, ends in the same state. DataError where the file cannot be
    written; what Feast or the online store raise passes through.
    """
    latest = {profile.user_id: profile for profile in sorted(profiles, key=lambda profile: profile.inferred_at)}
    with lock_for_writing(store) as file:
        known = _read(store, list(latest))
        allowed = [profile for profile in latest.values() if known[profile.user_id].consent]
        news = [profile for profile in allowed if _is_news(profile, known[profile.user_id].profile)]
        if news:
            rows = to_table(news)
            _append(file, rows)
            store.write_to_online_store(INFERRED, rows.to_pandas())
    return WriteCounts(len(news), len(allowed) - len(news), len(latest) - len(allowed))


def read_inferred(store: FeatureStore, user_ids: Sequence[str]) -> list[InferredProfile | None]:
    """The accepted tags of each user, in the given order; None: nothing inferred, or no consent (any more)."""
    known = _read(store, list(dict.fromkeys(user_ids)))
    return [known[user_id].profile if known[user_id].consent else None for user_id in user_ids]


@contextmanager
def lock_for_writing(store: FeatureStore) -> Iterator[Path]:
    """The offline source, nobody else writing to the view while the block runs; waits for its turn."""
    file = inferred_file(store)
    with FileLock(file.with_name(f".{FILE}.lock")):
        yield file


def _is_news(profile: InferredProfile, current: InferredProfile | None) -> bool:
    # The online store knows the time to the second.
    return current is None or (
        current.inferred_at <= profile.inferred_at
        and (current.model_version, current.tags) != (profile.model_version, profile.tags)
    )


def _append(file: Path, rows: pa.Table) -> None:
    """The file with these rows at its end, whole or not at all; a row that is there already is replaced."""
    keys = set(_keys(rows))
    with tables.writer(file, tables.INFERRED) as out:
        if file.is_file():
            with pq.ParquetFile(file) as before:
                for batch in before.iter_batches():
                    out.write_table(_other_rows(pa.Table.from_batches([batch]), rows, keys))
        out.write_table(rows)


def _other_rows(before: pa.Table, rows: pa.Table, keys: set[tuple[Any, ...]]) -> pa.Table:
    """The rows of `before` whose key is not among `keys`; only those of the same users are looked at one by one."""
    same_user = pc.is_in(before.column(USER_ID), value_set=rows.column(USER_ID))
    suspects = before.filter(same_user)
    kept = suspects.filter(pa.array([key not in keys for key in _keys(suspects)], pa.bool_()))
    return pa.concat_tables([before.filter(pc.invert(same_user)), kept])


def _keys(rows: pa.Table) -> Iterator[tuple[Any, ...]]:
    return zip(*(rows.column(name).to_pylist() for name in _KEY), strict=True)


def _read(store: FeatureStore, user_ids: Sequence[str]) -> dict[str, _StoredUser]:
    known: dict[str, _StoredUser] = {}
    for start in range(0, len(user_ids), USERS_OF_A_READ):
        some = user_ids[start : start + USERS_OF_A_READ]
        response = store.get_online_features(
            features=_REFERENCES, entity_rows=[{USER_ID: user_id} for user_id in some]
        ).to_dict(include_event_timestamps=True)
        known.update((user_id, _to_stored_user(user_id, response, row)) for row, user_id in enumerate(some))
    return known


def _to_stored_user(user_id: str, response: Mapping[str, list[Any]], row: int) -> _StoredUser:
    attributes, tags, levels, version = (response[name][row] for name in INFERRED_FEATURES)
    consent = bool(response[CONSENT][row])
    if version is None:
        return _StoredUser(consent, None)
    pairs = zip(attributes or (), tags or (), levels or (), strict=True)
    moment = datetime.fromtimestamp(response[f"{INFERRED_FEATURES[-1]}__ts"][row], UTC)
    return _StoredUser(consent, InferredProfile(user_id, tuple(InferredTag(*pair) for pair in pairs), version, moment))
