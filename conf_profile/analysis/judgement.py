"""How good a table of answers is against true labels, and the thresholds that reach a precision."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from conf_profile.analysis import frames
from conf_profile.analysis.attributes import GivenTaxonomy, find_taxonomy
from conf_profile.analysis.frames import ArrowStream, Frame
from conf_profile.analysis.inputs import Argument, read_rows
from conf_profile.dialogue.output_format import LEVELS
from conf_profile.dialogue.taxonomy import Taxonomy
from conf_profile.errors import DataError
from conf_profile.evaluation import calibration_error, metrics
from conf_profile.evaluation.bootstrap import UserBootstrap, rate_intervals
from conf_profile.evaluation.metrics import NO_TAG, Cells, FloatArray
from conf_profile.evaluation.rows import answers, positions, read_cells, read_truth

ALL_ATTRIBUTES = "(all)"
"""The attribute of the lines over all attributes together."""
_EXAMPLES = 3
"""Ids that a message shows of each table."""


def evaluate(
    predictions: Frame,
    labels: ArrowStream,
    *,
    taxonomy: GivenTaxonomy | None = None,
    resamples: int = 0,
    seed: int = 0,
    user_id: str = "user_id",
    attribute: str = "attribute",
    tag: str = "tag",
) -> Frame:
    """Measures answers on true labels, over all attributes and for each, at every threshold.

    `predictions` has the columns user_id, attribute, tag (null: no answer), and optionally level (1 to 5) and score, as
    `apply_calibration` returns them: one row for each user and attribute. `labels` has user_id, attribute and tag, of
    some of these users. Labels of other users and attributes and null tags are ignored. The keywords say what a column
    of `labels` is called otherwise.

    Returns one row for each attribute, first "(all)", and each threshold 1 to 5 (1 alone where there is no level), in
    the kind of `predictions`:

    - precision: the share of right answers among the answers at this level or above; recall: among the labels;
      f1: their harmonic mean; coverage: answers over labels. They are 0 where there is nothing to count.
    - labelled, answered: how many labels, and answers to them, these rest on.
    - calibration_error: how far score and precision are apart, on average over ten bins of the score (ECE); null
      without scores.
    - with `resamples`: 95% intervals precision_low, precision_high and so on, by a bootstrap over users that draws with
      `seed`.

    Choose thresholds on other users than you measure on. Raises DataError for tables that cannot be right, such as
    labels that match nobody.

    >>> import pyarrow
    >>> users = {"user_id": ["ann", "bob"], "attribute": ["age", "age"]}
    >>> levels = pyarrow.table({**users, "tag": ["old", "old"], "level": [5, 2]})
    >>> labels = pyarrow.table({**users, "tag": ["old", "young"]})
    >>> for row in evaluate(levels, labels).to_pylist()[:3]:
    ...     print(row["attribute"], row["threshold"], row["precision"], row["coverage"], row["labelled"])
    (all) 1 0.5 1.0 2
    (all) 2 0.5 1.0 2
    (all) 3 1.0 0.5 2
    """
    frame = frames.open_frame(predictions, "evaluate", "predictions")
    given = _Labels(labels, user_id, attribute, tag)
    judged = _judge(frame, given, taxonomy, "evaluate")
    result: Frame = frames.convert_like(_make_table(judged, resamples, seed), frame)
    return result


def choose_thresholds(
    predictions: ArrowStream,
    labels: ArrowStream,
    *,
    precision: float,
    minimum_answered: int = 20,
    taxonomy: GivenTaxonomy | None = None,
    user_id: str = "user_id",
    attribute: str = "attribute",
    tag: str = "tag",
) -> dict[str, int]:
    """For each attribute the lowest level whose answers, with those above, reach the precision.

    The rule of a run's evaluation: where no level reaches it, the one with the best precision; levels with fewer than
    `minimum_answered` labelled answers are passed over unless that leaves none; 5 for an attribute without a labelled
    answer. The tables and keywords are those of `evaluate`, with a level. Measure on other users' labels than these.

    >>> import pyarrow
    >>> users = {"user_id": ["ann", "bob"], "attribute": ["age", "age"]}
    >>> levels = pyarrow.table({**users, "tag": ["old", "old"], "level": [5, 2]})
    >>> labels = pyarrow.table({**users, "tag": ["old", "young"]})
    >>> choose_thresholds(levels, labels, precision=0.8, minimum_answered=1)
    {'age': 3}
    """
    if not 0 <= precision <= 1:
        raise DataError(f"choose_thresholds: precision is {precision}; it is a share from 0 to 1, such as 0.8")
    frame = frames.open_frame(predictions, "choose_thresholds", "predictions")
    judged = _judge(frame, _Labels(labels, user_id, attribute, tag), taxonomy, "choose_thresholds", needs_level=True)
    return dict(metrics.default_thresholds(judged.cells, judged.taxonomy.names, precision, minimum_answered))


@dataclass(frozen=True)
class _Labels:
    """The labels' frame, and what its columns are called."""

    frame: ArrowStream
    user_id: str
    attribute: str
    tag: str

    def read(self, call: str) -> pa.Table:
        """The rows that have a tag; one for each user and attribute."""
        columns = {"user_id": self.user_id, "attribute": self.attribute, "tag": self.tag}
        argument = Argument(call, "labels", columns, unique=("user_id", "attribute"))
        rows = read_rows(frames.open_frame(self.frame, call, "labels"), argument)
        return rows.filter(pc.is_valid(rows["tag"]))


