"""How good a set of predicted profiles is, against true labels.

A cell is one (user, attribute). Precision counts over the cells that were answered, recall over the cells
that could be (those with a label); a cell without a label is ignored, since labels may be partial. F1 is
their harmonic mean, which for counts is 2 x correct / (answered + answerable).

Everything starts from `counts`: correct, answered and answerable for each user and attribute. Sums of it give
the micro and the per-attribute figures, and weighted sums give the bootstrap (`bootstrap`).

Only evaluation may call this module, and `analysis` for a caller with labels at hand: it is where true labels are read.
It knows nothing of files (components/evaluation), of promotion (`gate`) or of calibrating confidence (`confidence`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from conf_profile.dialogue.output_format import LEVELS
from conf_profile.errors import DataError

IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]

NO_TAG = -1
"""No tag: in `prediction` the model abstained, in `truth` nobody knows."""


@dataclass(frozen=True)
class Cells:
    """Predictions and truth, each of shape [users, attributes].

    `prediction` and `truth` hold positions in the attribute's tag list or NONE; `level` 1-5, 0 where there is
    no answer; `score` the stated probability of being right in [0, 1], NaN where none was stated.
    """

    prediction: IntArray
    level: IntArray
    score: FloatArray
    truth: IntArray

    def __post_init__(self) -> None:
        shapes = {name: getattr(self, name).shape for name in ("prediction", "level", "score", "truth")}
        if self.prediction.ndim != 2 or len(set(shapes.values())) != 1:
            raise DataError(f"cells need four arrays of one shape [users, attributes]; given {shapes}")
        if self.level.size and not 0 <= self.level.min() <= self.level.max() <= max(LEVELS):
            raise DataError(f"levels must be 0-5; given {self.level.min()} to {self.level.max()}")
        if bool(np.any((self.score < 0) | (self.score > 1))):
            raise DataError("scores must lie in [0, 1] (NaN where none was stated)")

    @property
    def answerable(self) -> BoolArray:
        """Cells with a true label."""
        return np.asarray(self.truth != NO_TAG)

    @property
    def answered(self) -> BoolArray:
        """Labelled cells with a predicted tag."""
        return np.asarray(self.answerable & (self.prediction != NO_TAG))

    @property
    def correct(self) -> BoolArray:
        """Labelled cells with the right tag."""
        return np.asarray(self.answerable & (self.prediction == self.truth))

    def users(self, rows: BoolArray | IntArray) -> Cells:
        """The cells of some of the users."""
        return Cells(self.prediction[rows], self.level[rows], self.score[rows], self.truth[rows])


@dataclass(frozen=True)
class Scores:
    """One line of a result table; rates lie in [0, 1] and are 0 where nothing could be counted."""

    precision: float
    recall: float
    f1: float
    coverage: float
    support: int


@dataclass(frozen=True)
class Threshold:
    """The scores when only cells of level >= `tau` are answered."""

    tau: int
    scores: Scores


def counts(cells: Cells, minimum_level: int | IntArray = 0) -> FloatArray:
    """[users, attributes, 3]: correct, answered, answerable; below `minimum_level` a cell is not answered.

    `minimum_level` is one level or one for each attribute (shape [attributes]).
    """
    kept = cells.level >= minimum_level
    kinds = np.stack([cells.correct & kept, cells.answered & kept, cells.answerable], axis=-1)
    return kinds.astype(np.float64)


def rates(count: FloatArray) -> FloatArray:
    """Counts [..., 3] (correct, answered, answerable) to [..., 3] (precision, recall, f1); 0 for 0 / 0."""
    correct, answered, answerable = count[..., 0], count[..., 1], count[..., 2]
    return np.stack(
        [ratio(correct, answered), ratio(correct, answerable), ratio(2 * correct, answered + answerable)],
        axis=-1,
    )


def ratio(numerator: FloatArray, denominator: FloatArray) -> FloatArray:
    """Elementwise division, 0 where the denominator is 0."""
    result: FloatArray = np.zeros(np.broadcast_shapes(numerator.shape, denominator.shape))
    np.divide(numerator, denominator, out=result, where=denominator != 0)
    return result


def scores(count: FloatArray) -> Scores:
    """The scores of summed counts, shape [3]."""
    precision, recall, f1 = (float(value) for value in rates(count))
    coverage = float(ratio(count[..., 1], count[..., 2]))
    return Scores(precision, recall, f1, coverage, int(count[..., 2]))


def micro(cells: Cells) -> Scores:
    """Over all cells of all attributes."""
    return scores(counts(cells).sum(axis=(0, 1)))


def per_attribute(cells: Cells) -> tuple[Scores, ...]:
    """The scores of each attribute, in the arrays' order."""
    return tuple(scores(count) for count in counts(cells).sum(axis=0))


