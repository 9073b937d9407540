"""Names of features from the words of event logs, and the `task.yaml` that keeps the words as labels.

A name is `[a-z][a-z0-9_]*`, because columns, requests and answers have it; the label is what the prompt shows, and may
be of any script.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from conf_profile.dialogue import task as tasks
from conf_profile.dialogue.task import MAX_LABEL_CHARACTERS, RESERVED_FEATURES
from conf_profile.errors import DataError
from conf_profile.features import FeatureType
from conf_profile.files import write_text

MAX_NAME_CHARACTERS = 40
MAX_KINDS = 50
"""More different kinds than this are no kinds: each would be a feature, a column and a line of the prompt."""
_NAME = re.compile(r"[a-z][a-z0-9_]{0,39}")
_NOT_IN_LABEL = re.compile(r"[<>{};:]")
_JOINERS = "\u200c\u200d"
_HEADER = """\
# Written by `conf-profile ingest`: the features that it found. `label` is what a prompt calls a feature.
"""
_NO_ATTRIBUTES = """\
# What should be inferred cannot be known from events. Remove the # and write the attributes with their tags:
#
# instruction: You infer attributes of a customer from what the customer looked at and bought.
# attributes:
#   age: ["18-24", "25-34", "35+"]
#   household: {single: lives alone, family: lives with children}
"""


@dataclass(frozen=True)
class FoundFeature:
    """A feature and the word that it was in the events (a kind) or the users' table (a column)."""

    name: str
    type: FeatureType
    word: str


@dataclass(frozen=True)
class TaskFile:
    """What a given task says: its keys but `features`, and of these what each is called."""

    path: Path | None
    rest: Mapping[str, Any]
    features: Mapping[str, Mapping[str, Any]]

    @property
    def attributes(self) -> Sequence[str]:
        """Names of the attributes."""
        given = self.rest.get("attributes")
        return list(given) if isinstance(given, Mapping) else []

    def name_of(self, word: str, kind: FeatureType) -> str | None:
        """The name of the feature that has this label, so that it stays the same from one call to the next."""
        is_list = kind == "list"
        labels = {
            label_of(str(given.get("label", name))): name
            for name, given in self.features.items()
            if (given.get("type") == "list") == is_list
        }
        return labels.get(label_of(word))


def read_task(path: Path | None) -> TaskFile:
    """Reads `task.yaml`, or a `taxonomy.yaml`; without a path an empty one. DataError for what is no such file."""
    if path is None:
        return TaskFile(None, {}, {})
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise DataError(f"{path}: cannot be read: {error}; --task names a task.yaml or taxonomy.yaml") from error
    if not isinstance(data, Mapping) or not isinstance(data.get("features") or {}, Mapping):
        raise DataError(f"{path}: expected a mapping with 'attributes'; --task names a task.yaml or taxonomy.yaml")
    features = {
        str(name): {"type": given} if isinstance(given, str) else dict(given)
        for name, given in (data.get("features") or {}).items()
        if isinstance(given, str | Mapping)
    }
    return TaskFile(path, {name: value for name, value in data.items() if name != "features"}, features)


def name_features(
    words: Iterable[tuple[str, FeatureType]], names: Mapping[str, str | None], task: TaskFile, generated: str
) -> list[FoundFeature]:
    """Names for words: what `names` or the task says, else the word in small Latin letters, else `generated` and a
    number. Words that `names` gives no name are left out; words that it gives one name are one feature, of the first.
    """
    found: list[FoundFeature] = []
    for word, kind in words:
        if word in names and names[word] is None:
            continue
        name = names.get(word) or task.name_of(word, kind) or slug(word, generated)
        found.append(FoundFeature(name or _next_name(generated, found, names, task), kind, word))
    return found


