"""The teacher's arms, from the candidates that it sampled: one sample, and every vote over all samples.

Confidence is each arm's own: the single sample keeps its verbal level as it was said, the votes get levels by
the balanced partition of their scores (fitted on these very scores; no label is needed for it). A vote that
learns is fitted on everybody whom the teacher was asked about, as labelling does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from components.evaluation.cells import Population, require_all_users
from conf_profile.consensus import confidence, voting
from conf_profile.consensus.candidates import blocks, check_users, sample_count
from conf_profile.dialogue.output_format import LEVELS
from conf_profile.dialogue.taxonomy import Taxonomy
from conf_profile.evaluation.arms import TEACHER_SINGLE, teacher_arm
from conf_profile.evaluation.metrics import NO_TAG, Cells, FloatArray, IntArray
from conf_profile.evaluation.rows import answers, integers


@dataclass(frozen=True)
class Samples:
    """All samples of all users: tag positions and verbal levels, [users, attributes, samples]."""

    tags: IntArray
    levels: IntArray


REPORTED_VOTES = ("majority", "weighted", "log_odds", "em")


def arms(candidates: Sequence[Path], people: Population, methods: Sequence[str] = REPORTED_VOTES) -> dict[str, Cells]:
    """teacher_single and an arm for each vote; none where the teacher was asked about none of these people.

    DataError when it was asked about some of the users only.
    """
    return arms_of_samples(*read_samples(candidates, people.taxonomy), people, methods)


def arms_of_samples(
    samples: Samples, asked: pa.Array, people: Population, methods: Sequence[str] = REPORTED_VOTES
) -> dict[str, Cells]:
    """`arms` for samples that were read already; `asked` holds the ids of their users."""
    rows = integers(pc.index_in(people.user_ids, asked), NO_TAG)
    if (rows == NO_TAG).all():
        return {}
    require_all_users(np.flatnonzero(rows != NO_TAG), people, "candidates (teacher's arms)")
    single = answers(samples.tags[rows, :, 0], samples.levels[rows, :, 0], _stated_scores(samples)[rows], people.truth)
    return {TEACHER_SINGLE: single} | {
        teacher_arm(method): _voted_cells(samples, rows, people, method) for method in methods
    }


def read_samples(candidates: Sequence[Path], taxonomy: Taxonomy) -> tuple[Samples, pa.Array]:
    """The samples of everybody who was asked, and their ids."""
    count = sample_count(candidates)
    found = [block for path in candidates for block in blocks(path, taxonomy, count)]
    check_users([block.user_rows for block in found])
    nobody = np.empty((0, len(taxonomy.names), count), dtype=np.int64)
    tags = np.concatenate([nobody, *(block.tags.transpose(1, 0, 2) for block in found)])
    levels = np.concatenate([nobody, *(block.levels.transpose(1, 0, 2) for block in found)])
    asked = pa.chunked_array([block.users for block in found], pa.string()).combine_chunks()
    return Samples(tags, levels), asked


def _stated_scores(samples: Samples) -> FloatArray:
    return samples.levels[:, :, 0] / max(LEVELS)


def _voted_cells(samples: Samples, rows: IntArray, people: Population, method: str) -> Cells:
    shape = people.truth.shape
    tag, level, score = np.full(shape, NO_TAG), np.zeros(shape, dtype=np.int64), np.full(shape, np.nan)
    for column, attribute in enumerate(people.taxonomy.attributes):
        tags, levels = samples.tags[:, column], samples.levels[:, column]
        outcome = voting.fit(tags, levels, len(attribute.tags), method).elect(tags[rows], levels[rows])
        tag[:, column] = outcome.tag
        # A majority's own confidence is its share of the votes; the others say how sure they are.
        score[:, column] = outcome.share if method.startswith("majority") else outcome.score
        level[:, column] = _balanced_levels(score[:, column], tag[:, column])
    return answers(tag, level, score, people.truth)


def _balanced_levels(score: FloatArray, tag: IntArray) -> IntArray:
    fitted = confidence.fit({"scores": score[tag != NO_TAG]}, "teacher-vote")
    return confidence.apply(fitted, "scores", score).astype(np.int64)
