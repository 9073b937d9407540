"""Voting over the M answers that were sampled for each user.

Works on integer arrays of one attribute, [users, samples], a million users at a time; it knows nothing of
files, tag names or models. A method is first fitted, on all samples or a part of them, and then elects; the
counting votes have nothing to fit. With n and s as in `ballots`, the winner maximises

- majority: n(t), then s(t);
- majority_blind: n(t); it ignores confidence even for ties;
- weighted (the paper's confidence-weighted vote): s(t), then n(t);
- log_odds, em: the evidence of `learned_votes`, then s(t) or n(t).

Ties that remain go to the tag that is first in the taxonomy.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from conf_profile.consensus.ballots import MAX_LEVEL, NO_ANSWER, Ballots, Floats, Integers, Numbers, disagreement, tally
from conf_profile.consensus.learned_votes import DawidSkene, LogOdds
from conf_profile.errors import ConfigError

__all__ = [
    "MAX_LEVEL", "NO_ANSWER", "VOTES", "Ballots", "Vote", "Voter", "disagreement", "fit", "tally", "vote", "vote_on",
]  # fmt: skip


@dataclass(frozen=True)
class Vote:
    """The outcome for each user of one attribute; every array is [users].

    tag: the winner's index in the attribute's tags, NO_ANSWER where nobody answered. score: how sure the vote
    is, in [0, 1]; for the counting votes the winner's summed confidence over the greatest possible sum
    (5 * samples). votes: samples that named the winner. share: votes over the samples that answered, 0 where
    none did.
    """

    tag: npt.NDArray[np.int16]
    score: Floats
    votes: npt.NDArray[np.int32]
    share: Floats


class Evidence(Protocol):
    """What a method has learned: how it ranks the tags and how sure it is of a winner."""

    def ranks(self, ballots: Ballots) -> tuple[Numbers, ...]:
        """Arrays [users, tags], larger is better, the next one breaks the ties of the one before."""
        ...

    def score(self, ballots: Ballots, winner: Integers) -> Floats:
        """[users], in [0, 1]."""
        ...


@dataclass(frozen=True)
class CountingVote:
    """A vote by counts alone."""

    ranking: Callable[[Ballots], tuple[Numbers, ...]]

    def ranks(self, ballots: Ballots) -> tuple[Numbers, ...]:
        return self.ranking(ballots)

    def score(self, ballots: Ballots, winner: Integers) -> Floats:
        # Support: s(winner) / (5 M). M counts all requested samples, so silence lowers it as disagreement does.
        confidence = ballots.confidence[np.arange(len(winner)), winner]
        return np.asarray(confidence / float(max(MAX_LEVEL * ballots.samples, 1)))


def _majority_vote(ballots: Ballots) -> Evidence:
    return CountingVote(lambda given: (given.votes, given.confidence))


def _blind_majority_vote(ballots: Ballots) -> Evidence:
    return CountingVote(lambda given: (given.votes,))


def _weighted_vote(ballots: Ballots) -> Evidence:
    return CountingVote(lambda given: (given.confidence, given.votes))


VOTES: Mapping[str, Callable[[Ballots], Evidence]] = {
    "majority": _majority_vote,
    "majority_blind": _blind_majority_vote,
    "weighted": _weighted_vote,
    "log_odds": LogOdds.fit,
    "em": DawidSkene.fit,
}
LEARNED_VOTES = frozenset({"log_odds", "em"})
"""The methods for which it matters what they are fitted on."""


@dataclass(frozen=True)
class Voter:
    """A fitted method for one attribute."""

    evidence: Evidence
    tag_count: int

    def elect(self, tags: Integers, levels: Integers) -> Vote:
        """One tag for each user; the arguments as for `vote`."""
        return self.count(Ballots(tags, levels, self.tag_count))

    def count(self, ballots: Ballots) -> Vote:
        """One tag for each user, from their ballots on the attribute that this was fitted for."""
        winner = _winner(self.evidence.ranks(ballots), ballots.votes > 0)
        return _outcome(ballots, winner, self.evidence.score(ballots, winner))


def fit(tags: Integers, levels: Integers, tag_count: int, method: str = "weighted") -> Voter:
    """Fits a method on samples; the arguments as for `vote`."""
    return _fit(Ballots(tags, levels, tag_count), method)


def vote(tags: Integers, levels: Integers, tag_count: int, method: str = "weighted") -> Vote:
    """Fits on these samples and elects one tag for each user.

    `tags` [users, samples] indexes the attribute's tags (-1: no answer); `levels` [users, samples] is the
    verbal confidence 1-5 (0 where there is none; ignored where the tag is -1). Raises ConfigError for an
    unknown method, DataError for arrays that do not fit together.
    """
    return vote_on(Ballots(tags, levels, tag_count), method)


def vote_on(ballots: Ballots, method: str = "weighted") -> Vote:
    """`vote` for ballots that stand already."""
    return _fit(ballots, method).count(ballots)


def _fit(ballots: Ballots, method: str) -> Voter:
    if method not in VOTES:
        raise ConfigError(f"vote {method!r} does not exist; choose one of {', '.join(sorted(VOTES))}")
    return Voter(VOTES[method](ballots), ballots.tag_count)


def _winner(ranks: tuple[Numbers, ...], named: npt.NDArray[np.bool_]) -> npt.NDArray[np.intp]:
    """The first tag among those that are best by every ranking in turn; tags that nobody named cannot win."""
    best = named
    for rank in ranks:
        contested = np.where(best, rank, -np.inf)
        best = best & (contested == contested.max(axis=1, keepdims=True))
    first: npt.NDArray[np.intp] = np.argmax(best, axis=1)
    return first


def _outcome(ballots: Ballots, winner: npt.NDArray[np.intp], score: Floats) -> Vote:
    votes = ballots.votes[np.arange(len(winner)), winner]
    answered = ballots.votes.sum(axis=1)
    return Vote(
        tag=np.where(answered > 0, winner, NO_ANSWER).astype(np.int16),
        score=np.where(answered > 0, score, 0.0),
        votes=votes.astype(np.int32),
        share=votes / np.maximum(answered, 1),
    )
