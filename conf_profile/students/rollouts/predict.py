"""The student's greedy answers as predictions, and the partition that makes their levels balanced.

The score of a prediction is the expected value of the level that the student states, over 5; its level is
the partition's, fitted on users without labels. A malformed answer predicts nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from conf_profile import tables
from conf_profile.consensus import confidence
from conf_profile.consensus.confidence import Calibration
from conf_profile.dialogue.output_format import LEVELS, parse_or_none
from conf_profile.dialogue.taxonomy import Taxonomy
from conf_profile.students.rollouts.rollouts import Progress, Sampling, expected_levels, generate

GREEDY = "greedy"
MAX_CALIBRATION_USERS = 400
"""Users that the partition is fitted on: enough for boundaries at 20% steps, seconds to generate."""


@dataclass(frozen=True)
class GreedyAnswers:
    """Tags [users][attributes] (None: unknown or malformed) and scores [users, attributes] in [0, 1]."""

    user_ids: tuple[str, ...]
    tags: tuple[tuple[str | None, ...], ...]
    scores: npt.NDArray[np.float64]
    malformed: int


def answer(
    model: Any,
    tokenizer: Any,
    user_ids: Sequence[str],
    prompts: Sequence[str],
    taxonomy: Taxonomy,
    batch_size: int,
    max_completion_tokens: int,
    progress: Progress | None = None,
) -> GreedyAnswers:
    """Generates greedily and reads the answers."""
    sampling = Sampling(0.0, 1, batch_size, max_completion_tokens, seed=0)
    texts = [samples[0] for samples in generate(model, tokenizer, prompts, sampling, progress)]
    parsed = [parse_or_none(text, taxonomy) for text in texts]
    well_formed = [row for row, found in enumerate(parsed) if found is not None]
    expected = expected_levels(
        model, tokenizer, [prompts[r] for r in well_formed], [texts[r] for r in well_formed], batch_size
    )
    scores = np.zeros((len(prompts), len(taxonomy.names)))
    for row, values in zip(well_formed, expected, strict=True):
        scores[row] = values / len(LEVELS)
    tags = tuple(tuple(found.answers[name].tag if found else None for name in taxonomy.names) for found in parsed)
    return GreedyAnswers(tuple(user_ids), tags, scores, len(prompts) - len(well_formed))


def fit_calibration(answers: GreedyAnswers, taxonomy: Taxonomy) -> Calibration:
    """The partition of the answers' scores, attribute by attribute; only cells with a tag count."""
    said = np.array([[tag is not None for tag in row] for row in answers.tags]).reshape(answers.scores.shape)
    return confidence.fit(
        {name: answers.scores[said[:, column], column] for column, name in enumerate(taxonomy.names)}, GREEDY
    )


def to_table(answers: GreedyAnswers, calibration: Calibration, taxonomy: Taxonomy) -> pa.Table:
    """tables.PREDICTIONS: one row for each user and attribute; tag, level and score are null where nothing was said."""
    columns: dict[str, list[Any]] = {"user_id": [], "attribute": [], "tag": [], "level": [], "score": []}
    for column, name in enumerate(taxonomy.names):
        levels = confidence.apply(calibration, name, answers.scores[:, column])
        for row, user_id in enumerate(answers.user_ids):
            tag = answers.tags[row][column]
            columns["user_id"].append(user_id)
            columns["attribute"].append(name)
            columns["tag"].append(tag)
            columns["level"].append(int(levels[row]) if tag is not None else None)
            columns["score"].append(float(answers.scores[row, column]) if tag is not None else None)
    return pa.Table.from_pydict(columns, schema=tables.PREDICTIONS.schema)
