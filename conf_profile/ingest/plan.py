"""What to ingest and how: columns, names, snapshots, consent; from the command line, from a mapping file, or both.

A mapping file is YAML with the keys of `MappingFile`. Its paths are relative to its own folder.

    events:
      - {path: logs/watch, feature: watched}        # columns as below, all of them one feature
      - {path: logs/search.jsonl, text: query, feature: searched}
    user: uid
    time: ts
    text: title
    users: {path: users.csv, consent: agreed, fields: [plan]}
    names: {plan: subscription, heartbeat: null}    # kind or field -> name of the feature; null leaves it out
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import Field, ValidationError, model_validator

from conf_profile.errors import ConfigError
from conf_profile.storage.object_address import is_remote
from conf_profile.strict_model import StrictModel, explain

Period = Literal["last", "daily", "weekly", "monthly"]

KEYPHRASES = 200
"""Texts of a list in a snapshot: more than any prompt shows."""
MAX_DROPPED = 0.05


@dataclass(frozen=True)
class EventSource:
    """One place with events: a file, a folder or an address. Several texts are a kind each, called by their columns.

    `kind` is the column with an event's kind; `feature` says instead that all events here are of this one kind.
    """

    place: str
    user: str
    time: str
    texts: tuple[str, ...]
    kind: str | None = None
    feature: str | None = None

    @property
    def columns(self) -> tuple[str, ...]:
        """All columns that are read."""
        return (self.user, self.time, *self.texts, *([self.kind] if self.kind else []))


@dataclass(frozen=True)
class UserSource:
    """The place with what users said of themselves. `fields` None: every column that does not look like an id."""

    place: str
    user: str
    time: str | None = None
    consent: str | None = None
    fields: tuple[str, ...] | None = None


@dataclass(frozen=True)
class LabelSource:
    """The place with true labels of some users."""

    place: str
    user: str


@dataclass(frozen=True)
class Plan:
    """Everything that `ingest` does. `as_of`: events after it are left out; None: the present moment.

    `names` gives kinds and fields the names of their features; None leaves one out. `max_dropped` is the share of texts
    without user or time, or in the future, from which on the events are refused.
    """

    events: tuple[EventSource, ...]
    out: Path
    users: UserSource | None = None
    consent_for_all: bool = False
    names: Mapping[str, str | None] = field(default_factory=dict)
    separator: str | None = None
    time_format: str | None = None
    snapshot: Period = "last"
    keyphrases: int = KEYPHRASES
    as_of: datetime | None = None
    max_dropped: float = MAX_DROPPED
    memory: str = "2GB"
    task: Path | None = None
    labels: LabelSource | None = None


class EventMapping(StrictModel):
    """An entry of `events`; what it does not say is said for all."""

    path: str
    user: str | None = None
    time: str | None = None
    text: str | list[str] | None = None
    kind: str | None = None
    feature: str | None = None


class UserMapping(StrictModel):
    """The key `users`."""

    path: str
    user: str | None = None
    time: str | None = None
    consent: str | None = None
    fields: list[str] | None = None


class LabelMapping(StrictModel):
    """The key `labels`."""

    path: str
    user: str | None = None


class MappingFile(StrictModel):
    """A mapping file, or the options of the command line in its form."""

    events: list[EventMapping] = Field(default_factory=list)
    user: str | None = None
    time: str | None = None
    text: str | list[str] | None = None
    kind: str | None = None
    users: UserMapping | None = None
    labels: LabelMapping | None = None
    consent_for_all: bool = False
    names: dict[str, str | None] = Field(default_factory=dict)
    separator: str | None = Field(None, min_length=1)
    time_format: str | None = Field(None, min_length=1)
    snapshot: Period = "last"
    keyphrases: int = Field(KEYPHRASES, ge=1, le=10_000)
    as_of: datetime | None = None
    max_dropped: float = Field(MAX_DROPPED, ge=0, le=1)
    task: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _spell_out_paths(cls, given: Any) -> Any:
        """A path alone stands for a mapping with a path."""
        if not isinstance(given, Mapping):
            return given
        spelt = dict(given)
        for key in ("users", "labels"):
            if isinstance(spelt.get(key), str):
                spelt[key] = {"path": spelt[key]}
        if isinstance(spelt.get("events"), list):
            spelt["events"] = [{"path": event} if isinstance(event, str) else event for event in spelt["events"]]
        return spelt


def read_mapping(path: Path) -> dict[str, Any]:
    """The file's values with absolute paths; ConfigError names the key that is wrong."""
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}; it holds the mapping as YAML") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not valid YAML: {error}") from error
    given = _parse(data if data is not None else {}, str(path)).model_dump(exclude_unset=True)
    named = [*given.get("events", []), given.get("users"), given.get("labels")]
    for section, key in (*((place, "path") for place in named), (given, "task")):
        if section and section.get(key):
            section[key] = _absolute(section[key], path.parent)
    return given


