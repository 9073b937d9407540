"""Difficulty filtering: reshapes the second stage's training users by their aggregated confidence.

Users with little confidence are mostly noise, users with much are already solved (paper, section on
difficulty filtering). A shape is a density over the confidence *rank*, from the least confident user (0) to
the most confident (1), so it does the same for any distribution of confidence:

- original: everybody;
- lambda: one peak at moderate difficulty, both ends dropped;
- m: two peaks, at a rank of 0.3 and 0.7; both ends thinned out strongly, the very centre somewhat.

With strata, the shape and the share hold within each stratum: users of a rare group are ranked among their own
kind, so that a group whose confidence is low throughout is not filtered away as noise (ours).

It samples without replacement and is a function of its arguments alone: no random state, no clock. It does
not aggregate the confidence of several attributes; that is the caller's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from conf_profile.errors import ConfigError, DataError

ORIGINAL = "original"
BINS = 10

Floats = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]
Strata = npt.NDArray[np.int64]

# Corners (rank, weight) of each density. The paper gives the shapes' names; ranks and weights are ours. Low ranks are
# mostly noise, high ones are solved, so both ends weigh least. No weight is zero, so that any share can be kept.
_CORNERS: Mapping[str, tuple[tuple[float, ...], tuple[float, ...]]] = {
    "lambda": ((0.0, 0.5, 1.0), (0.02, 1.0, 0.02)),
    "m": ((0.0, 0.3, 0.5, 0.7, 1.0), (0.02, 1.0, 0.35, 1.0, 0.02)),
}
SHAPES = (ORIGINAL, *_CORNERS)


@dataclass(frozen=True)
class Summary:
    """What a filter did: user counts in ten equal bins of confidence over [0, 1], before and after."""

    users: int
    kept: int
    before: tuple[int, ...]
    after: tuple[int, ...]


def select(confidence: Floats, shape: str, keep: float, seed: int, strata: Strata | None = None) -> Mask:
    """Which users stay, [users]: round(keep * users) of each stratum, or all for the shape `original`.

    `confidence` [users] is in [0, 1]; the order of the users and the seed decide between equals. `strata` [users]
    numbers the stratum of each user; None: all are in one. Raises ConfigError for an unknown shape or a share
    outside (0, 1], DataError for confidence outside [0, 1].
    """
    _check(confidence, shape, keep)
    users = len(confidence)
    if shape == ORIGINAL:
        return np.ones(users, dtype=np.bool_)
    # Gumbel top-k: with G_i = -log(-log U_i), the k largest log w_i + G_i are a sample of k users without replacement,
    # each drawn with a probability in proportion to its weight among those that are left.
    uniform, gumbel = _uniform(users, seed), -np.log(-np.log(_uniform(users, ~seed)))
    mask = np.zeros(users, dtype=np.bool_)
    for stratum in [np.arange(users)] if strata is None else _members(strata):
        keys = np.log(weights(_rank(confidence[stratum], uniform[stratum]), shape)) + gumbel[stratum]
        mask[stratum[np.argsort(-keys, kind="stable")[: round(keep * len(stratum))]]] = True
    return mask


def assign_rarest_group(groups: Strata) -> Strata:
    """The stratum of each user: of the groups that the user belongs to, the one with the fewest users.

    `groups` [users, memberships] numbers groups (negative: none); users without any are in the stratum -1.
    """
    known = groups >= 0
    sizes = np.bincount(groups[known], minlength=1)
    size = np.where(known, sizes[np.maximum(groups, 0)], np.iinfo(np.int64).max)
    column = size.argmin(axis=1)
    return np.where(known.any(axis=1), groups[np.arange(len(groups)), column], -1)


def _members(strata: Strata) -> list[Strata]:
    """Row numbers of each stratum."""
    return [np.flatnonzero(strata == stratum) for stratum in np.unique(strata)]


def weights(rank: Floats, shape: str) -> Floats:
    """The density of a shape at ranks in [0, 1], 1 at its peaks; ConfigError for an unknown shape."""
    _check_shape(shape)
    if shape == ORIGINAL:
        return np.ones_like(rank)
    return np.interp(rank, *_CORNERS[shape])


def summarise(confidence: Floats, kept: Mask) -> Summary:
    """The histogram of confidence before and after a filter."""

    def counts(values: Floats) -> tuple[int, ...]:
        # The tiny step keeps 0.6, whose tenfold falls just short of 6, in the bin that begins at 0.6.
        bins = np.minimum((values * BINS + 1e-9).astype(np.int64), BINS - 1)
        return tuple(np.bincount(bins, minlength=BINS).tolist())

    return Summary(len(confidence), int(kept.sum()), counts(confidence), counts(confidence[kept]))


def _rank(confidence: Floats, tie_breaker: Floats) -> Floats:
    """Each user's place in (0, 1) by confidence; equals in an arbitrary order, not the first one first."""
    rank = np.empty(len(confidence))
    rank[np.lexsort((tie_breaker, confidence))] = (np.arange(len(confidence)) + 0.5) / max(len(confidence), 1)
    return rank


def _uniform(count: int, seed: int) -> Floats:
    """Numbers in (0, 1) from SplitMix64 over (seed, position): the same with every version of numpy."""
    start = np.uint64(seed * 0x9E3779B97F4A7C15 % 2**64)
    mixed = _mix(_mix(np.arange(count, dtype=np.uint64) + start) + start)
    return (np.right_shift(mixed, np.uint64(11)).astype(np.float64) + 0.5) / 2.0**53


def _mix(state: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    state = state + np.uint64(0x9E3779B97F4A7C15)
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return state ^ (state >> np.uint64(31))


def _check(confidence: Floats, shape: str, keep: float) -> None:
    _check_shape(shape)
    if not 0 < keep <= 1:
        raise ConfigError(f"filtering.keep is {keep}; it is a share above 0 and up to 1")
    if confidence.ndim != 1 or not ((confidence >= 0) & (confidence <= 1)).all():
        raise DataError("difficulty filtering needs one confidence in [0, 1] for each user")


def _check_shape(shape: str) -> None:
    if shape not in SHAPES:
        raise ConfigError(f"filtering.shape {shape!r} does not exist; choose one of {', '.join(SHAPES)}")
