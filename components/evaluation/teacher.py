"""The teacher's arms, from the candidates that it sampled: one sample, majority vote, weighted vote.

Confidence is each arm's own: the single sample keeps its verbal level as it was said, the votes get levels by
the balanced partition of their scores (fitted on these very scores; no label is needed for it).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from components.evaluation.cells import Population, answers, integers, of_users, positions, require_all_users
from conf_profile import confidence, tables, voting
from conf_profile.metrics import NONE, Cells, FloatArray, IntArray
from conf_profile.output_format import LEVELS


@dataclass(frozen=True)
class Samples:
    """All samples of all users: tag positions and verbal levels, [users, attributes, samples]."""

    tags: IntArray
    levels: IntArray


def arms(candidates: Sequence[Path], people: Population) -> dict[str, Cells]:
    """teacher_single, teacher_majority and teacher_weighted; none where the teacher was never asked.

    DataError when it was asked about some of the users only.
    """
    rows = _read(candidates, people)
    if not len(rows):
        return {}
    samples = _samples(rows, people)
    return {
        "teacher_single": _single(samples, people),
        "teacher_majority": _voted(samples, people, "majority"),
        "teacher_weighted": _voted(samples, people, "weighted"),
    }


def _read(candidates: Sequence[Path], people: Population) -> pa.Table:
    columns = ["user_id", "sample", "attribute", "tag", "level"]
    parts = [of_users(tables.read(path, tables.CANDIDATES), people.user_ids).select(columns) for path in candidates]
    return pa.concat_tables(parts) if parts else tables.CANDIDATES.schema.empty_table()


def _samples(rows: pa.Table, people: Population) -> Samples:
    at = positions(rows, people.user_ids, people.taxonomy, "candidates")
    require_all_users(at.user, people, "candidates (teacher's arms)")
    sample = integers(rows["sample"])
    shape = (*people.truth.shape, int(pc.max(rows["sample"]).as_py()) + 1)
    tags, levels = np.full(shape, NONE), np.zeros(shape, dtype=np.int64)
    tags[at.user, at.attribute, sample] = at.tag
    levels[at.user, at.attribute, sample] = integers(rows["level"])
    return Samples(tags, levels)


def _single(samples: Samples, people: Population) -> Cells:
    level = samples.levels[:, :, 0]
    return answers(samples.tags[:, :, 0], level, level / max(LEVELS), people.truth)


def _voted(samples: Samples, people: Population, method: str) -> Cells:
    shape = people.truth.shape
    tag, level, score = np.full(shape, NONE), np.zeros(shape, dtype=np.int64), np.full(shape, np.nan)
    for column, attribute in enumerate(people.taxonomy.attributes):
        tags, levels = samples.tags[:, column], samples.levels[:, column]
        outcome = voting.vote(tags, levels, len(attribute.tags), method)
        tag[:, column] = outcome.tag
        # A majority's own confidence is its share of the votes; a weighted vote's is its support.
        score[:, column] = outcome.share if method == "majority" else outcome.score
        level[:, column] = _balanced_levels(score[:, column], tag[:, column])
    return answers(tag, level, score, people.truth)


def _balanced_levels(score: FloatArray, tag: IntArray) -> IntArray:
    fitted = confidence.fit({"scores": score[tag != NONE]}, "teacher-vote")
    return confidence.apply(fitted, "scores", score).astype(np.int64)
