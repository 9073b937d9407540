"""Voting over the M answers that were sampled for each user, and how far those answers disagree.

Works on integer arrays of one attribute, [users, samples], a million users at a time; it knows nothing of
files, tag names or models. The paper's two votes are majority and confidence-weighted; a further method is
one small function in `VOTES` that ranks the tags.

Ties are always broken the same way:

- majority: most votes, then the larger summed confidence, then the tag that stands first in the taxonomy;
- weighted: larger summed confidence, then more votes, then the tag that stands first in the taxonomy.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from conf_profile.errors import ConfigError, DataError

NO_ANSWER = -1
"""The tag of a sample that is malformed or says unknown, and of a user for whom no sample answered."""
MAX_LEVEL = 5

Integers = npt.NDArray[np.integer[Any]]
Numbers = npt.NDArray[np.number[Any]]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Vote:
    """The outcome for each user of one attribute; every array is [users].

    tag: the winner's index in the attribute's tags, NO_ANSWER where nobody answered. score: support, the
    winner's summed confidence over the greatest possible sum (5 * samples), in [0, 1]. votes: samples that
    named the winner. share: votes over the samples that answered, 0 where none did.
    """

    tag: npt.NDArray[np.int16]
    score: Floats
    votes: npt.NDArray[np.int32]
    share: Floats


@dataclass(frozen=True)
class Ballots:
    """The checked answers of one attribute: `tags` and `levels` are [users, samples]."""

    tags: Integers
    levels: Integers
    tag_count: int

    @cached_property
    def votes(self) -> Numbers:
        """How many samples named each tag, [users, tags]."""
        return tally(self.tags, None, self.tag_count)

    @cached_property
    def confidence(self) -> Numbers:
        """The summed verbal confidence of each tag, [users, tags]."""
        return tally(self.tags, self.levels, self.tag_count)


Ranking = Callable[[Ballots], tuple[Numbers, ...]]
"""Ranks the tags: arrays [users, tags], larger is better, the next one breaks the ties of the one before."""


def _majority(ballots: Ballots) -> tuple[Numbers, ...]:
    return ballots.votes, ballots.confidence


def _weighted(ballots: Ballots) -> tuple[Numbers, ...]:
    return ballots.confidence, ballots.votes


VOTES: Mapping[str, Ranking] = {"majority": _majority, "weighted": _weighted}


def vote(tags: Integers, levels: Integers, tag_count: int, method: str = "weighted") -> Vote:
    """Elects one tag for each user.

    `tags` [users, samples] indexes the attribute's tags (-1: no answer); `levels` [users, samples] is the
    verbal confidence 1-5 (0 where there is none; ignored where the tag is -1). Raises ConfigError for an
    unknown method, DataError for arrays that do not fit together.
    """
    if method not in VOTES:
        raise ConfigError(f"vote {method!r} does not exist; choose one of {', '.join(sorted(VOTES))}")
    _check(tags, levels, tag_count)
    ballots = Ballots(tags, levels, tag_count)
    winner = _winner(VOTES[method](ballots), ballots.votes > 0)
    return _outcome(ballots, winner)


def tally(tags: Integers, weights: Numbers | None, tag_count: int) -> Numbers:
    """Sums the weights of the samples that name each tag: [users, samples] -> [users, tags].

    Samples without an answer count for no tag. Without weights each sample counts 1, and sums are integers.
    """
    users, width = len(tags), tag_count + 1
    # Column 0 collects the samples without an answer: cheaper than leaving them out first.
    cells = np.arange(1, users * width + 1, width, dtype=np.int64)[:, None] + tags
    flat = None if weights is None else weights.ravel()
    sums: Numbers = np.bincount(cells.ravel(), flat, minlength=users * width)
    return sums.reshape(users, width)[:, 1:]


def disagreement(tags: Integers, tag_count: int) -> Floats:
    """Entropy of each user's votes over log(tag_count), [users]: 0 unanimous, 1 spread evenly over all tags.

    NaN where nobody answered.
    """
    votes = tally(tags, None, tag_count).astype(np.int64, copy=False)
    answered = votes.sum(axis=1)
    counts = np.arange(tags.shape[1] + 1)
    # A table of n log n: counts are small integers, and a million logarithms are not free.
    surprise = (counts * np.log(np.maximum(counts, 1)))[votes].sum(axis=1)
    safe = np.maximum(answered, 1)
    entropy = np.maximum(np.log(safe) - surprise / safe, 0.0) / np.log(max(tag_count, 2))
    return np.where(answered > 0, entropy, np.nan)


def _check(tags: Integers, levels: Integers, tag_count: int) -> None:
    if tags.ndim != 2 or tags.shape != levels.shape:
        raise DataError(f"a vote needs tags and levels [users, samples]; got {tags.shape} and {levels.shape}")
    if tags.size and not (tags.min() >= NO_ANSWER and tags.max() < tag_count):
        raise DataError(f"a vote over {tag_count} tags got tag numbers from {tags.min()} to {tags.max()}")
    if levels.size and not (levels.min() >= 0 and levels.max() <= MAX_LEVEL):
        raise DataError(f"levels are 1 to 5 (0: none); got {levels.min()} to {levels.max()}")


def _winner(ranks: tuple[Numbers, ...], named: npt.NDArray[np.bool_]) -> npt.NDArray[np.intp]:
    """The first tag among those that are best by every ranking in turn; tags that nobody named cannot win."""
    best = named
    for rank in ranks:
        contested = np.where(best, rank, -np.inf)
        best = best & (contested == contested.max(axis=1, keepdims=True))
    first: npt.NDArray[np.intp] = np.argmax(best, axis=1)
    return first


def _outcome(ballots: Ballots, winner: npt.NDArray[np.intp]) -> Vote:
    users, samples = ballots.tags.shape
    row = np.arange(users)
    votes, confidence = ballots.votes[row, winner], ballots.confidence[row, winner]
    answered = ballots.votes.sum(axis=1)
    return Vote(
        tag=np.where(answered > 0, winner, NO_ANSWER).astype(np.int16),
        score=confidence / float(max(MAX_LEVEL * samples, 1)),
        votes=votes.astype(np.int32),
        share=votes / np.maximum(answered, 1),
    )
