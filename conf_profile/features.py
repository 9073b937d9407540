"""What is known of a user, by name: the same names in tables, in Feast, in requests and in prompts.

A task declares its features (`dialogue.task`); what reads or writes them follows the declaration. Lists of texts are
columns of the table `behaviour`, scalars are columns of `demographics`. Consent is no feature: it decides whether any
feature is read.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, get_args

FeatureType = Literal["list", "text", "category", "number"]
FEATURE_TYPES: tuple[FeatureType, ...] = get_args(FeatureType)
FeatureValue = Sequence[str] | str | float | None

MAX_KEYPHRASE_CHARACTERS = 80
MAX_TEXT_CHARACTERS = 160
DEFAULT_CHARACTERS: Mapping[FeatureType, int] = {
    "list": MAX_KEYPHRASE_CHARACTERS,
    "text": MAX_TEXT_CHARACTERS,
    "category": 40,
    "number": 40,
}
"""The most characters of one value in a prompt; of a list, of each of its texts."""


@dataclass(frozen=True)
class Feature:
    """One feature: a list of texts, the most recent one last, or a scalar that may be null.

    `label` is what a prompt calls it. `self_report_of` names the attribute about which the user says it here, or is
    empty.
    """

    name: str
    type: FeatureType
    label: str
    max_characters: int
    self_report_of: str = ""


@dataclass(frozen=True)
class FeatureSchema:
    """The features of a task, in the order in which a prompt shows them."""

    features: tuple[Feature, ...]

    def __iter__(self) -> Iterator[Feature]:
        return iter(self.features)

    @cached_property
    def names(self) -> tuple[str, ...]:
        """All names, in order."""
        return tuple(feature.name for feature in self.features)

    @cached_property
    def lists(self) -> tuple[str, ...]:
        """The names of the lists, in order."""
        return tuple(feature.name for feature in self.features if feature.type == "list")

    @cached_property
    def scalars(self) -> tuple[str, ...]:
        """The names of all others, in order."""
        return tuple(feature.name for feature in self.features if feature.type != "list")

    @cached_property
    def types(self) -> Mapping[str, FeatureType]:
        """Name -> type."""
        return {feature.name: feature.type for feature in self.features}

    def differences(self, other: Mapping[str, FeatureType]) -> list[str]:
        """What `other` (name -> type) lacks, has besides, and has of another kind, each in words; empty: nothing.

        Text and category are stored and asked for alike, so they are no difference.
        """
        own = {name: _storage_type(kind) for name, kind in self.types.items()}
        others = {name: _storage_type(kind) for name, kind in other.items()}
        missing = [f"{name} ({own[name]}) is missing" for name in own if name not in others]
        further = [f"{name} ({others[name]}) is not declared" for name in others if name not in own]
        changed = [
            f"{name} is {others[name]}, declared as {own[name]}"
            for name in own
            if name in others and own[name] != others[name]
        ]
        return missing + further + changed


def _storage_type(kind: FeatureType) -> FeatureType:
    return "text" if kind == "category" else kind


DEFAULT_FEATURES = FeatureSchema(
    (
        Feature("watch", "list", "watch", MAX_KEYPHRASE_CHARACTERS),
        Feature("search", "list", "search", MAX_KEYPHRASE_CHARACTERS),
        Feature("submit", "list", "submit", MAX_KEYPHRASE_CHARACTERS),
        Feature("self_age", "text", "age", 20, "age"),
        Feature("self_gender", "text", "gender", 20, "gender"),
        Feature("signature", "text", "signature", MAX_TEXT_CHARACTERS),
        Feature("region", "category", "region", 40),
    )
)
"""The paper's features (arXiv 2509.18864): what a user watched, searched for and submitted, and said at sign-up."""
