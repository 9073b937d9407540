"""Joins the rationales of the winning samples into one for each user and attribute.

The keyphrases of all samples that named the winner, most cited first (a sample cites a keyphrase once), ties
by first appearance in sample order, at most eight. Text is split once for each distinct rationale of a block;
the counting is numpy over keyphrase codes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from conf_profile.dialogue.prompts import SEPARATOR, split_keyphrases

MAX_KEYPHRASES = 8

Codes = npt.NDArray[np.int32]
Integers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Keyphrases:
    """The keyphrases of distinct rationales: rationale r has codes[offsets[r]:offsets[r + 1]]."""

    vocabulary: pa.StringArray
    offsets: Integers
    codes: Integers


def split(citations: Codes, rationales: pa.StringArray) -> tuple[Codes, Keyphrases]:
    """Splits the rationales that are cited at all; returns the citations renumbered to those, same shape."""
    cited = np.zeros(len(rationales) + 1, dtype=np.bool_)
    cited[citations] = True
    used = np.flatnonzero(cited[:-1])
    # The last entry keeps -1 (no rationale) as it is.
    renumbered = np.full(len(rationales) + 1, -1, dtype=np.int32)
    renumbered[used] = np.arange(len(used), dtype=np.int32)
    return renumbered[citations], _split(rationales.take(pa.array(used)).to_pylist())


def join(citations: Codes, winning: npt.NDArray[np.bool_], keyphrases: Keyphrases) -> pa.StringArray:
    """One rationale for each user, null where the winning samples name no keyphrase.

    `citations` [users, samples] indexes the rationales (-1: none); `winning` [users, samples] marks the
    samples that named the winner.
    """
    users = len(citations)
    user, sample = np.nonzero(winning & (citations >= 0))
    user, phrase = _expand(user, citations[user, sample], keyphrases)
    user, phrase = _select_most_cited(user, phrase, len(keyphrases.vocabulary))
    offsets = np.concatenate([[0], np.cumsum(np.bincount(user, minlength=users))])
    # A list is null where its offset is null: that is what makes a user without keyphrases null, not "".
    is_empty = np.append(np.diff(offsets) == 0, False)
    lists = pa.ListArray.from_arrays(
        pa.array(offsets.astype(np.int32), mask=is_empty), keyphrases.vocabulary.take(pa.array(phrase))
    )
    return pc.binary_join(lists, SEPARATOR)


def _split(rationales: list[str]) -> Keyphrases:
    index: dict[str, int] = {}
    lists = [
        [index.setdefault(phrase, len(index)) for phrase in dict.fromkeys(split_keyphrases(text))]
        for text in rationales
    ]
    lengths = np.fromiter(map(len, lists), dtype=np.int64, count=len(lists))
    codes = np.fromiter((code for codes in lists for code in codes), dtype=np.int64, count=lengths.sum())
    return Keyphrases(pa.array(list(index), pa.string()), np.concatenate([[0], np.cumsum(lengths)]), codes)


def _expand(user: Integers, rationale: Codes, keyphrases: Keyphrases) -> tuple[Integers, Integers]:
    """One entry for each keyphrase of each citation, in the order of the citations."""
    first = keyphrases.offsets[rationale]
    lengths = keyphrases.offsets[rationale + 1] - first
    ends = np.cumsum(lengths)
    within = np.arange(ends[-1] if len(ends) else 0) - np.repeat(ends - lengths, lengths)
    return np.repeat(user, lengths), keyphrases.codes[np.repeat(first, lengths) + within]


def _select_most_cited(user: Integers, phrase: Integers, vocabulary: int) -> tuple[Integers, Integers]:
    """The first MAX_KEYPHRASES of each user: most cited, then first cited; ordered by user."""
    pairs, first, count = np.unique(user * vocabulary + phrase, return_index=True, return_counts=True)
    user, phrase = pairs // max(vocabulary, 1), pairs % max(vocabulary, 1)
    order = np.lexsort((first, -count, user))
    user, phrase = user[order], phrase[order]
    place = np.arange(len(user)) - np.searchsorted(user, user)
    return user[place < MAX_KEYPHRASES], phrase[place < MAX_KEYPHRASES]
