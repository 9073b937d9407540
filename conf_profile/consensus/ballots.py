"""The sampled answers of one attribute as arrays, and their counts: the input of every vote.

For one user, sample m of M names the tag t_m with the verbal level c_m. Every vote is a function of

    n(t)    = sum over m of [t_m = t]               votes
    s(t)    = sum over m of c_m [t_m = t]           confidence
    n(t, c) = sum over m of [t_m = t and c_m = c]   cells

Parsed answers become ballots here, rows of a candidates table in `candidates`, and nowhere else.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from conf_profile.dialogue.output_format import ProfileAnswer
from conf_profile.dialogue.taxonomy import Attribute
from conf_profile.errors import DataError

NO_ANSWER = -1
"""The tag of a sample that is malformed or says unknown, and of a user for whom no sample answered."""
MAX_LEVEL = 5

Integers = npt.NDArray[np.integer[Any]]
Numbers = npt.NDArray[np.number[Any]]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Ballots:
    """The answers of one attribute: `tags` and `levels` are [users, samples].

    A tag is an index into the attribute's tags (NO_ANSWER: none), a level the verbal confidence 1-5 (0 where
    there is none; ignored beside NO_ANSWER). Raises DataError for arrays that do not fit together.
    """

    tags: Integers
    levels: Integers
    tag_count: int

    def __post_init__(self) -> None:
        tags, levels = self.tags, self.levels
        if self.tag_count < 1:
            raise DataError("a vote needs at least one tag")
        if tags.ndim != 2 or tags.shape != levels.shape:
            raise DataError(f"a vote needs tags and levels [users, samples]; got {tags.shape} and {levels.shape}")
        if tags.size and not (tags.min() >= NO_ANSWER and tags.max() < self.tag_count):
            raise DataError(f"a vote over {self.tag_count} tags got tag numbers from {tags.min()} to {tags.max()}")
        if levels.size and not (levels.min() >= 0 and levels.max() <= MAX_LEVEL):
            raise DataError(f"levels are 1 to 5 (0: none); got {levels.min()} to {levels.max()}")

    @classmethod
    def from_answers(cls, answers: Sequence[Sequence[ProfileAnswer | None]], attribute: Attribute) -> Ballots:
        """The ballots of parsed answers [users][samples], None where one is malformed.

        Users may have different numbers of samples: what one has less than another counts as no answer.
        """
        tags = np.full((len(answers), max(map(len, answers), default=0)), NO_ANSWER)
        levels = np.zeros_like(tags)
        for row, samples in enumerate(answers):
            for column, found in enumerate(samples):
                if found is not None and (tag := found.answers[attribute.name].tag) is not None:
                    tags[row, column] = attribute.index[tag]
                    levels[row, column] = found.answers[attribute.name].level
        return cls(tags, levels, len(attribute.tags))

    @property
    def samples(self) -> int:
        """M: the number of requested answers, received or not."""
        return int(self.tags.shape[1])

    @cached_property
    def votes(self) -> Numbers:
        """n(t): how many samples name each tag, [users, tags]."""
        return tally(self.tags, None, self.tag_count)

    @cached_property
    def confidence(self) -> Numbers:
        """s(t): the summed verbal confidence of each tag, [users, tags]."""
        return tally(self.tags, self.levels, self.tag_count)

    @cached_property
    def cells(self) -> Numbers:
        """n(t, c): how many samples name each tag at each level, [users, tags * 5]; a missing level counts as 1."""
        cell = self.tags.astype(np.int64) * MAX_LEVEL + np.maximum(self.levels, 1) - 1
        return tally(np.where(self.tags == NO_ANSWER, NO_ANSWER, cell), None, self.tag_count * MAX_LEVEL)


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


def agreement(tags: Integers, tag_count: int) -> Floats:
    """How often two of a user's answers name the same tag, [users]; NaN where there are no two answers."""
    votes = tally(tags, None, tag_count).astype(np.int64, copy=False)
    answered = votes.sum(axis=1)
    same, pairs = (votes * (votes - 1)).sum(axis=1), answered * (answered - 1)
    return np.where(pairs > 0, same / np.maximum(pairs, 1), np.nan)


def disagreement(tags: Integers, tag_count: int) -> Floats:
    """Entropy of each user's votes over log(tag_count), [users]: 0 unanimous, 1 spread evenly over all tags.

    NaN where nobody answered.
    """
    votes = tally(tags, None, tag_count).astype(np.int64, copy=False)
    answered = votes.sum(axis=1)
    counts = np.arange(tags.shape[1] + 1)
    # With p_t = n_t / n the entropy is log n - (1 / n) sum of n_t log n_t. The counts are small integers, so a table
    # of n log n replaces a million logarithms.
    surprise = (counts * np.log(np.maximum(counts, 1)))[votes].sum(axis=1)
    safe = np.maximum(answered, 1)
    entropy = np.maximum(np.log(safe) - surprise / safe, 0.0) / np.log(max(tag_count, 2))
    return np.where(answered > 0, entropy, np.nan)