@dataclass(frozen=True)
class _Judgement:
    """Answers beside the truth, [users, attributes]."""

    cells: Cells
    taxonomy: Taxonomy
    has_level: bool


def _judge(
    frame: Any, labels: _Labels, taxonomy: GivenTaxonomy | None, call: str, needs_level: bool = False
) -> _Judgement:
    rows = _read_predictions(frame, call, needs_level)
    has_level = "level" in rows.column_names
    rows = _fill_columns(rows)
    truth = labels.read(call)
    _refuse_strangers(rows, truth, call)
    truth = truth.filter(pc.is_in(truth["attribute"], rows["attribute"].combine_chunks()))
    known = find_taxonomy(taxonomy, [rows, truth], call)
    if taxonomy is None:
        _warn_of_other_words(rows, truth, known, call)
    users = rows["user_id"].combine_chunks().unique()
    at = positions(rows, users, known, f"{call}: predictions")
    cells = read_cells(rows, at, read_truth(truth, users, known, f"{call}: labels"))
    return _Judgement(cells, known, has_level)


def _read_predictions(frame: Any, call: str, needs_level: bool) -> pa.Table:
    columns: dict[str, str | None] = dict.fromkeys(("user_id", "attribute", "tag"))
    optional: dict[str, str | None] = {"score": None}
    (columns if needs_level else optional)["level"] = None
    return read_rows(frame, Argument(call, "predictions", columns, optional, unique=("user_id", "attribute")))


def _fill_columns(rows: pa.Table) -> pa.Table:
    for name, kind in (("level", pa.int8()), ("score", pa.float64())):
        if name not in rows.column_names:
            rows = rows.append_column(name, pa.nulls(len(rows), kind))
    return rows


def _refuse_strangers(rows: pa.Table, labels: pa.Table, call: str) -> None:
    """DataError where no label is of a user and an attribute of the predictions."""
    for name, advice in (
        ("user_id", "write the ids of both tables in one form"),
        ("attribute", "call the attributes by the same names in both tables"),
    ):
        known = pc.is_in(labels[name], rows[name].combine_chunks())
        labels_of_known = labels.filter(known)
        if not len(labels_of_known):
            raise DataError(
                f"{call}: no label matches a row of the predictions by its {name} (labels: {_list_some(labels[name])}; "
                f"predictions: {_list_some(rows[name])}); {advice}"
            )
        labels = labels_of_known


def _list_some(column: pa.ChunkedArray) -> str:
    different = column.unique().to_pylist()
    shown = ", ".join(map(repr, different[:_EXAMPLES]))
    return f"{shown}, ..." if len(different) > _EXAMPLES else shown or "none"