def sweep(cells: Cells) -> tuple[Threshold, ...]:
    """Micro scores at each threshold tau in 1..5."""
    return tuple(Threshold(tau, scores(counts(cells, tau).sum(axis=(0, 1)))) for tau in LEVELS)


def sweep_per_attribute(cells: Cells) -> tuple[tuple[Threshold, ...], ...]:
    """For each attribute its scores at each threshold tau in 1..5."""
    by_level = [counts(cells, tau).sum(axis=0) for tau in LEVELS]
    return tuple(
        tuple(Threshold(tau, scores(count[column])) for tau, count in zip(LEVELS, by_level, strict=True))
        for column in range(cells.prediction.shape[1])
    )


def level_counts(cells: Cells) -> tuple[int, ...]:
    """How many predicted cells state each level 1..5, labelled or not: no label is needed for this one."""
    stated = cells.level[cells.prediction != NO_TAG]
    return tuple(int(np.count_nonzero(stated == level)) for level in LEVELS)


def confusion(prediction: IntArray, truth: IntArray, tag_count: int) -> IntArray:
    """[tags, tags + 1] for one attribute: rows truth, columns predicted; the last column is "none"."""
    labelled = truth != NO_TAG
    column = np.where(prediction == NO_TAG, tag_count, prediction)[labelled]
    flat = truth[labelled] * (tag_count + 1) + column
    return np.bincount(flat, minlength=tag_count * (tag_count + 1)).reshape(tag_count, tag_count + 1)


def majority_tag(truth: IntArray, tag_counts: Sequence[int]) -> Cells:
    """What always answering each attribute's most frequent true tag gets: a baseline that reads the labels.

    The most frequent tag is taken from the very labels it is measured on, so it is the best that any constant
    answer can reach. Its score is that tag's share; its level is 3 everywhere: it cannot tell cells apart.
    """
    prediction = np.full(truth.shape, NO_TAG, dtype=np.int64)
    score = np.full(truth.shape, np.nan)
    for column, tag_count in enumerate(tag_counts):
        known = truth[truth[:, column] != NO_TAG, column]
        if len(known):
            frequency = np.bincount(known, minlength=tag_count)
            prediction[:, column] = int(frequency.argmax())
            score[:, column] = frequency.max() / len(known)
    level = np.where(prediction == NO_TAG, 0, 3)
    return Cells(prediction, level, score, truth)


def default_thresholds(
    cells: Cells, attributes: Sequence[str], target_precision: float, minimum_answered: int = 20
) -> Mapping[str, int]:
    """Each attribute's default threshold, chosen on VALIDATION users: never pass the test users' cells.

    The lowest level whose precision (over cells of that level or above) reaches the target, else the level
    with the best precision. Levels with fewer than `minimum_answered` labelled answers are passed over, as
    three lucky cells are no evidence, unless that leaves none. An attribute with no labelled answer at all
    gets 5: where nothing is known, only the surest answers are accepted.
    """
    curves = sweep_per_attribute(cells)
    return {
        name: _threshold(curve, target_precision, minimum_answered)
        for name, curve in zip(attributes, curves, strict=True)
    }


def _threshold(curve: Sequence[Threshold], target: float, minimum_answered: int) -> int:
    answered = {point.tau: round(point.scores.coverage * point.scores.support) for point in curve}
    eligible = [point for point in curve if answered[point.tau] >= max(1, minimum_answered)]
    eligible = eligible or [point for point in curve if answered[point.tau] > 0]
    if not eligible:
        return max(LEVELS)
    reaching = [point.tau for point in eligible if point.scores.precision >= target]
    best = max(eligible, key=lambda point: (point.scores.precision, -point.tau))
    return min(reaching, default=best.tau)
