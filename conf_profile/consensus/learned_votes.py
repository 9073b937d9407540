"""Votes that learn from the samples themselves, without labels, how reliable an answer is.

The paper's weighted vote takes the verbal level at face value: a 4 counts twice a 2. These two estimate what
a level of this teacher is worth, from the agreement between its answers:

- `LogOdds`: one weight for each level, the log-odds that an answer at that level agrees with the user's
  other samples. It corrects a scale of levels that is too flat, too steep or meaningless.
- `DawidSkene`: the true tag is latent, and an answer is drawn from a table P(stated tag and level | true tag),
  which expectation maximisation fits (Dawid and Skene 1979, with the level as part of the answer). Other
  people's samples often contradict a tag that the teacher overuses or states too confidently: the table
  records this, and such an answer counts less.

Both know one attribute at a time. Neither can detect an error that all samples of a teacher share.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from conf_profile.consensus.ballots import MAX_LEVEL, NO_ANSWER, Ballots, Floats, Integers, Numbers, tally

MINIMUM_WEIGHT = 0.01
"""A level whose answers agree no more often than chance keeps a small weight, which breaks ties."""
PSEUDO_ANSWERS = 100.0
"""The weight of the pooled table in each row of a confusion table, in answers."""
MAX_ITERATIONS = 50
TOLERANCE = 1e-4
"""Mean change of the posteriors between two iterations at which they have converged."""


@dataclass(frozen=True)
class LogOdds:
    """`weights` [6]: what an answer at level 0..5 adds to its tag."""

    weights: Floats

    @classmethod
    def fit(cls, ballots: Ballots) -> LogOdds:
        """Leave-one-out: each sample is compared with the weighted vote of the user's other samples."""
        agreed, compared = np.zeros(MAX_LEVEL + 1), np.zeros(MAX_LEVEL + 1)
        for sample in range(ballots.samples):
            level, agrees = _compare_leave_one_out(ballots, sample)
            agreed += np.bincount(level, agrees, minlength=MAX_LEVEL + 1)
            compared += np.bincount(level, minlength=MAX_LEVEL + 1)
        # If a sample at level c is right with probability p and its errors spread evenly over the K - 1 other tags,
        # it adds log(p (K - 1) / (1 - p)) to the log-odds of its tag. p is the smoothed share of agreement (1 / K with
        # no data).
        others = max(ballots.tag_count - 1, 1)
        share = (agreed + 1) / (compared + 1 + others)
        return cls(np.maximum(np.log(share * others / (1 - share)), MINIMUM_WEIGHT))

    def ranks(self, ballots: Ballots) -> tuple[Numbers, ...]:
        """Summed log-odds, then votes."""
        return self._support(ballots), ballots.votes

    def score(self, ballots: Ballots, winner: Integers) -> Floats:
        """The winner's log-odds over the greatest possible sum, [users], in [0, 1]."""
        support = self._support(ballots)[np.arange(len(winner)), winner]
        # Rounding can carry a unanimous sum past its greatest possible value.
        return np.asarray(np.minimum(support / (self.weights.max() * max(ballots.samples, 1)), 1.0))

    def _support(self, ballots: Ballots) -> Floats:
        return np.asarray(tally(ballots.tags, self.weights[ballots.levels], ballots.tag_count), dtype=np.float64)


@dataclass(frozen=True)
class DawidSkene:
    """`log_likelihood` [tags, tags * 5]: of each answer (tag, level) given each true tag."""

    log_likelihood: Floats

    @classmethod
    def fit(cls, ballots: Ballots) -> DawidSkene:
        """Expectation maximisation from the weighted vote, with a uniform prior over true tags: a learned prior
        would let the frequent tags grow with every iteration."""
        # M: P(a | t) in proportion to sum over users u of q_u(t) n_u(a), for answers a = (tag, level);
        # E: q_u(t) in proportion to the product over samples m of P(a_um | t). The first q_u(t) is s_u(t), normalised.
        posterior = ballots.confidence + 1e-6
        posterior = posterior / posterior.sum(axis=1, keepdims=True)
        for _ in range(MAX_ITERATIONS):
            table = _confusion(posterior, ballots)
            before, posterior = posterior, _softmax(_evidence(ballots, table))
            if not len(posterior) or np.abs(posterior - before).mean() < TOLERANCE:
                break
        return cls(table)

    def ranks(self, ballots: Ballots) -> tuple[Numbers, ...]:
        """The likelihood of all samples, then the summed confidence, then votes."""
        # Rounded, so that equal evidence ties whatever the order of summation.
        return np.round(_evidence(ballots, self.log_likelihood), 9), ballots.confidence, ballots.votes

    def score(self, ballots: Ballots, winner: Integers) -> Floats:
        """The winner's posterior with the samples' evidence averaged, not summed, [users], in [0, 1].

        Samples of one user are far from independent: summed, nearly every posterior would be 0 or 1.
        """
        posterior = _softmax(_evidence(ballots, self.log_likelihood) / max(ballots.samples, 1))
        return np.asarray(posterior[np.arange(len(winner)), winner])


def _evidence(ballots: Ballots, log_likelihood: Floats) -> Floats:
    """Log-likelihood of each user's samples under each true tag, [users, tags]."""
    return np.asarray(ballots.cells @ log_likelihood.T, dtype=np.float64)


def _compare_leave_one_out(ballots: Ballots, sample: int) -> tuple[Integers, Integers]:
    """Levels of one sample's answers, and whether each agrees with the weighted vote of the user's others."""
    answered = np.flatnonzero(ballots.tags[:, sample] != NO_ANSWER)
    tag, level = ballots.tags[answered, sample], ballots.levels[answered, sample]
    others = ballots.confidence[answered].astype(np.float64)
    others[np.arange(len(answered)), tag] -= level
    heard = others.max(axis=1, initial=0) > 0
    return level[heard], (others.argmax(axis=1) == tag)[heard].astype(np.int64)


def _confusion(posterior: Floats, ballots: Ballots) -> Floats:
    """Log of P(tag and level | true tag), [tags, tags * 5], each row shrunk towards the pooled table."""
    tags = ballots.tag_count
    expected = np.asarray(posterior.T @ ballots.cells, dtype=np.float64).reshape(tags, tags, MAX_LEVEL)
    smoothed = expected + PSEUDO_ANSWERS * _pool_confusion(expected)
    return np.asarray(np.log(smoothed / smoothed.sum(axis=(1, 2), keepdims=True)).reshape(tags, -1))


def _pool_confusion(expected: Floats) -> Floats:
    """[tags, tags, 5]: one row for all true tags. Right answers share their levels, wrong ones their tags."""
    # P_pool(a | t) = accuracy x P(level | right) for the true tag, plus (1 - accuracy) x P(a) over all answers: a rare
    # tag with few answers borrows the teacher's habits instead of fitting noise.
    tags = len(expected)
    diagonal = np.arange(tags)
    right = expected[diagonal, diagonal].sum(axis=0) + 1.0
    said = expected.sum(axis=0) + 1.0
    accuracy = right.sum() / (said.sum() + right.sum() - expected[diagonal, diagonal].sum())
    table = np.repeat((1 - accuracy) * said[None] / said.sum(), tags, axis=0)
    table[diagonal, diagonal] += accuracy * right / right.sum()
    return table


def _softmax(logits: Floats) -> Floats:
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True, initial=-np.inf))
    return np.asarray(shifted / shifted.sum(axis=1, keepdims=True))
