"""The SFT student, sampled M times once for every training user: the frozen reference.

Its weighted vote is the quasi-ground truth of the second stage, its confidence the weight of the reward. Both
are computed here, before GRPO starts, and never again (the paper's defence against reward hacking); the
table's hash goes into the model's manifest.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from conf_profile import confidence, tables, voting
from conf_profile.config import ReferenceConfig
from conf_profile.errors import StudentError
from conf_profile.output_format import ProfileAnswer, parse_or_none
from conf_profile.prompts import UserFeatures
from conf_profile.students import examples, folder, rollouts, training
from conf_profile.students.folder import Student
from conf_profile.students.rollouts import Sampling
from conf_profile.taxonomy import Taxonomy

NO_ANSWER = -1


def run(
    features: Path,
    student: Path,
    reference: Path,
    report: Path,
    config: ReferenceConfig,
    dtype: str,
    seed: int,
) -> dict[str, Any]:
    """Writes tables.REFERENCE for users of the splits `second_stage` and `train`, and a report about it."""
    training.quiet_imports(config.use_vllm)
    table = tables.read(features, tables.FEATURES)
    people = [*examples.users(table, ["second_stage"]), *examples.users(table, ["train"])][: config.max_users]
    loaded = folder.load(student, dtype)
    texts = _sample(student, loaded, people, config, seed)
    parsed = [[parse_or_none(text, loaded.taxonomy) for text in samples] for samples in texts]
    if not any(found for samples in parsed for found in samples):
        raise StudentError(f"{student}: none of the student's samples follows the grammar; train it for longer")
    table, summary = _vote(people, parsed, loaded.taxonomy)
    tables.write(reference, table, tables.REFERENCE)
    summary["sha256"] = hashlib.sha256(reference.read_bytes()).hexdigest()
    tables.write_text(report, json.dumps(summary, indent=2))
    return summary


def _sample(
    student: Path, loaded: Student, people: list[UserFeatures], config: ReferenceConfig, seed: int
) -> list[list[str]]:
    sampling = Sampling(config.temperature, config.samples, config.batch_size, loaded.max_completion_tokens, seed)
    if config.use_vllm:
        from conf_profile.students.vllm_rollouts import generate as generate_with_vllm

        return generate_with_vllm(student, loaded.prompts(people), sampling)
    reported = _Reporter(len(people))
    return rollouts.generate(loaded.model, loaded.tokenizer, loaded.prompts(people), sampling, reported)


class _Reporter:
    """Prints a line at every tenth of the users."""

    def __init__(self, total: int) -> None:
        self.total, self.done, self.said = total, 0, 0

    def __call__(self, count: int) -> None:
        self.done += count
        if self.done * 10 // self.total > self.said:
            self.said = self.done * 10 // self.total
            print(f"reference {self.done}/{self.total} users", flush=True)


def _vote(
    people: list[UserFeatures], parsed: list[list[ProfileAnswer | None]], taxonomy: Taxonomy
) -> tuple[pa.Table, dict[str, Any]]:
    columns: dict[str, list[Any]] = {"user_id": [], "attribute": [], "tag": [], "confidence": []}
    disagreement: dict[str, float] = {}
    stated = np.zeros(5, dtype=np.int64)
    for attribute in taxonomy.attributes:
        tags, levels = _ballots(parsed, attribute.name, attribute.index)
        vote = voting.vote(tags, levels, len(attribute.tags), "weighted")
        disagreement[attribute.name] = float(np.nanmean(voting.disagreement(tags, len(attribute.tags))))
        stated += confidence.level_counts(levels[tags != NO_ANSWER])
        for row in np.flatnonzero(vote.tag != NO_ANSWER):
            columns["user_id"].append(people[row].user_id)
            columns["attribute"].append(attribute.name)
            columns["tag"].append(attribute.tags[vote.tag[row]])
            columns["confidence"].append(float(vote.score[row]))
    samples = [found for row in parsed for found in row]
    summary = {
        "users": len(people),
        "samples": len(parsed[0]),
        "malformed": sum(found is None for found in samples) / len(samples),
        "disagreement": disagreement,
        "stated_levels": stated.tolist(),
        "confidence_histogram": np.histogram(columns["confidence"], bins=10, range=(0, 1))[0].tolist(),
    }
    return pa.Table.from_pydict(columns, schema=tables.REFERENCE.schema), summary


def _ballots(
    parsed: list[list[ProfileAnswer | None]], name: str, index: Any
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """[users, samples] tag indices (-1: none) and levels (0: none) of one attribute."""
    tags = np.full((len(parsed), len(parsed[0])), NO_ANSWER)
    levels = np.zeros_like(tags)
    for row, samples in enumerate(parsed):
        for column, found in enumerate(samples):
            if found is not None and (tag := found.answers[name].tag) is not None:
                tags[row, column] = index[tag]
                levels[row, column] = found.answers[name].level
    return tags, levels
