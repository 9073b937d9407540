"""Whether a stated probability is kept: reliability, expected calibration error, Brier score.

Measured over cells that were answered, labelled and given a score. Fitting a calibration is not done here
(`confidence` does it, without labels).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from conf_profile.evaluation.metrics import Cells, FloatArray

BINS = 10


@dataclass(frozen=True)
class ReliabilityBin:
    """The cells whose score falls into one tenth of [0, 1]: their mean score, accuracy and number."""

    score: float
    accuracy: float
    count: int


def reliability(cells: Cells, bins: int = BINS) -> tuple[ReliabilityBin, ...]:
    """Non-empty bins of equal width, lowest scores first; a score of 1 belongs to the last bin."""
    score, correct = _select_scored(cells)
    position = np.minimum((score * bins).astype(np.int64), bins - 1)
    return tuple(
        ReliabilityBin(float(score[inside].mean()), float(correct[inside].mean()), int(inside.sum()))
        for inside in (position == number for number in range(bins))
        if inside.any()
    )


def expected_calibration_error(bins: Sequence[ReliabilityBin]) -> float | None:
    """Mean distance between accuracy and score, weighted by the bins' counts; None without scored cells."""
    total = sum(item.count for item in bins)
    if not total:
        return None
    return sum(item.count * abs(item.accuracy - item.score) for item in bins) / total


def brier(cells: Cells) -> float | None:
    """Mean squared distance between the score and being right (1) or wrong (0); None without scored cells."""
    score, correct = _select_scored(cells)
    return float(np.mean((score - correct) ** 2)) if len(score) else None


def _select_scored(cells: Cells) -> tuple[FloatArray, FloatArray]:
    chosen = cells.answered & ~np.isnan(cells.score)
    return cells.score[chosen], cells.correct[chosen].astype(np.float64)
