"""The feature store of a run: opened, filled and read here, and nowhere else.

Training reads with `training_features`, serving with `online_features`; both go through the feature service
`profile_features`. Everything that Feast writes stands under one workspace folder (or in Redis, by
configuration). Feast 0.67 sends no usage statistics, and a test holds it to that.
"""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import yaml
from feast import FeatureService, FeatureStore

from conf_profile import tables
from conf_profile.config import FeaturesConfig
from conf_profile.data.dataset import parse_time
from conf_profile.dialogue.prompts import UserFeatures
from conf_profile.errors import DataError
from conf_profile.features import DEFAULT_FEATURES, FeatureSchema, FeatureType
from conf_profile.files import write_text
from feature_repo.dask_tokens import name_frames_without_hashing
from feature_repo.definitions import (
    BEHAVIOUR,
    CONSENT,
    DEMOGRAPHICS,
    SERVICE,
    TIMESTAMP,
    USER_ID,
    behaviour_view,
    demographics_view,
    feature_service,
    feature_type,
    inferred_view,
    user,
)
from feature_repo.inferred import inferred_file, prepare

PROJECT = "conf_profile"
EPOCH = datetime.fromtimestamp(0, UTC)
MATERIALISED_VIEWS = (BEHAVIOUR, DEMOGRAPHICS)
"""The views whose rows are brought online from their tables."""

_CONSENT_AT = pa.schema([pa.field(USER_ID, pa.string(), nullable=False), pa.field(CONSENT, pa.bool_())])


@dataclass(frozen=True)
class OnlineUser:
    """One user as the online store knows them. `consent` is None for somebody without demographics.

    `as_of` is the time of the latest behaviour; None for somebody without any.
    """

    features: UserFeatures
    consent: bool | None
    as_of: datetime | None


def open_store(
    workspace: Path,
    behaviour: Path,
    demographics: Path,
    config: FeaturesConfig,
    features: FeatureSchema = DEFAULT_FEATURES,
) -> FeatureStore:
    """A feature store over two Parquet files, its registry under `workspace`, applied and ready to read."""
    workspace.mkdir(parents=True, exist_ok=True)
    settings = _settings(workspace.resolve(), config)
    write_text(workspace / "feature_store.yaml", yaml.safe_dump(settings, sort_keys=False))
    store = connect(workspace)
    apply(store, behaviour, demographics, features)
    return store


def connect(workspace: Path, patience: float | None = None) -> FeatureStore:
    """The store that `open_store` made in this folder; serving starts here. DataError where there is none.

    With `patience` a Redis that is silent for so many seconds, or away, is an error at once. Left to itself the client
    waits for ever for the one, and for seconds for the other.
    """
    if not (workspace / "feature_store.yaml").is_file():
        raise DataError(f"{workspace}: has no feature_store.yaml; run the features step, or `feast apply`, first")
    name_frames_without_hashing()
    store = FeatureStore(repo_path=str(workspace))
    if patience is not None and store.config.online_store.type == "redis":
        _limit_waiting(store.config.online_store, patience)
    return store


def _limit_waiting(redis: Any, seconds: float) -> None:
    """Feast takes the client's options from the connection string; what it says itself stays, as the later one."""
    address, *given = redis.connection_string.split(",")
    limits = (f"socket_timeout={seconds}", f"socket_connect_timeout={seconds}", "retry=null")
    redis.connection_string = ",".join([address, *limits, *given])


def apply(store: FeatureStore, behaviour: Path, demographics: Path, features: FeatureSchema = DEFAULT_FEATURES) -> None:
    """Registers the definitions over the two files; doing so again changes nothing."""
    for path, table in (
        (behaviour, tables.behaviour_table(features)),
        (demographics, tables.demographics_table(features)),
    ):
        if not path.is_file():
            raise DataError(f"{path}: no such file; the feature store reads it")
        _require_columns(path, table)
    register(store, str(behaviour.resolve()), str(demographics.resolve()), features)
    prepare(store)


def _require_columns(path: Path, table: tables.TableSchema) -> None:
    """DataError where a table has not what is declared: Feast would say so in the middle of a join."""
    try:
        present = pq.read_schema(path).names
    except (OSError, pa.ArrowInvalid) as error:
        raise DataError(f"{path}: cannot be read as Parquet: {error}") from error
    if missing := [name for name in table.schema.names if name not in present]:
        raise DataError(
            f"{path}: the table {table.name!r} lacks the column(s) {', '.join(missing)}; it has {', '.join(present)}"
        )