def check_names(found: Sequence[FoundFeature], names: Mapping[str, str | None], task: TaskFile) -> None:
    """DataError for a name that is none, that two words would share, or that an attribute has."""
    by_name: dict[str, FoundFeature] = {}
    for feature in found:
        word, name = feature.word, feature.name
        remedy = f"name it otherwise, with --name '{word}=NAME' or under `names` of a mapping"
        if not _NAME.fullmatch(name):
            raise DataError(f"{word!r} would be the feature {name!r}, which does not match [a-z][a-z0-9_]*; {remedy}")
        if name in RESERVED_FEATURES:
            raise DataError(f"{word!r} would be the feature {name!r}, which is a column of every table; {remedy}")
        if name in task.attributes:
            if feature.type != "list":
                remedy = (
                    f"the truth is no feature: leave it out with --name '{word}=' (--labels reads true labels); only "
                    f"what users say of themselves may stay, under another name, with --name '{word}=NAME'"
                )
            raise DataError(f"{word!r} would be the feature {name!r}, which is an attribute of {task.path}; {remedy}")
        first = by_name.setdefault(name, feature)
        merged = feature.type == first.type == "list" and names.get(word) == names.get(first.word) == name
        if first is not feature and not merged:
            if first.word == word:
                remedy = "rename the column, or choose others with --field"
            raise DataError(
                f"{first.word!r} and {word!r} would both be the feature {name!r}; {remedy} (or both alike, to have two "
                "kinds of events in one)"
            )


def slug(word: str, prefix: str) -> str | None:
    """The word in small Latin letters, digits and _; None where it has letters of another script.

    `prefix` stands before what begins with a digit.
    """
    decomposed = unicodedata.normalize("NFKD", word.strip())
    plain = "".join(character for character in decomposed if not unicodedata.combining(character))
    if any(character.isalnum() and not character.isascii() for character in plain):
        return None
    name = re.sub(r"[^a-z0-9]+", "_", plain.lower()).strip("_")
    if not name:
        return None
    return (name if name[0].isalpha() else f"{prefix}_{name}")[:MAX_NAME_CHARACTERS].rstrip("_")


def label_of(word: str) -> str:
    """The word as a prompt's label: one line, no marks of the prompt, at most MAX_LABEL_CHARACTERS characters."""
    shown = "".join(c if c.isprintable() or c in _JOINERS else " " for c in _NOT_IN_LABEL.sub(" ", word))
    return " ".join(shown.split())[:MAX_LABEL_CHARACTERS].strip().rstrip(_JOINERS)


def write_task(path: Path, found: Sequence[FoundFeature], task: TaskFile) -> None:
    """`task.yaml`: what the given task says, and the features that were found, each with its word as the label.

    TaxonomyError, with the place in the given task, where the two do not go together.
    """
    features: dict[str, dict[str, Any]] = {}
    labels: set[str] = set()
    for feature in found:
        if feature.name in features:
            continue
        given = dict(task.features.get(feature.name, {}))
        label = str(given.get("label") or _free_label(label_of(feature.word) or feature.name, labels))
        labels.add(label)
        features[feature.name] = {**given, "type": feature.type, "label": label}
    if task.attributes:
        tasks.parse({**task.rest, "features": features}, str(task.path))
    text = _HEADER + ("" if task.attributes else _NO_ATTRIBUTES)
    if task.rest:
        text += _dump(task.rest)
    write_text(path, text + _dump({"features": features}))


def _free_label(label: str, labels: set[str]) -> str:
    """A prompt must tell two features apart."""
    if label not in labels:
        return label
    return next(other for n in range(2, 1000) if (other := f"{label[: MAX_LABEL_CHARACTERS - 4]} {n}") not in labels)


def _next_name(generated: str, found: Sequence[FoundFeature], names: Mapping[str, str | None], task: TaskFile) -> str:
    taken = {feature.name for feature in found} | {name for name in names.values() if name} | set(task.features)
    return next(name for n in range(1, 10_000) if (name := f"{generated}_{n}") not in taken)


def _dump(data: Mapping[str, Any]) -> str:
    return yaml.safe_dump(dict(data), sort_keys=False, allow_unicode=True, width=120)
