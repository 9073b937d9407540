"""The evaluation as a task of KFP: predictions first, then the one place where true labels are fetched and read."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from components.evaluation import inference, kfp_metrics
from components.evaluation.step import score
from components.outputs import Artefact, Metrics, log_metrics
from conf_profile.config import EvaluationConfig, StorageConfig, StudentConfig, parse_section
from conf_profile.data import inputs


class Confusion(Artefact, Protocol):
    """KFP's artefact for a confusion matrix."""

    def log_confusion_matrix(self, categories: list[str], matrix: list[list[int]]) -> None:
        """Puts the matrix on KFP's page."""


def run(
    features: Artefact,
    candidates: Sequence[Artefact],
    sft_student: Artefact,
    student: Artefact,
    evaluation: Artefact,
    metrics: Metrics,
    confusion: Confusion,
    task_file: str,
    labels: str,
    ceiling: str,
    config: str,
    student_config: str,
    storage: str,
    champion_version: str,
    seed: int,
) -> None:
    """`task_file`, `labels` and `ceiling` are addresses; empty: there are no labels, or the ceiling is not known."""
    settings, network = parse_section(EvaluationConfig, config), parse_section(StudentConfig, student_config)
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        tags = inputs.fetch_task(task_file, work)
        # Before the predictions, which take long: labels that cannot be read should fail the step at once.
        truth = inputs.fetch_labels(labels, tags, work)
        best = inputs.fetch_truth(ceiling, "ceiling.parquet", work) if truth else None
        rival = inference.fetch_champion(champion_version, parse_section(StorageConfig, storage), work / "champion")
        predictions = inference.predict_arms(
            features=Path(features.path),
            sft_student=Path(sft_student.path),
            student=Path(student.path),
            champion=rival.folder,
            student_config=network,
            batch_size=settings.batch_size,
            seed=int(seed),
            work=work,
        )
        smoke = inference.smoke_profiles(Path(student.path), Path(features.path), network, settings.batch_size)
        result = score(
            predictions=predictions,
            candidates=[Path(shard.path) for shard in candidates],
            features=Path(features.path),
            labels=truth,
            task_file=tags,
            ceiling=best,
            evaluation=Path(evaluation.path),
            config=settings,
            seed=int(seed),
            compared_with=rival.version,
            champion_judged=rival.judged,
            smoke=smoke,
        )
    _show(result, metrics, confusion)


def _show(result: Mapping[str, Any], metrics: Metrics, confusion: Confusion) -> None:
    """What KFP's own page shows."""
    log_metrics(metrics, kfp_metrics.scalars(result))
    matrix = kfp_metrics.confusion(result)
    if matrix is not None:
        confusion.log_confusion_matrix(*matrix)
    # kfp.local caches a task only if each of its artefacts is a file.
    Path(confusion.path).write_text(json.dumps(matrix), encoding="utf-8")