def _warn_of_other_words(rows: pa.Table, labels: pa.Table, taxonomy: Taxonomy, call: str) -> None:
    """Where labels and predictions share no tag of an attribute, they probably write it differently."""
    for name in taxonomy.names:
        stated, true = (
            set(table.filter(pc.equal(table["attribute"], name))["tag"].drop_null().to_pylist())
            for table in (rows, labels)
        )
        if stated and true and not stated & true:
            warnings.warn(
                f"{call}: no label of {name!r} has a tag that is predicted anywhere (labels: {_quote_some(true)}; "
                f"predictions: {_quote_some(stated)}): are they written differently?",
                stacklevel=4,
            )


def _quote_some(tags: set[str]) -> str:
    return _list_some(pa.chunked_array([pa.array(sorted(tags))]))


def _make_table(judged: _Judgement, resamples: int, seed: int) -> pa.Table:
    thresholds = LEVELS if judged.has_level else LEVELS[:1]
    counts = _count(judged.cells, thresholds)
    columns = _describe(counts.sum(axis=0), judged, thresholds)
    if resamples:
        columns |= _find_intervals(UserBootstrap(len(counts), resamples, seed).sums(counts))
    return pa.table(columns)


def _count(cells: Cells, thresholds: Sequence[int]) -> FloatArray:
    """[users, 1 + attributes, thresholds, 3]: correct, answered, answerable; the first stands for all attributes."""
    counts = np.stack([metrics.counts(cells, threshold) for threshold in thresholds], axis=2)
    return np.concatenate([counts.sum(axis=1, keepdims=True), counts], axis=1)


def _describe(counts: FloatArray, judged: _Judgement, thresholds: Sequence[int]) -> dict[str, pa.Array]:
    """The columns without intervals, line by line: attribute by attribute, each at all thresholds."""
    names = (ALL_ATTRIBUTES, *judged.taxonomy.names)
    lines = [metrics.scores(count) for of_attribute in counts for count in of_attribute]
    rates = ("precision", "recall", "f1", "coverage")
    errors = [_calibration_error(cells, threshold) for cells in _split(judged.cells) for threshold in thresholds]
    return {
        "attribute": pa.array(np.repeat(names, len(thresholds)).tolist(), pa.string()),
        "threshold": pa.array(list(thresholds) * len(names), pa.int8()),
        **{rate: pa.array([getattr(line, rate) for line in lines], pa.float64()) for rate in rates},
        "labelled": pa.array(counts[..., 2].ravel().astype(np.int64)),
        "answered": pa.array(counts[..., 1].ravel().astype(np.int64)),
        "calibration_error": pa.array(errors, pa.float64()),
    }


def _split(cells: Cells) -> list[Cells]:
    """All attributes together, then each."""
    every = range(cells.prediction.shape[1])
    columns = [list(every), *([column] for column in every)]
    return [
        Cells(cells.prediction[:, at], cells.level[:, at], cells.score[:, at], cells.truth[:, at]) for at in columns
    ]


def _calibration_error(cells: Cells, threshold: int) -> float | None:
    kept = answers(np.where(cells.level >= threshold, cells.prediction, NO_TAG), cells.level, cells.score, cells.truth)
    return calibration_error.expected_calibration_error(calibration_error.reliability(kept))


def _find_intervals(resampled: FloatArray) -> dict[str, pa.Array]:
    """From resampled counts [resamples, lines..., 3]: the limits of precision, recall and f1."""
    lines = resampled.reshape(len(resampled), -1, 3)
    found = [rate_intervals(lines[:, line]) for line in range(lines.shape[1])]
    columns = {}
    for position, rate in enumerate(("precision", "recall", "f1")):
        columns[f"{rate}_low"] = pa.array([intervals[position].low for intervals in found], pa.float64())
        columns[f"{rate}_high"] = pa.array([intervals[position].high for intervals in found], pa.float64())
    return columns
