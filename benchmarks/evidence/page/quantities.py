"""What the page reports beyond the rates themselves, seed by seed, out of counts and observations.

Everything is a share in [0, 1] or a difference of shares, unless a docstring says otherwise. A quantity that a seed
does not have (the precision of no answers) is left out of that seed, never set to 0.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from statistics import fmean
from typing import Any

from benchmarks.evidence.page.findings import Values, subtract
from benchmarks.evidence.results import Results
from conf_profile.dialogue.output_format import LEVELS
from conf_profile.evaluation.arms import CEILING, TEACHER_SINGLE

Tags = Mapping[str, Values]
"""ATTRIBUTE=TAG -> a value by seed."""
TAG_SLICE = "tag: "
LOWEST_LEVEL, HIGHEST_LEVEL = min(LEVELS), max(LEVELS)


def rate(results: Results, arm: str, metric: str, **where: Any) -> dict[int, float]:
    """Precision, recall, f1 or coverage of an arm; `where` narrows to a slice_, an attribute, a tau."""
    rates = results.by_seed(arm, **where).items()
    return {seed: found[metric] for seed, found in rates if metric != "precision" or found["coverage"]}


def slope(results: Results, arm: str) -> dict[int, float]:
    """Precision at τ = 5 minus precision at τ = 1: what it brings to withhold all but the surest answers."""
    return subtract(*(rate(results, arm, "precision", tau=tau) for tau in (HIGHEST_LEVEL, LOWEST_LEVEL)))


def step(results: Results, arm: str, metric: str, tau: int) -> dict[int, float]:
    """The rate at `tau` minus the rate one level below it."""
    return subtract(*(rate(results, arm, metric, tau=level) for level in (tau, tau - 1)))


def share_of_possible(results: Results, arm: str) -> dict[int, float]:
    """(F1 - teacher's single sample) / (ceiling - teacher's single sample); empty where one of the two is no arm."""
    single, ceiling = (rate(results, name, "f1") for name in (TEACHER_SINGLE, CEILING))
    gained, possible = subtract(rate(results, arm, "f1"), single), subtract(ceiling, single)
    return {seed: gained[seed] / possible[seed] for seed in gained if possible.get(seed)}


def observed_values(results: Results, arm: str, name: str) -> Values:
    """An observation in its own unit."""
    return {row["seed"]: row["value"] for row in results.observations if (row["arm"], row["name"]) == (arm, name)}


def level_shares(results: Results, arm: str, kind: str = "level") -> list[Values]:
    """The share of the answers at each level 1..5; `kind` may be raw_levels or calibrated_levels too."""
    counts = [observed_values(results, arm, f"{kind} {level}") for level in LEVELS]
    total = {seed: sum(count[seed] for count in counts) for seed in counts[0]}
    return [{seed: count[seed] / total[seed] for seed in count if total[seed]} for count in counts]


def kept_by_tag(results: Results, arm: str) -> Tags:
    """Which share of the users that the reference gives a tag takes part in the second stage."""
    return _observed_by_tag(results, arm, "kept of ")


def reference_users(results: Results, arm: str) -> Tags:
    """How many users the reference gives a tag."""
    return _observed_by_tag(results, arm, "reference users of ")


def kept_share(results: Results, arm: str, tags: Iterable[str]) -> dict[int, float]:
    """As `kept_by_tag`, over all of these tags together: the unit is a user and one of its tags."""
    kept, users = kept_by_tag(results, arm), reference_users(results, arm)
    asked, passed = dict.fromkeys(results.seeds, 0.0), dict.fromkeys(results.seeds, 0.0)
    for tag in (tag for tag in tags if tag in kept):
        for seed, share in kept[tag].items():
            asked[seed] += users[tag][seed]
            passed[seed] += share * users[tag][seed]
    return {seed: passed[seed] / asked[seed] for seed in asked if asked[seed]}


def rarest_quarter(sizes: Tags) -> list[str]:
    """The quarter of the tags that the fewest users have, the rarest first."""
    return rarest_first(sizes)[: math.ceil(len(sizes) / 4)]


def rarest_first(sizes: Tags) -> list[str]:
    """All tags by their number of users in all seeds together; by name where that is the same."""
    return sorted(sizes, key=lambda tag: (sum(sizes[tag].values()), tag))


def test_users_by_tag(results: Results, arm: str) -> Tags:
    """How many test users truly have a tag: the same for every arm."""
    return {tag: {row["seed"]: row["answerable"] for row in rows} for tag, rows in _rows_by_tag(results, arm).items()}


def recall_of_tags(results: Results, arm: str, tags: Iterable[str]) -> dict[int, float]:
    """Recall over the test users who truly have one of these tags, on that attribute."""
    by_tag = _rows_by_tag(results, arm)
    correct, answerable = dict.fromkeys(results.seeds, 0), dict.fromkeys(results.seeds, 0)
    for row in (row for tag in tags for row in by_tag.get(tag, ())):
        correct[row["seed"]] += row["correct"]
        answerable[row["seed"]] += row["answerable"]
    return {seed: correct[seed] / answerable[seed] for seed in correct if answerable[seed]}


def mean_recall(results: Results, arm: str, tags: Iterable[str]) -> dict[int, float]:
    """The mean of the tags' recalls, a rare tag weighing as much as a frequent one."""
    each = [recall_of_tags(results, arm, [tag]) for tag in tags]
    return {
        seed: fmean(found[seed] for found in each if seed in found)
        for seed in results.seeds
        if any(seed in found for found in each)
    }


def slices(results: Results) -> list[str]:
    """Groups of users that are not made from a true tag, in the order in which they were measured."""
    named = dict.fromkeys(row["slice"] for row in results.counts)
    return [name for name in named if name and not name.startswith(TAG_SLICE)]


def attributes(results: Results) -> list[str]:
    """The data set's attributes, in the taxonomy's order."""
    return [name for name in dict.fromkeys(row["attribute"] for row in results.counts) if name]


def _observed_by_tag(results: Results, arm: str, prefix: str) -> Tags:
    found: dict[str, dict[int, float]] = {}
    for row in results.observations:
        if row["arm"] == arm and row["name"].startswith(prefix):
            found.setdefault(row["name"].removeprefix(prefix), {})[row["seed"]] = row["value"]
    return found


def _rows_by_tag(results: Results, arm: str) -> dict[str, list[Mapping[str, Any]]]:
    found: dict[str, list[Mapping[str, Any]]] = {}
    for row in results.counts:
        if row["arm"] == arm and row["slice"].startswith(TAG_SLICE):
            tag = row["slice"].removeprefix(TAG_SLICE)
            found.setdefault(f"{row['attribute']}={tag}", []).append(row)
    return found
