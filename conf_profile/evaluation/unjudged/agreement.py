"""How often two arms give the same tag, over the same users: what can be said where nobody knows the true tags.

Agreement is no accuracy. A student agrees with the vote that has taught it, errors included; two answers that always
name the most frequent tag agree, too. So what chance would give stands beside it: two arms that answer independently of
each other, each with its own frequencies of tags. Whoever names the same tag for everybody agrees no more than that.

Nor does it show that an arm names some tags too often, which `divergence` does. Nothing here reads a label.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from conf_profile.dialogue.output_format import LEVELS
from conf_profile.evaluation.bootstrap import UserBootstrap, interval
from conf_profile.evaluation.metrics import NO_TAG, BoolArray, Cells, FloatArray, IntArray, ratio


@dataclass(frozen=True)
class Agreement:
    """Of the `cells` that both arms answered, the share with the same tag, its 95% interval over users, and chance's.

    All rates lie in [0, 1] and are 0 where there is no such cell.
    """

    cells: int
    share: float
    low: float
    high: float
    by_chance: float


@dataclass(frozen=True)
class AgreementAtLevel:
    """The answers of level `tau` or above: their share of all cells, and their agreement with the other arm."""

    tau: int
    answered: float
    share: float


@dataclass(frozen=True)
class Comparison:
    """Two arms over the same users: all attributes together, and each by itself in the arrays' order."""

    overall: Agreement
    per_attribute: tuple[Agreement, ...]


def compare(first: Cells, second: Cells, tag_counts: Sequence[int], draws: UserBootstrap) -> Comparison:
    """Compares two arms; `tag_counts` holds each attribute's number of tags."""
    counts = _counts(first, second)
    resampled = draws.sums(counts)
    chance = _chance(first, second, tag_counts)
    cells = counts[:, :, 0].sum(axis=0)
    expected = float(ratio((chance * cells).sum(), cells.sum()))
    return Comparison(
        _agreement(counts.sum(axis=(0, 1)), resampled.sum(axis=1), expected),
        tuple(
            _agreement(counts[:, column].sum(axis=0), resampled[:, column], float(chance[column]))
            for column in range(counts.shape[1])
        ),
    )


def sweep(first: Cells, second: Cells) -> tuple[tuple[AgreementAtLevel, ...], ...]:
    """For each attribute the first arm's agreement with the second at each threshold tau in 1..5."""
    return tuple(
        tuple(_at_level(first, second, column, tau) for tau in LEVELS) for column in range(first.prediction.shape[1])
    )


def tag_counts(prediction: IntArray, tags: int) -> tuple[int, ...]:
    """How often each of an attribute's tags is named, from predictions [users]."""
    return tuple(int(count) for count in np.bincount(prediction[prediction != NO_TAG], minlength=tags))


def divergence(found: npt.ArrayLike, expected: npt.ArrayLike) -> float:
    """Jensen-Shannon divergence of two lists of counts, in bits; 0 where one of them is empty."""
    first, second = np.asarray(found, dtype=np.float64), np.asarray(expected, dtype=np.float64)
    if not first.sum() or not second.sum():
        return 0.0
    first, second = first / first.sum(), second / second.sum()
    middle = (first + second) / 2
    return (_relative_entropy(first, middle) + _relative_entropy(second, middle)) / 2


def _counts(first: Cells, second: Cells) -> FloatArray:
    """[users, attributes, 2]: whether both answered, and whether with the same tag."""
    both = _common_answers(first, second)
    return np.stack([both, both & (first.prediction == second.prediction)], axis=-1).astype(np.float64)


def _common_answers(first: Cells, second: Cells) -> BoolArray:
    return np.asarray((first.prediction != NO_TAG) & (second.prediction != NO_TAG))


def _chance(first: Cells, second: Cells, sizes: Sequence[int]) -> FloatArray:
    """[attributes]: how often two independent answers with the arms' frequencies of tags are the same."""
    both = _common_answers(first, second)
    shares = np.zeros(len(sizes))
    for column, tags in enumerate(sizes):
        there = both[:, column]
        if there.any():
            named = (np.bincount(arm.prediction[there, column], minlength=tags) for arm in (first, second))
            shares[column] = np.prod([counts / there.sum() for counts in named], axis=0).sum()
    return shares


def _agreement(count: FloatArray, resampled: FloatArray, by_chance: float) -> Agreement:
    spread = interval(ratio(resampled[:, 1], resampled[:, 0]))
    return Agreement(int(count[0]), float(ratio(count[1], count[0])), spread.low, spread.high, by_chance)


def _at_level(first: Cells, second: Cells, column: int, tau: int) -> AgreementAtLevel:
    mine, other = first.prediction[:, column], second.prediction[:, column]
    answered = (mine != NO_TAG) & (first.level[:, column] >= tau)
    both = answered & (other != NO_TAG)
    same = both & (mine == other)
    return AgreementAtLevel(tau, int(answered.sum()) / max(len(mine), 1), int(same.sum()) / max(int(both.sum()), 1))


def _relative_entropy(shares: FloatArray, of: FloatArray) -> float:
    there = shares > 0
    return float((shares[there] * np.log2(shares[there] / of[there])).sum())
