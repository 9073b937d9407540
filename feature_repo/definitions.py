"""What Feast knows of a user: one entity, two feature views, and the one feature service that training and
serving share; and beside them what our own models inferred, for others to read.

`feature_repo.store` builds the objects over the files of a run. For `feast apply` from the shell, the objects
at the end of the module read the files that CONF_PROFILE_BEHAVIOUR and CONF_PROFILE_DEMOGRAPHICS name, with the
features of the task that CONF_PROFILE_TASK names (without it, the default features).
"""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path

from feast import Entity, FeatureService, FeatureView, Field, FileSource, ValueType
from feast.types import Array, Bool, FeastType, Float64, Int64, String

from conf_profile.dialogue import task as tasks
from conf_profile.features import DEFAULT_FEATURES, FeatureSchema, FeatureType

SERVICE = "profile_features"
TASK_VARIABLE = "CONF_PROFILE_TASK"
"""Environment variable: the file of the task whose features are registered."""
USER_ID = "user_id"
TIMESTAMP = "event_timestamp"
CONSENT = "consent"
BEHAVIOUR, DEMOGRAPHICS, INFERRED = "behaviour", "demographics", "inferred_profile"
INFERRED_FEATURES = ("attributes", "tags", "levels", "model_version")

NO_EXPIRY = timedelta(0)
"""Feast's zero time to live: a snapshot holds until the next one."""

user = Entity(
    name="user", join_keys=[USER_ID], value_type=ValueType.STRING, description="somebody who uses the product"
)


def feast_type(kind: FeatureType) -> FeastType:
    """How Feast stores a feature of this type."""
    return Array(String) if kind == "list" else Float64 if kind == "number" else String


def feature_type(kind: FeastType) -> FeatureType:
    """The inverse; a category is a text to Feast."""
    return "list" if kind == Array(String) else "number" if kind == Float64 else "text"


def declared_features(task_file: str) -> FeatureSchema:
    """The features of a task's file; the default ones where none is named."""
    return tasks.load(Path(task_file)).features if task_file else DEFAULT_FEATURES


def behaviour_view(path: Path | str, features: FeatureSchema = DEFAULT_FEATURES) -> FeatureView:
    """Snapshots of the most recent keyphrases; the lists stay lists, most recent last."""
    return FeatureView(
        name=BEHAVIOUR,
        entities=[user],
        ttl=NO_EXPIRY,
        schema=[
            Field(name=USER_ID, dtype=String),
            *(Field(name=name, dtype=feast_type("list")) for name in features.lists),
        ],
        source=_source(BEHAVIOUR, path),
    )


def demographics_view(path: Path | str, features: FeatureSchema = DEFAULT_FEATURES) -> FeatureView:
    """The scalars, such as what the user said at sign-up, and whether the user agreed to be profiled."""
    return FeatureView(
        name=DEMOGRAPHICS,
        entities=[user],
        ttl=NO_EXPIRY,
        schema=[
            Field(name=USER_ID, dtype=String),
            *(Field(name=name, dtype=feast_type(features.types[name])) for name in features.scalars),
            Field(name=CONSENT, dtype=Bool),
        ],
        source=_source(DEMOGRAPHICS, path),
    )


def inferred_view(path: Path | str) -> FeatureView:
    """The accepted tags of each user, for other models to read: three lists of equal length, and who said so.

    Attributes are data, each taxonomy has its own: a column for each would make every taxonomy a new schema. A row
    for each would let one read meet half of an old profile and half of a new one. Lists of native types are
    replaced together, and need no text that only we could parse.

    It belongs to no feature service of ours: a model that read its own answers would come to believe them.
    """
    return FeatureView(
        name=INFERRED,
        entities=[user],
        ttl=NO_EXPIRY,
        schema=[
            Field(name=USER_ID, dtype=String),
            Field(name="attributes", dtype=Array(String)),
            Field(name="tags", dtype=Array(String)),
            Field(name="levels", dtype=Array(Int64)),
            Field(name="model_version", dtype=String),
        ],
        source=_source(INFERRED, path),
    )


def feature_service(behaviour: FeatureView, demographics: FeatureView) -> FeatureService:
    """All features of a profile. Training and serving both name this service and nothing else."""
    return FeatureService(name=SERVICE, features=[behaviour, demographics])


def _source(name: str, path: Path | str) -> FileSource:
    return FileSource(name=f"{name}_source", path=str(path), timestamp_field=TIMESTAMP)


SCHEMA = declared_features(os.environ.get(TASK_VARIABLE, ""))
behaviour = behaviour_view(os.environ.get("CONF_PROFILE_BEHAVIOUR", "data/behaviour.parquet"), SCHEMA)
demographics = demographics_view(os.environ.get("CONF_PROFILE_DEMOGRAPHICS", "data/demographics.parquet"), SCHEMA)
profile_features = feature_service(behaviour, demographics)
inferred_profile = inferred_view("inferred_profile.parquet")
