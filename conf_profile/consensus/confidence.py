"""Calibration by partition: boundaries over the scores that make the five confidence levels balanced.

Verbal confidence is skewed (most answers claim 4 or 5), so the paper cuts the range of scores anew. The four
boundaries of each attribute are fitted once, without labels, stored as JSON, and applied everywhere. This
module knows nothing of votes or models: `kind` says which decoding the scores came from, since boundaries
that were fitted for one do not fit another.

A score s has the level 1 + (number of boundaries <= s). Scores are discrete, so ties can make 20% each
impossible; the cuts then come as close to it as they can. With fewer than five distinct scores some levels
are skipped: the levels stay monotone, and the ones that are used lie nearest to their quantile (a single
distinct score is level 3). An attribute without any score gets the boundaries 0.2, 0.4, 0.6, 0.8.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from conf_profile.errors import DataError
from conf_profile.files import write_text

Kind = Literal["teacher-vote", "greedy", "vote"]
"""What was scored: the teacher's vote, the student's greedy answer, or a vote over the student's samples."""
KINDS: tuple[str, ...] = get_args(Kind)
LEVEL_COUNT = 5
EVEN_BOUNDARIES = (0.2, 0.4, 0.6, 0.8)

_MAX_CANDIDATE_CUTS = 2000
_QUANTILE_WEIGHT = 1e-9

Floats = npt.NDArray[np.float64]
Levels = npt.NDArray[np.int8]
Histogram = Mapping[float, int]
"""Distinct score -> how often it occurs."""


@dataclass(frozen=True)
class Partition:
    """One attribute's four ascending boundaries (equal neighbours skip a level). DataError otherwise."""

    boundaries: tuple[float, float, float, float]

    def __post_init__(self) -> None:
        values = np.asarray(self.boundaries, dtype=np.float64)
        if values.shape != (LEVEL_COUNT - 1,) or not np.isfinite(values).all() or (np.diff(values) < 0).any():
            raise DataError(f"boundaries must be four ascending finite numbers, not {list(self.boundaries)}")


@dataclass(frozen=True)
class Calibration:
    """The partitions of all attributes, and the decoding whose scores they were fitted on."""

    kind: str
    partitions: Mapping[str, Partition]


def fit(scores_by_attribute: Mapping[str, Floats], kind: str) -> Calibration:
    """Fits the boundaries of each attribute on its scores (any shape). DataError unless they are finite."""
    return fit_histograms({name: histogram(scores) for name, scores in scores_by_attribute.items()}, kind)


def fit_histograms(histograms: Mapping[str, Histogram], kind: str) -> Calibration:
    """`fit` for scores that were counted while streaming; the same boundaries as from the array of them."""
    _check_kind(kind, "a calibration")
    return Calibration(kind, {name: _partition(counts, name) for name, counts in histograms.items()})


def histogram(scores: Floats) -> dict[float, int]:
    """Counts the distinct scores."""
    values, counts = np.unique(np.asarray(scores, dtype=np.float64), return_counts=True)
    return dict(zip(values.tolist(), counts.tolist(), strict=True))


def apply(calibration: Calibration, attribute: str, scores: Floats) -> Levels:
    """Levels 1-5 of the same shape as the scores; a higher score never has a lower level.

    Raises DataError for an attribute that was not calibrated and for NaN.
    """
    if attribute not in calibration.partitions:
        raise DataError(
            f"attribute {attribute!r} has no calibration; it was fitted for: "
            f"{', '.join(calibration.partitions) or 'nothing'}"
        )
    if np.isnan(scores).any():
        raise DataError(f"attribute {attribute!r}: a score is NaN; levels need a number")
    boundaries = np.asarray(calibration.partitions[attribute].boundaries)
    # level(s) = 1 + number of boundaries b <= s, which is monotone in s.
    return (1 + np.searchsorted(boundaries, scores, side="right")).astype(np.int8)


def level_counts(levels: Levels) -> npt.NDArray[np.int64]:
    """How many of each level 1-5, [5]; DataError for anything outside."""
    flat = np.asarray(levels).ravel()
    if flat.size and not (flat.min() >= 1 and flat.max() <= LEVEL_COUNT):
        raise DataError(f"levels are 1 to 5; got {flat.min()} to {flat.max()}")
    return np.bincount(flat.astype(np.int64), minlength=LEVEL_COUNT + 1)[1:].astype(np.int64)


def balance(levels: Levels) -> float:
    """The largest deviation of a level's share from 20%: 0 is perfectly balanced, 0.8 one level only."""
    return balance_of_counts(level_counts(levels))


def balance_of_counts(counts: npt.ArrayLike) -> float:
    """`balance` from the five counts; 0 where there is nothing to balance."""
    values = np.asarray(counts, dtype=np.float64)
    total = values.sum()
    return float(np.abs(values / total - 1 / LEVEL_COUNT).max()) if total else 0.0


