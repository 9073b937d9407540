"""Takes one user out of a Feast store: everything online, and what was inferred offline.

Feast 0.67 can delete a whole feature view, and in Redis all users, but not one user. So rows are found by Feast's own
serialised entity key and deleted in the store itself: sqlite and Redis, the two that a run can be configured with.
The offline sources of behaviour and demographics are the data set's files, which are not Feast's to change.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from feast import FeatureStore
from feast.infra.key_encoding_utils import serialize_entity_key
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.protos.feast.types.Value_pb2 import Value

from conf_profile import parquet_rows
from conf_profile.erasure.erasure import Store
from conf_profile.errors import DataError
from conf_profile.files import leftovers
from feature_repo.definitions import USER_ID
from feature_repo.inferred import inferred_file, lock_for_writing
from feature_repo.store import connect

BUSY_SECONDS = 30.0
"""How long to wait for somebody else who writes to sqlite."""


class _Online(Protocol):
    """An online store by its serialised entity keys; a value is one feature of one user."""

    def count(self, key: bytes) -> int: ...

    def delete(self, key: bytes) -> None: ...


def stores(repository: Path) -> list[Store]:
    """The stores of a Feast repository: online, and inferred tags offline."""
    store, name = connect(repository), repository.name
    return [
        Store(
            f"{name}: online, {store.config.online_store.type}",
            lambda user_id: erase_online(store, user_id),
            lambda user_id: count_online(store, user_id),
        ),
        Store(
            f"{name}: inferred tags",
            lambda user_id: erase_inferred(store, user_id),
            lambda user_id: count_inferred(store, user_id),
        ),
    ]


def count_online(store: FeatureStore, user_id: str) -> int:
    """Values that the online store holds of this user, whatever the view."""
    return _open_online_store(store).count(_key(store, user_id))


def erase_online(store: FeatureStore, user_id: str) -> int:
    """Deletes them and returns how many there were. A write of inferred tags that is under way ends first."""
    online, key = _open_online_store(store), _key(store, user_id)
    with lock_for_writing(store):
        found = online.count(key)
        online.delete(key)
    return found


def count_inferred(store: FeatureStore, user_id: str) -> int:
    """Rows of this user in the offline source of the inferred tags."""
    file = inferred_file(store)
    return parquet_rows.count(file, user_id) if file.is_file() else 0


def erase_inferred(store: FeatureStore, user_id: str) -> int:
    """Takes them out and returns how many there were."""
    with lock_for_writing(store) as file:
        for leftover in leftovers(file.parent, file.name):
            leftover.unlink()
        return parquet_rows.remove(file, user_id) if file.is_file() else 0


@dataclass(frozen=True)
class _Sqlite:
    """The configured file, and the one beside feature_store.yaml: another one after the folder was copied."""

    paths: frozenset[Path]

    def count(self, key: bytes) -> int:
        return sum(
            _number(connection, table, key) for connection in self._connections() for table in _tables(connection)
        )

    def delete(self, key: bytes) -> None:
        for connection in self._connections():
            # Otherwise the bytes stay in the file until another row needs the room.
            connection.execute("PRAGMA secure_delete = ON")
            with connection:
                for table in _tables(connection):
                    connection.execute(f"DELETE FROM {table} WHERE entity_key = ?", (key,))

    def _connections(self) -> Iterator[sqlite3.Connection]:
        for path in sorted(self.paths):
            if path.is_file():  # connecting would make one
                with closing(sqlite3.connect(path, timeout=BUSY_SECONDS)) as connection:
                    yield connection


@dataclass(frozen=True)
class _Redis:
    """All views of a user are fields of one hash."""

    client: Any
    project: str

    def count(self, key: bytes) -> int:
        return int(self.client.hlen(key + self.project.encode()))

    def delete(self, key: bytes) -> None:
        self.client.delete(key + self.project.encode())


def _open_online_store(store: FeatureStore) -> _Online:
    config = store.config.online_store
    if config.type == "sqlite":
        repository = Path(store.repo_path).resolve()
        return _Sqlite(frozenset((repository / config.path, repository / "online.db")))
    if config.type == "redis":
        from feast.infra.online_stores.redis import RedisOnlineStore

        return _Redis(RedisOnlineStore()._get_client(config), store.project)
    raise DataError(f"{store.repo_path}: nobody can be erased from an online store of type {config.type!r} here")


def _key(store: FeatureStore, user_id: str) -> bytes:
    entity = EntityKey(join_keys=[USER_ID], entity_values=[Value(string_val=user_id)])
    return bytes(serialize_entity_key(entity, store.config.entity_key_serialization_version))


def _tables(connection: sqlite3.Connection) -> list[str]:
    """Quoted names of all tables of features, those of views that no longer exist too."""
    names = [row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
    quoted = ['"' + name.replace('"', '""') + '"' for name in names]
    return [name for name in quoted if "entity_key" in _columns(connection, name)]


def _columns(connection: sqlite3.Connection, table: str) -> set[str]:
    return {row[1] for row in connection.execute(f"PRAGMA table_info({table})")}


def _number(connection: sqlite3.Connection, table: str, key: bytes) -> int:
    return int(connection.execute(f"SELECT count(*) FROM {table} WHERE entity_key = ?", (key,)).fetchone()[0])