def register(
    store: FeatureStore, behaviour: str, demographics: str, features: FeatureSchema = DEFAULT_FEATURES
) -> None:
    """Registers the definitions over two tables, which may be anywhere that Feast's file store reads and need not be
    there yet. What the registry knows of earlier materialisations stays."""
    views = behaviour_view(behaviour, features), demographics_view(demographics, features)
    with _silence_feast():
        store.apply([user, *views, feature_service(*views), inferred_view(inferred_file(store))])


def training_features(store: FeatureStore, user_ids: Sequence[str], as_of: datetime | str) -> pa.Table:
    """[users]: user_id, every feature, consent; what was known of each user at `as_of`, in the given order.

    Lists are null where there is no behaviour row, the rest without a demographics row.

    Point-in-time correct: for each user and view the latest row at or before `as_of`, none after it. Each
    view is read by itself, because Feast drops a user whose rows of one view all lie after `as_of` together
    with what another view knows; and the result is joined back on the given users, because Feast does not
    keep their order.
    """
    return _read_offline(store, user_ids, as_of, _features_at(registered_features(store)))


def consenting_users(store: FeatureStore, user_ids: Sequence[str], as_of: datetime | str) -> list[str]:
    """Those of the users whose latest consent at `as_of` is true, in the given order; reads only consent.

    Somebody without demographics never gave consent.
    """
    known = _read_offline(store, user_ids, as_of, _CONSENT_AT)
    consenting: list[str] = known.filter(pc.fill_null(known.column(CONSENT), False)).column(USER_ID).to_pylist()
    return consenting


def registered_features(store: FeatureStore, service: FeatureService | None = None) -> dict[str, FeatureType]:
    """Name -> type of every feature that the registry has for a profile, lists first."""
    found = service or store.get_feature_service(SERVICE)
    features = (feature for view in found.feature_view_projections for feature in view.features)
    return {feature.name: feature_type(feature.dtype) for feature in features if feature.name not in (USER_ID, CONSENT)}


def _features_at(features: Mapping[str, FeatureType]) -> pa.Schema:
    columns = [pa.field(name, tables.arrow_type(kind)) for name, kind in features.items()]
    return pa.schema([_CONSENT_AT.field(USER_ID), *columns, _CONSENT_AT.field(CONSENT)])


def materialise(store: FeatureStore, as_of: datetime | str) -> None:
    """Brings the latest features at or before `as_of` into the online store.

    Inferred tags are not brought there: whoever writes them writes them online too, and Feast would put an older
    row over a newer one.
    """
    for view in MATERIALISED_VIEWS:
        materialise_view(store, view, EPOCH, parse_time(as_of, "as_of"))


def materialise_view(store: FeatureStore, view: str, start: datetime, end: datetime) -> None:
    """Brings the latest row of each user between two moments into the online store."""
    with _silence_feast():
        store.materialize(start, end, feature_views=[view])


def read_materialised_until(store: FeatureStore, view: str) -> datetime | None:
    """The end of the latest materialisation that the registry knows of; None before the first one."""
    moment: datetime | None = store.get_feature_view(view).most_recent_end_time
    return moment.replace(tzinfo=UTC) if moment and moment.tzinfo is None else moment


def profile_service(store: FeatureStore) -> FeatureService:
    """The feature service of a profile, from the registry as it was when it was loaded."""
    return store.get_feature_service(SERVICE, allow_cache=True)


def read_online(
    store: FeatureStore, user_ids: Sequence[str], service: FeatureService | None = None
) -> list[OnlineUser | None]:
    """What the online store knows of each user, in the given order, in one batched read; None: nothing.

    Whoever reads often gives the `service`: Feast takes longer to find it than to read one user.
    """
    if not user_ids:
        return []
    service = service or profile_service(store)
    response = store.get_online_features(
        features=service,
        entity_rows=[{USER_ID: user_id} for user_id in user_ids],
    ).to_dict(include_event_timestamps=True)
    features = registered_features(store, service)
    return [_online_user(user_id, features, response, row) for row, user_id in enumerate(user_ids)]