def save(calibration: Calibration, path: Path) -> None:
    """Writes the JSON that `load` reads, whole or not at all."""
    boundaries = {name: list(part.boundaries) for name, part in calibration.partitions.items()}
    write_text(path, json.dumps({"kind": calibration.kind, "boundaries": boundaries}, indent=2) + "\n")


def load(path: Path, expected_kind: str | None = None) -> Calibration:
    """Reads and checks a calibration; DataError names the file and the offence.

    With `expected_kind`, one that was fitted for another decoding is refused.
    """
    data = _read(path)
    kind = str(data["kind"])
    _check_kind(kind, str(path))
    if expected_kind not in (None, kind):
        raise DataError(f"{path}: fitted for {kind!r}, needed for {expected_kind!r}; fit it on those scores")
    partitions = {name: _parse(name, values, path) for name, values in data["boundaries"].items()}
    return Calibration(kind, partitions)


def _partition(counts: Histogram, name: str) -> Partition:
    values, weights = np.asarray(sorted(counts.items()), dtype=np.float64).reshape(-1, 2).T
    if not np.isfinite(values).all() or (weights < 0).any():
        raise DataError(f"attribute {name!r}: scores must be finite and their counts not negative")
    values, weights = values[weights > 0], weights[weights > 0]
    if not len(values):
        return Partition(EVEN_BOUNDARIES)
    below = np.concatenate([[0.0], np.cumsum(weights)]) / weights.sum()
    cuts = _candidate_cuts(below)
    chosen = cuts[_best_cuts(below[cuts])]
    first, second, third, fourth = (_boundary(values, int(cut)) for cut in chosen)
    return Partition((first, second, third, fourth))


def _candidate_cuts(below: Floats) -> npt.NDArray[np.intp]:
    """Positions between distinct scores that are worth trying; below[i] is the share under position i.

    All of them, unless there are thousands: then those nearest to a fine grid, around every large tie too.
    """
    if len(below) <= _MAX_CANDIDATE_CUTS:
        return np.arange(len(below))
    right = np.searchsorted(below, np.linspace(0, 1, _MAX_CANDIDATE_CUTS // 2)).clip(1, len(below) - 1)
    return np.unique(np.concatenate([[0], right - 1, right]))


def _best_cuts(below: Floats) -> npt.NDArray[np.intp]:
    """Four ascending positions with the least squared deviation from 20% over the levels (dynamic programme).

    The optimum is exact. Among equals, those nearest to the quantiles: that settles which levels are skipped.
    """
    # With B the share of scores under a position, the cuts minimise sum over levels l of (B_l - B_{l-1} - 1/5)^2.
    # cost_l(j) = min over i <= j of cost_{l-1}(i) + (B_j - B_i - 1/5)^2: the best l levels that end at position j.
    positions = len(below)
    deviation = (below[None, :] - below[:, None] - 1 / LEVEL_COUNT) ** 2
    deviation[np.tril_indices(positions, -1)] = np.inf
    cost, steps = deviation[0], []
    for level in range(1, LEVEL_COUNT):
        # So small a weight decides between equals only.
        cost = cost + _QUANTILE_WEIGHT * (below - level / LEVEL_COUNT) ** 2
        reached = cost[:, None] + deviation
        steps.append(reached.argmin(axis=0))
        cost = reached.min(axis=0)
    chosen = [positions - 1]
    for step in reversed(steps):
        chosen.append(int(step[chosen[-1]]))
    return np.asarray(chosen[:0:-1], dtype=np.intp)


def _boundary(values: Floats, cut: int) -> float:
    """A number between two neighbouring scores, so that rounding in the last digit changes no level.

    A cut at either end lies beyond the range of scores: a level that is skipped is given to nobody later.
    """
    if cut == 0:
        return min(float(values[0]), 0.0)
    if cut == len(values):
        return float(np.nextafter(max(float(values[-1]), 1.0), np.inf))
    lower, upper = float(values[cut - 1]), float(values[cut])
    middle = lower + (upper - lower) / 2
    return middle if middle > lower else upper


def _read(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"{path}: cannot read the calibration: {error.strerror or error}") from error
    except ValueError as error:
        raise DataError(f"{path}: the calibration is not valid JSON: {error}; fit it again") from error
    if not isinstance(data, dict) or "kind" not in data or not isinstance(data.get("boundaries"), dict):
        raise DataError(f"{path}: expected {{kind, boundaries: {{attribute: four numbers}}}}; fit it again")
    return data


def _parse(name: str, values: object, path: Path) -> Partition:
    numbers = isinstance(values, list) and all(type(value) in (int, float) for value in values)
    if not isinstance(values, list) or not numbers or len(values) != LEVEL_COUNT - 1:
        raise DataError(f"{path}: attribute {name!r} needs four numbers as boundaries, not {values!r}")
    try:
        first, second, third, fourth = map(float, values)
        return Partition((first, second, third, fourth))
    except DataError as error:
        raise DataError(f"{path}: attribute {name!r}: {error}") from error


def _check_kind(kind: str, source: str) -> None:
    if kind not in KINDS:
        raise DataError(f"{source}: kind {kind!r} does not exist; it is one of {', '.join(KINDS)}")
