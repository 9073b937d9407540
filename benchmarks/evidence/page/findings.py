"""Estimates over seeds, differences with a verdict, and how the verdicts of a claim's parts are put together.

The rule is that of docs/evidence-protocol.md: a direction holds when the 95% interval of the paired difference lies
clear of zero on the expected side. An interval that includes zero does not meet it; as long as there are fewer seeds
than the protocol wants, that is left undecided.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from benchmarks.evidence import results

Values = Mapping[int, float]
"""Seed -> value."""
Side = Literal["above", "not below", "below", "either"]
"""Where the protocol expects a difference to lie from zero; "either" where it expects nothing."""
Verdict = Literal["holds", "does not hold", "reversed", "undecided", "above", "below"]
"""The last two are for differences of which nothing was expected."""

FULL_SEEDS = 5
"""How many seeds the protocol wants."""


@dataclass(frozen=True)
class Estimate:
    """Mean over the seeds and the ends of its 95% interval (None with a single seed), in the values' unit."""

    mean: float
    low: float | None
    high: float | None
    seeds: int

    @property
    def clear_of_zero(self) -> bool:
        """Whether the whole interval lies on one side of zero; never without an interval."""
        return self.low is not None and self.high is not None and (self.low > 0 or self.high < 0)


def estimate(values: Values) -> Estimate | None:
    """Mean and Student's t interval; None where no seed has a value."""
    return Estimate(*results.interval(list(values.values())), len(values)) if values else None


def subtract(better: Values, worse: Values) -> dict[int, float]:
    """The paired difference, over the seeds that have both."""
    return {seed: better[seed] - worse[seed] for seed in better if seed in worse}


@dataclass(frozen=True)
class Finding:
    """A paired difference, what it is a difference of, and the side on which it was expected."""

    label: str
    of: str
    differences: Values
    side: Side = "above"

    @cached_property
    def estimate(self) -> Estimate | None:
        return estimate(self.differences)

    @cached_property
    def p(self) -> float | None:
        """Two-sided p of the paired t test; None where there is no interval."""
        return results.p_value(list(self.differences.values()))

    @property
    def verdict(self) -> Verdict:
        found = self.estimate
        if found is None or found.low is None or found.high is None:
            return "undecided"
        if self.side == "not below" and found.low >= 0:
            return "holds"
        if not found.clear_of_zero:
            return "undecided" if self.side == "either" or found.seeds < FULL_SEEDS else "does not hold"
        direction: Verdict = "above" if found.low > 0 else "below"
        if self.side == "either":
            return direction
        return "holds" if (direction == "below") == (self.side == "below") else "reversed"


def require_all(verdicts: Sequence[Verdict]) -> Verdict:
    """The verdict of a claim whose parts must all hold; parts that differ do not make it hold."""
    if len(set(verdicts)) == 1:
        return verdicts[0]
    return "does not hold" if {"reversed", "does not hold"} & set(verdicts) else "undecided"


def require_any(verdicts: Sequence[Verdict]) -> Verdict:
    """The verdict of a claim of which one part is enough."""
    if "holds" in verdicts:
        return "holds"
    if len(set(verdicts)) == 1:
        return verdicts[0]
    return "undecided" if "undecided" in verdicts else "does not hold"