def make_plan(values: Mapping[str, Any], out: Path, memory: str = "2GB") -> Plan:
    """The plan of a mapping's values; ConfigError says which option is missing or contradicts another."""
    given = _parse(values, "ingest")
    if not given.events:
        raise ConfigError("no events: name files, folders or s3:// addresses with --events")
    users = _user_source(given)
    if (users is None or users.consent is None) and not given.consent_for_all:
        raise ConfigError(
            "nobody's consent is known: name the column of --users that has it with --consent COLUMN, or say with "
            "--consent-for-all that every user has agreed to be profiled"
        )
    if users is not None and users.consent is not None and given.consent_for_all:
        raise ConfigError(f"--consent {users.consent} and --consent-for-all contradict each other; give one of them")
    as_of = given.as_of and (given.as_of if given.as_of.tzinfo else given.as_of.replace(tzinfo=UTC))
    return Plan(
        events=tuple(_event_source(event, given) for event in given.events),
        out=out,
        users=users,
        consent_for_all=given.consent_for_all,
        names=given.names,
        separator=given.separator,
        time_format=given.time_format,
        snapshot=given.snapshot,
        keyphrases=given.keyphrases,
        as_of=as_of,
        max_dropped=given.max_dropped,
        memory=memory,
        task=Path(given.task) if given.task else None,
        labels=_label_source(given),
    )


def _event_source(own: EventMapping, given: MappingFile) -> EventSource:
    user, time = own.user or given.user, own.time or given.time
    text = own.text or given.text
    missing = [name for name, value in (("--user", user), ("--time", time), ("--text", text)) if not value]
    if missing:
        raise ConfigError(f"{own.path}: {' and '.join(missing)} not given; name the columns of the events")
    assert user and time and text
    kind = own.kind or (None if own.feature else given.kind)
    texts = (text,) if isinstance(text, str) else tuple(text)
    if kind and (len(texts) > 1 or own.feature):
        raise ConfigError(f"{own.path}: --kind and {'several --text' if len(texts) > 1 else 'feature'} contradict each "
                          "other: each says what kind an event is of; give one of them")  # fmt: skip
    columns = [user, time, *texts, *([kind] if kind else [])]
    twice = sorted({name for name in columns if columns.count(name) > 1})
    if twice:
        raise ConfigError(
            f"{own.path}: the column {twice[0]!r} is named twice; user, time, text and kind are different"
        )
    return EventSource(own.path, user, time, texts, kind, own.feature)


def _user_source(given: MappingFile) -> UserSource | None:
    if given.users is None:
        return None
    own = given.users
    user = own.user or given.user
    if not user:
        raise ConfigError(f"{own.path}: --user not given; name the column with the user's id")
    return UserSource(own.path, user, own.time, own.consent, None if own.fields is None else tuple(own.fields))


def _label_source(given: MappingFile) -> LabelSource | None:
    if given.labels is None:
        return None
    own = given.labels
    user = own.user or given.user
    if not user:
        raise ConfigError(f"{own.path}: --user not given; name the column with the user's id")
    if not given.task:
        raise ConfigError(f"{own.path}: labels are tags of a task's attributes; name the task.yaml with --task")
    return LabelSource(own.path, user)


def _parse(data: Any, source: str) -> MappingFile:
    try:
        return MappingFile.model_validate(data)
    except ValidationError as error:
        raise ConfigError(f"{source}: {explain(error)}") from error


def _absolute(place: str, folder: Path) -> str:
    return place if is_remote(place) else str(folder / place)
