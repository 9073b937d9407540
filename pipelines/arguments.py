"""The pipeline's arguments, from a run's configuration and a data set. Light: no kfp here."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from conf_profile.config import RunConfig
from conf_profile.data import dataset
from conf_profile.data.dataset import Dataset
from conf_profile.errors import DataError

ABSENT = "absent.none"
"""An empty file stands for an input that a data set does not have (lexicon, ceiling)."""
CEILING = "ceiling.parquet"
CACHED_BY_CONTENT = (*dataset.FEATURE_FILES, *dataset.TEACHING_FILES)


@dataclass(frozen=True)
class Inputs:
    """Where the tables of a data set are (paths or URIs), and what the cache knows them by."""

    behaviour_uri: str
    demographics_uri: str
    taxonomy_uri: str
    lexicon_uri: str
    labels_uri: str
    ceiling_uri: str
    as_of: str
    data_digest: str
    labels_digest: str


def build(config: RunConfig, data: Dataset, champion_version: str, workspace: Path) -> dict[str, Any]:
    """Every argument of the training pipeline, for a run on this machine."""
    inputs = Inputs(
        behaviour_uri=str(data.behaviour),
        demographics_uri=str(data.demographics),
        taxonomy_uri=str(data.taxonomy),
        lexicon_uri=str(data.lexicon or _absent(workspace)),
        labels_uri=str(required_labels(data)),
        ceiling_uri=str(data.paths.get(CEILING) or _absent(workspace)),
        as_of=config.features.as_of or data.as_of,
        data_digest=data.digest(CACHED_BY_CONTENT),
        labels_digest=data.labels_digest(),
    )
    return with_inputs(config, inputs, champion_version, str(workspace), str(workspace / "answers"))


def required_labels(data: Dataset) -> Path:
    """The labels; DataError where there are none, since nothing could be evaluated."""
    if data.labels is None:
        raise DataError(
            f"{data.folder}: there is no labels.parquet; the evaluation and the gate need true labels of some users"
        )
    return data.labels


def with_inputs(
    config: RunConfig, inputs: Inputs, champion_version: str, workspace: str, answers_folder: str
) -> dict[str, Any]:
    """Every argument of the training pipeline. An empty `workspace`: no checkpoints beyond a task."""
    return {
        **asdict(inputs),
        "champion_version": champion_version,
        "workspace": workspace,
        "answers_folder": answers_folder,
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
        "rollout_service": config.rollout.inference_service,
        "rollout_config": config.rollout.for_step(),
        "run_config": config.for_step(),
        "config_yaml": config.to_yaml(),
    }


def _absent(workspace: Path) -> Path:
    path = workspace / ABSENT
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    return path
