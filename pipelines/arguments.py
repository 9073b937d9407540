"""The pipeline's arguments, from a run's configuration and a data set. Light: no kfp here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from conf_profile.config import RunConfig
from conf_profile.data import dataset
from conf_profile.data.dataset import Dataset
from conf_profile.errors import DataError

ABSENT = "absent.none"
"""An empty file stands for an input that a data set does not have (lexicon, ceiling)."""


def build(config: RunConfig, data: Dataset, champion_version: str, workspace: Path) -> dict[str, Any]:
    """Every argument of `pipelines.training.training_pipeline`."""
    if data.labels is None:
        raise DataError(
            f"{data.folder}: there is no labels.parquet; the evaluation and the gate need true labels of some users"
        )
    return {
        "behaviour_uri": str(data.behaviour),
        "demographics_uri": str(data.demographics),
        "taxonomy_uri": str(data.taxonomy),
        "lexicon_uri": str(data.lexicon or _absent(workspace)),
        "labels_uri": str(data.labels),
        "ceiling_uri": str(data.paths.get("ceiling.parquet") or _absent(workspace)),
        "as_of": config.features.as_of or data.as_of,
        "data_digest": data.digest((*dataset.FEATURE_FILES, *dataset.TEACHING_FILES)),
        "labels_digest": data.labels_digest(),
        "champion_version": champion_version,
        "workspace": str(workspace),
        "answers_folder": str(workspace / "answers"),
        "shards": list(range(config.teacher.shards)),
        "samples": config.teacher.samples,
        "seed": config.seed,
        "dtype": config.student.dtype,
        "features_config": config.features.for_step(),
        "prompt_config": config.prompt.for_step(),
        "teacher_config": config.teacher.for_step(),
        "labelling_config": config.labelling.for_step(),
        "student_config": config.student.for_step(),
        "sft_config": config.sft.for_step(),
        "rejection_config": config.rejection.for_step(),
        "reference_config": config.reference.for_step(),
        "filtering_config": config.filtering.for_step(),
        "grpo_config": config.grpo.for_step(),
        "evaluation_config": config.evaluation.for_step(),
        "gate_config": config.gate.for_step(),
        "storage_config": config.storage.for_step(),
        "run_config": config.for_step(),
        "config_yaml": config.to_yaml(),
    }


def _absent(workspace: Path) -> Path:
    path = workspace / ABSENT
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    return path