def online_features(store: FeatureStore, user_ids: Sequence[str]) -> list[UserFeatures | None]:
    """The features of each user who may be profiled; None for somebody unknown or without consent."""
    return [known.features if known and known.consent else None for known in read_online(store, user_ids)]


def _settings(workspace: Path, config: FeaturesConfig) -> dict[str, Any]:
    return {
        "project": PROJECT,
        "provider": "local",
        "registry": {
            "registry_type": "file",
            "path": str(workspace / "registry.db"),
            # Loaded once: no request ever waits for a refresh, and none is refused while rows are written.
            "cache_ttl_seconds": 0,
            "serve_features_while_materializing": True,
        },
        "offline_store": {"type": "file"},
        "online_store": _online_store(workspace, config),
        "entity_key_serialization_version": 3,
    }


def _online_store(workspace: Path, config: FeaturesConfig) -> dict[str, str]:
    if config.online_store == "redis":
        return {"type": "redis", "connection_string": config.redis_url}
    return {"type": "sqlite", "path": str(workspace / "online.db")}


def _read_offline(store: FeatureStore, user_ids: Sequence[str], as_of: datetime | str, schema: pa.Schema) -> pa.Table:
    entities = pd.DataFrame({USER_ID: pd.Series(list(user_ids), dtype=object)})
    _refuse_duplicates(entities)
    if entities.empty:
        return schema.empty_table()
    entities[TIMESTAMP] = pd.Timestamp(parse_time(as_of, "as_of"))
    joined = entities[[USER_ID]]
    for references in _references(store, schema.names):
        joined = joined.merge(_read_view(store, entities, references), on=USER_ID, how="left")
    return pa.table({field.name: _column(joined[field.name], field.type) for field in schema}, schema)


def _references(store: FeatureStore, names: Sequence[str]) -> list[list[str]]:
    """The named features of the service, in the form 'view:feature', one list for each view that has any."""
    views = store.get_feature_service(SERVICE).feature_view_projections
    wanted = [
        [f"{view.name_to_use()}:{feature.name}" for feature in view.features if feature.name in names] for view in views
    ]
    return [references for references in wanted if references]


def _read_view(store: FeatureStore, entities: pd.DataFrame, references: list[str]) -> pd.DataFrame:
    with _silence_feast():
        data = store.get_historical_features(entity_df=entities, features=references).to_df()
    return data.drop(columns=TIMESTAMP)


def _column(values: pd.Series, kind: pa.DataType) -> pa.Array:
    return pa.array([_value(value) for value in values], kind)


def _value(value: Any) -> Any:
    """Pandas' ways to say null and list, as Python's."""
    if value is None or (not hasattr(value, "__len__") and pd.isna(value)):
        return None
    return value if isinstance(value, str) or not hasattr(value, "__len__") else list(value)


def _refuse_duplicates(entities: pd.DataFrame) -> None:
    twice = entities[USER_ID][entities[USER_ID].duplicated()]
    if len(twice):
        raise DataError(f"user {twice.iloc[0]!r} is asked for twice; name every user once")


def _online_user(
    user_id: str, features: Mapping[str, FeatureType], response: Mapping[str, list[Any]], row: int
) -> OnlineUser | None:
    values = {name: _null_of_nan(response[name][row]) for name in features}
    consent = response[CONSENT][row]
    if consent is None and all(value is None for value in values.values()):
        return None
    any_list = next(name for name, kind in features.items() if kind == "list")
    return OnlineUser(UserFeatures(user_id, **values), consent, _moment(response[f"{any_list}__ts"][row]))


def _null_of_nan(value: Any) -> Any:
    """What some programs write where there is no number."""
    return None if isinstance(value, float) and math.isnan(value) else value


def _moment(seconds: int) -> datetime | None:
    """Feast's event time, in seconds of the epoch; 0 where there is no row."""
    return datetime.fromtimestamp(seconds, UTC) if seconds else None


@contextmanager
def _silence_feast() -> Iterator[None]:
    """Keeps Feast's progress bars and banners out of a step's output; exceptions pass.

    The redirection holds for the whole process while it lasts; reading online, as a server does, has none.
    """
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()), warnings.catch_warnings():
        # Dask, under Feast, joins a dictionary-encoded user_id with plain strings, and does it rightly.
        warnings.filterwarnings("ignore", "Merging dataframes with merge column data type mismatches")
        yield
