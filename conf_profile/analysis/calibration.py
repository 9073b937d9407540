"""The partition of the votes' scores into five balanced levels: fitted without labels, and applied."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from conf_profile.analysis import frames
from conf_profile.analysis.frames import ArrowStream, Frame
from conf_profile.analysis.inputs import Argument, read_rows
from conf_profile.consensus import confidence
from conf_profile.consensus.confidence import Calibration, Floats, Kind
from conf_profile.errors import DataError
from conf_profile.evaluation.metrics import IntArray


def fit_calibration(votes: ArrowStream, kind: Kind = "teacher-vote") -> Calibration:
    """Fits four boundaries for each attribute that make the five levels of its scores as balanced as ties allow.

    `votes` has the columns attribute, tag and score, as `vote` returns them; rows without a tag take no part. It needs
    no label. `kind` names what was scored, and is kept with the boundaries, which
    `conf_profile.consensus.confidence.save` writes to a file.

    >>> import pyarrow
    >>> votes = pyarrow.table({"attribute": ["age"] * 5, "tag": ["old"] * 5, "score": [0.1, 0.2, 0.3, 0.4, 0.5]})
    >>> [round(boundary, 2) for boundary in fit_calibration(votes).partitions["age"].boundaries]
    [0.15, 0.25, 0.35, 0.45]
    """
    given = _read_scores(frames.open_frame(votes, "fit_calibration", "votes"), "fit_calibration")
    return confidence.fit({name: given.score[rows] for name, rows in given.rows.items()}, kind)


def apply_calibration(votes: Frame, calibration: Calibration) -> Frame:
    """The same table with the column `level`: 1 to 5, null where there is no tag. A level that it had is replaced.

    DataError for an attribute that the calibration was not fitted for.

    >>> import pyarrow
    >>> votes = pyarrow.table({"attribute": ["age"] * 5, "tag": ["old"] * 5, "score": [0.1, 0.2, 0.3, 0.4, 0.5]})
    >>> apply_calibration(votes, fit_calibration(votes))["level"].to_pylist()
    [1, 2, 3, 4, 5]
    """
    frame = frames.open_frame(votes, "apply_calibration", "votes")
    given = _read_scores(frame, "apply_calibration")
    levels = np.zeros(len(given.score), dtype=np.int8)
    for name, rows in given.rows.items():
        levels[rows] = confidence.apply(calibration, name, given.score[rows])
    result: Frame = frames.replace_column(frame, "level", pa.array(levels, mask=levels == 0))
    return result


@dataclass(frozen=True)
class _Scores:
    """The scores of a table of votes, row by row, and for each attribute the rows that have a tag."""

    score: Floats
    rows: Mapping[str, IntArray]


def _read_scores(frame: Any, call: str) -> _Scores:
    table = read_rows(frame, Argument(call, "votes", dict.fromkeys(("attribute", "tag", "score"))))
    answered = pc.is_valid(table["tag"])
    row = pc.index(pc.and_(answered, pc.is_null(table["score"])), True).as_py()
    if row >= 0:
        raise DataError(f"{call}: row {row} of 'votes' has a tag without a score; a level is made of the score")
    rows = {
        name: np.flatnonzero(pc.and_(answered, pc.equal(table["attribute"], name)).to_numpy())
        for name in table["attribute"].unique().to_pylist()
    }
    return _Scores(table["score"].to_numpy(), rows)
