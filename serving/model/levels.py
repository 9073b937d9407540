"""How sure a student is of the levels that it states, from the log-probabilities that vLLM returns.

In training the score is the expected value of the level's digit under the model's own probabilities of the five
digits (`students.rollouts.expected_levels`). Here the same is read off a chat completion's `logprobs`: the tokens,
and for each the most likely alternatives. A digit that is not among them is less likely than all of those, and counts
as impossible.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from conf_profile.dialogue.output_format import LEVELS
from conf_profile.students.tokenizer import level_alternatives, level_positions

TOP_LOGPROBS = 5
"""Alternatives asked for at each token: at a level's position they are its five digits."""


def expected_levels(content: Sequence[Mapping[str, Any]]) -> list[float]:
    """`choices[i].logprobs.content` to the expected value of each stated level, in [1, 5], in order of appearance."""
    pieces = [str(token["token"]) for token in content]
    return [_expected_level(content[position], pieces, position, digit) for position, digit in level_positions(pieces)]


def _expected_level(token: Mapping[str, Any], pieces: list[str], position: int, digit: int) -> float:
    known = {str(other["token"]): math.exp(float(other["logprob"])) for other in token["top_logprobs"]}
    weights = [known.get(piece, 0.0) for piece in level_alternatives(pieces, position, digit)]
    total = sum(weights)
    if not 0.0 < total < math.inf:
        # The server returned no alternatives, or no probabilities: the level that was said is all that is known.
        return float(pieces[position][digit])
    return sum(level * weight for level, weight in zip(LEVELS, weights, strict=True)) / total
