"""Slices of the users: by a category such as the region, by how much history there is, by self-report.

A slice is a name and a mask over users. Slices of one kind (the part of the name before the colon) cover
every user once. A slice's number of users counts those with a true label: the others have no part in its figures.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from conf_profile.evaluation.bootstrap import F1, Difference, UserBootstrap, interval
from conf_profile.evaluation.metrics import BoolArray, FloatArray, IntArray, Scores, rates, scores

MAX_CATEGORIES = 20
"""Values of a category with a slice of their own, the most frequent first; a category may be free text."""


def by_category(label: str, values: Sequence[str | None]) -> dict[str, BoolArray]:
    """One slice a value, `LABEL: VALUE`; rare values together, users without one together."""
    common = Counter(value for value in values if value).most_common(MAX_CATEGORIES)
    named = {value for value, _ in common}
    shown = ["(not given)" if not value else value if value in named else "(other)" for value in values]
    return _masks(label, shown, sorted(set(shown)))


def by_history(lengths: IntArray) -> dict[str, BoolArray]:
    """Terciles of the number of keyphrases, shape [users]; ties stay together, empty terciles go."""
    if not len(lengths):
        return {}
    low, high = np.quantile(lengths, [1 / 3, 2 / 3], method="inverted_cdf")
    position = (lengths > low).astype(np.int64) + (lengths > high)
    names = [_history_name(lengths[position == number]) for number in range(3)]
    return _masks("history", [names[number] for number in position], [name for name in names if name])


def by_self_report(present: BoolArray) -> dict[str, BoolArray]:
    """Users who said something about an attribute themselves, and those who did not."""
    return _masks("self-report", ["present" if said else "absent" for said in present], ["present", "absent"])


def evaluate(slices: Mapping[str, BoolArray], counts: FloatArray) -> dict[str, tuple[int, Scores]]:
    """Users and micro scores of each slice, from counts [users, attributes, 3] (`metrics.counts`)."""
    per_user = counts.sum(axis=1)
    return {name: (_count_labelled(mask, counts), scores(per_user[mask].sum(axis=0))) for name, mask in slices.items()}


def differences(
    slices: Mapping[str, BoolArray],
    names: tuple[str, str],
    counts: tuple[FloatArray, FloatArray],
    bootstrap: UserBootstrap,
) -> dict[str, tuple[int, Difference]]:
    """Users and paired F1 difference (`names[0]` minus `names[1]`) of each slice; counts as in `evaluate`."""
    if not slices:
        return {}
    masks = np.stack(list(slices.values()), axis=1).astype(np.float64)
    better, worse = (masks[:, :, None] * count.sum(axis=1)[:, None, :] for count in counts)
    point = rates(better.sum(axis=0))[:, F1] - rates(worse.sum(axis=0))[:, F1]
    spread = rates(bootstrap.sums(better))[:, :, F1] - rates(bootstrap.sums(worse))[:, :, F1]
    found = {}
    for position, (name, mask) in enumerate(slices.items()):
        limits = interval(spread[:, position])
        difference = Difference(names[0], names[1], "f1", float(point[position]), limits.low, limits.high)
        found[name] = (_count_labelled(mask, counts[0]), difference)
    return found


def _count_labelled(mask: BoolArray, counts: FloatArray) -> int:
    """Users of a slice with something to be measured by; the last count is that of answerable cells."""
    return int((mask & (counts[:, :, 2].sum(axis=1) > 0)).sum())


def _history_name(lengths: IntArray) -> str:
    if not len(lengths):
        return ""
    low, high = int(lengths.min()), int(lengths.max())
    return f"{low} keyphrases" if low == high else f"{low}-{high} keyphrases"


def _masks(kind: str, labels: Sequence[str], names: Sequence[str]) -> dict[str, BoolArray]:
    column = np.asarray(labels, dtype=object)
    masks = {f"{kind}: {name}": np.asarray(column == name, dtype=np.bool_) for name in names}
    return {name: mask for name, mask in masks.items() if mask.any()}
