"""What can be said of a run that has no true labels. None of it says how often an answer is right.

The student's answers themselves (how many, which tags, which levels), how often they are those of the teacher's votes
and of the other students, and how far the teacher's samples agree among each other.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from components.evaluation import teacher
from components.evaluation.cells import Population, read_predictions
from components.evaluation.teacher import REPORTED_VOTES, Samples
from conf_profile.consensus import ballots, confidence
from conf_profile.dialogue.taxonomy import Taxonomy
from conf_profile.evaluation import hierarchy, metrics
from conf_profile.evaluation.arms import BASE, CHAMPION, SFT, TRAINED_ARMS, teacher_arm
from conf_profile.evaluation.bootstrap import UserBootstrap
from conf_profile.evaluation.metrics import NO_TAG, Cells
from conf_profile.evaluation.unjudged import agreement


def describe(
    predictions: Mapping[str, Path],
    candidates: Sequence[Path],
    test: Population,
    candidate: str,
    draws: UserBootstrap,
) -> dict[str, Any]:
    """The figures of an evaluation without labels: `answers` by arm, `agreement` of pairs of arms, `samples`."""
    samples, asked = teacher.read_samples(candidates, test.taxonomy)
    read = {name: read_predictions(path, test, name) for name, path in predictions.items()}
    arms = {name: found for name, found in read.items() if name == BASE}
    arms |= teacher.arms_of_samples(samples, asked, test)
    arms |= {name: found for name, found in read.items() if name != BASE}
    return {
        "answers": {name: _describe_answers(cells, test.taxonomy) for name, cells in arms.items()},
        "agreement": [_describe_agreement(arms, pair, test.taxonomy, draws) for pair in _pairs(arms, candidate)],
        "samples": _describe_samples(samples, test.taxonomy),
    }


def _pairs(arms: Mapping[str, Cells], candidate: str) -> Iterator[tuple[str, str]]:
    """Each stage of the student beside each of the teacher's votes, then the candidate beside other students."""
    for student in TRAINED_ARMS:
        yield from ((student, vote) for vote in map(teacher_arm, REPORTED_VOTES) if {student, vote} <= arms.keys())
    yield from ((candidate, other) for other in (SFT, CHAMPION) if other in arms and other != candidate)


def _describe_answers(cells: Cells, taxonomy: Taxonomy) -> dict[str, Any]:
    """How many cells are answered, and with what; `balance` is a level's largest deviation from 20%."""
    levels = metrics.level_counts(cells)
    top_share, mean_level = hierarchy.level_balance(levels)
    return {
        "cells": int(cells.prediction.size),
        "answered": int((cells.prediction != NO_TAG).sum()),
        "level_counts": list(levels),
        "balance": confidence.balance_of_counts(levels),
        "top_share": top_share,
        "mean_level": mean_level,
        "per_attribute": {
            attribute.name: _describe_attribute(cells, column, len(attribute.tags))
            for column, attribute in enumerate(taxonomy.attributes)
        },
    }


def _describe_attribute(cells: Cells, column: int, tags: int) -> dict[str, Any]:
    named = cells.prediction[:, column]
    levels = confidence.level_counts(cells.level[named != NO_TAG, column])
    return {
        "answered": int((named != NO_TAG).sum()),
        "tag_counts": list(agreement.tag_counts(named, tags)),
        "level_counts": levels.tolist(),
        "balance": confidence.balance_of_counts(levels),
    }


def _describe_agreement(
    arms: Mapping[str, Cells], pair: tuple[str, str], taxonomy: Taxonomy, draws: UserBootstrap
) -> dict[str, Any]:
    """`drift_bits` is the divergence of the first arm's tags from the second's: 0 the same, 1 nothing in common."""
    first, second = arms[pair[0]], arms[pair[1]]
    sizes = [len(attribute.tags) for attribute in taxonomy.attributes]
    found, curves = agreement.compare(first, second, sizes, draws), agreement.sweep(first, second)
    per_attribute = {
        name: {
            **asdict(found.per_attribute[column]),
            "drift_bits": _drift(first, second, column, sizes[column]),
            "sweep": [asdict(point) for point in curves[column]],
        }
        for column, name in enumerate(taxonomy.names)
    }
    drifts = [item["drift_bits"] for item in per_attribute.values()]
    overall = {**asdict(found.overall), "drift_bits": float(np.mean(drifts))}
    return {"first": pair[0], "second": pair[1], **overall, "per_attribute": per_attribute}


def _drift(first: Cells, second: Cells, column: int, tags: int) -> float:
    return agreement.divergence(*(agreement.tag_counts(arm.prediction[:, column], tags) for arm in (first, second)))


def _describe_samples(samples: Samples, taxonomy: Taxonomy) -> dict[str, Any]:
    """Over everybody whom the teacher was asked about: the share of two samples' answers that are the same."""
    agreeing = {
        attribute.name: ballots.agreement(samples.tags[:, column], len(attribute.tags))
        for column, attribute in enumerate(taxonomy.attributes)
    }
    return {
        "users": len(samples.tags),
        "samples": int(samples.tags.shape[2]),
        "agreement": {name: _mean(found) for name, found in agreeing.items()},
    }


def _mean(values: ballots.Floats) -> float | None:
    """None where no user has two answers, as with a teacher that is sampled once."""
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else None
