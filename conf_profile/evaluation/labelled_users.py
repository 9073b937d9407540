"""On how many people a figure stands: the test users who have true labels, and how many have one of each attribute."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class LabelledUsers:
    """Of the `test` users, how many have any true label, and attribute -> how many have one of it."""

    test: int
    labelled: int
    by_attribute: Mapping[str, int]

    @property
    def differing(self) -> Mapping[str, int]:
        """`by_attribute` where some attribute has fewer than `labelled`; empty where all have as many."""
        return self.by_attribute if set(self.by_attribute.values()) - {self.labelled} else {}

    def __str__(self) -> str:
        """E.g. '3 of the 75 test users (age 3, gender 1)', or 'all 75 test users'."""
        differing = ", ".join(f"{name} {count:,}" for name, count in self.differing.items())
        share = "all" if self.labelled == self.test else f"{self.labelled:,} of the"
        return f"{share} {self.test:,} test users" + (f" ({differing})" if differing else "")


def is_judged(evaluation: Mapping[str, Any]) -> bool:
    """Whether true labels were there for an evaluation, by its content; those of earlier releases always had some."""
    return bool(evaluation.get("judged", True))


def find_labelled_users(evaluation: Mapping[str, Any]) -> LabelledUsers | None:
    """What an evaluation's content says of them; None for one of an earlier release, which did not count them."""
    by_attribute = evaluation.get("labelled_test_users_by_attribute")
    if by_attribute is None:
        return None
    return LabelledUsers(int(evaluation["users"].get("test", 0)), int(evaluation["labelled_test_users"]), by_attribute)
