"""The frozen reference: the SFT student, sampled M times once for every training user.

For one user and attribute the quasi-ground truth is argmax over tags t of s(t), the weighted vote over the M samples,
and C_ref = s(winner) / (5 M) in [0, 1] weighs its reward. Both are computed here, before GRPO starts, and never
again: a policy cannot raise its reward by stating higher confidence (the paper's defence against reward hacking,
with the vote frozen too). The model's manifest records the table's hash.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from conf_profile import tables
from conf_profile.config import ReferenceConfig
from conf_profile.consensus import confidence, voting
from conf_profile.consensus.ballots import MAX_LEVEL, NO_ANSWER
from conf_profile.consensus.voting import Vote
from conf_profile.files import write_text
from conf_profile.students import folder, training
from conf_profile.students.reference import Samples, sample, second_stage_users


def run(
    features: Path,
    student: Path,
    reference: Path,
    support: Path,
    report: Path,
    config: ReferenceConfig,
    dtype: str,
    seed: int,
) -> dict[str, Any]:
    """Writes tables.REFERENCE and tables.SUPPORT for users of `second_stage` and `train`, and a report about it."""
    training.quiet_imports(config.use_vllm)
    people = second_stage_users(tables.read_features(features), config)
    samples = sample(student, folder.load(student, dtype), people, config, seed, "reference")
    votes = samples.votes(config.vote)
    table = _reference(samples, votes)
    tables.write(reference, table, tables.REFERENCE)
    tables.write(support, _support(samples), tables.SUPPORT)
    summary = _summary(samples, table) | {"sha256": hashlib.sha256(reference.read_bytes()).hexdigest()}
    write_text(report, json.dumps(summary, indent=2))
    return summary


def _reference(samples: Samples, votes: Mapping[str, Vote]) -> pa.Table:
    columns: dict[str, list[Any]] = {"user_id": [], "attribute": [], "tag": [], "confidence": []}
    for attribute in samples.task.attributes:
        vote = votes[attribute.name]
        # Without an answer there is nothing to agree with: such an attribute has no row, and no reward.
        for row in np.flatnonzero(vote.tag != NO_ANSWER):
            columns["user_id"].append(samples.people[row].user_id)
            columns["attribute"].append(attribute.name)
            columns["tag"].append(attribute.tags[vote.tag[row]])
            columns["confidence"].append(float(vote.score[row]))
    return pa.Table.from_pydict(columns, schema=tables.REFERENCE.schema)


def _support(samples: Samples) -> pa.Table:
    """Each named tag's summed confidence over the largest possible sum, s(t) / (5 M)."""
    columns: dict[str, list[Any]] = {"user_id": [], "attribute": [], "tag": [], "support": []}
    for attribute in samples.task.attributes:
        ballots = samples.ballots(attribute.name)
        summed = ballots.confidence / (MAX_LEVEL * ballots.samples)
        for row, column in zip(*np.nonzero(summed), strict=True):
            columns["user_id"].append(samples.people[row].user_id)
            columns["attribute"].append(attribute.name)
            columns["tag"].append(attribute.tags[column])
            columns["support"].append(float(summed[row, column]))
    return pa.Table.from_pydict(columns, schema=tables.SUPPORT.schema)


def _summary(samples: Samples, reference: pa.Table) -> dict[str, Any]:
    disagreement: dict[str, float] = {}
    stated = np.zeros(confidence.LEVEL_COUNT, dtype=np.int64)
    for attribute in samples.task.attributes:
        ballots = samples.ballots(attribute.name)
        disagreement[attribute.name] = float(np.nanmean(voting.disagreement(ballots.tags, ballots.tag_count)))
        stated += confidence.level_counts(ballots.levels[ballots.tags != NO_ANSWER])
    answers = [found for row in samples.parsed for found in row]
    return {
        "users": len(samples.people),
        "samples": len(samples.parsed[0]),
        "malformed": sum(found is None for found in answers) / len(answers),
        "disagreement": disagreement,
        "stated_levels": stated.tolist(),
        "confidence_histogram": np.histogram(reference["confidence"].to_numpy(), bins=10, range=(0, 1))[0].tolist(),
    }
