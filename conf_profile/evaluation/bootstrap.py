"""Bootstrap intervals by user: users are drawn again, never cells.

The cells of one user are not independent (one history explains them all), so drawing cells would make the
intervals too narrow. A statistic that is a function of sums over users needs only those sums: each resample
is one row of multinomial weights, and all resamples are one matrix product.

One `UserBootstrap` applied to two arms draws the same users for both, so the difference of the two results is
the paired bootstrap. This module knows nothing of labels or profiles.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from conf_profile.errors import DataError
from conf_profile.evaluation.metrics import FloatArray, rates

_CELLS_AT_ONCE = 1 << 22
"""Weights held in memory at once (32 MiB of float64), whatever the number of users."""

PRECISION, RECALL, F1 = 0, 1, 2
"""Positions in the last axis of `metrics.rates`."""


@dataclass(frozen=True)
class Interval:
    """A 95% percentile interval."""

    low: float
    high: float


@dataclass(frozen=True)
class Difference:
    """`better` minus `worse` over the same users, with the interval of the paired bootstrap.

    The names say what was expected; the sign says what was found.
    """

    better: str
    worse: str
    metric: str
    difference: float
    low: float
    high: float


@dataclass(frozen=True)
class UserBootstrap:
    """`resamples` draws of `users` users with replacement; the same seed draws the same users every time."""

    users: int
    resamples: int
    seed: int

    def __post_init__(self) -> None:
        if self.users < 1 or self.resamples < 1:
            raise DataError(
                f"a bootstrap needs at least one user and one resample; given {self.users} user(s) and "
                f"{self.resamples} resample(s)"
            )

    def sums(self, statistics: FloatArray) -> FloatArray:
        """Per-user statistics [users, ...] to resampled sums [resamples, ...]."""
        if len(statistics) != self.users:
            raise DataError(f"the bootstrap draws {self.users} users; the statistics have {len(statistics)}")
        flat = np.asarray(statistics, dtype=np.float64).reshape(self.users, -1)
        rows = [weights @ flat for weights in self._weights()]
        return np.concatenate(rows).reshape(self.resamples, *statistics.shape[1:])

    def _weights(self) -> Iterator[FloatArray]:
        generator = np.random.default_rng(self.seed)
        at_once = max(1, _CELLS_AT_ONCE // self.users)
        for start in range(0, self.resamples, at_once):
            rows = min(at_once, self.resamples - start)
            drawn = generator.integers(self.users, size=(rows, self.users))
            drawn += np.arange(rows)[:, None] * self.users
            counted = np.bincount(drawn.ravel(), minlength=rows * self.users)
            yield counted.reshape(rows, self.users).astype(np.float64)


def interval(values: FloatArray) -> Interval:
    """The 95% percentile interval of resampled values, shape [resamples]."""
    low, high = np.percentile(values, [2.5, 97.5])
    return Interval(float(low), float(high))


def rate_intervals(resampled: FloatArray) -> tuple[Interval, Interval, Interval]:
    """Intervals of precision, recall and F1 from resampled counts [resamples, 3]."""
    rate = rates(resampled)
    return interval(rate[:, PRECISION]), interval(rate[:, RECALL]), interval(rate[:, F1])


def f1_difference(
    names: tuple[str, str], counts: tuple[FloatArray, FloatArray], resampled: tuple[FloatArray, FloatArray]
) -> Difference:
    """The paired difference in F1 of two arms, `names[0]` minus `names[1]`.

    `counts` are each arm's sums [3] over all users; `resampled` its sums [resamples, 3] under one and the
    same `UserBootstrap`.
    """
    point = float(rates(counts[0])[F1] - rates(counts[1])[F1])
    spread = interval(rates(resampled[0])[:, F1] - rates(resampled[1])[:, F1])
    return Difference(names[0], names[1], "f1", point, spread.low, spread.high)
