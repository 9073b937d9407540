"""The pipeline's arguments, from a run's configuration and a data set. Light: no kfp here."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from components.steps import SECTIONS
from conf_profile.config import RunConfig
from conf_profile.data import dataset
from conf_profile.data.dataset import Dataset
from conf_profile.dialogue import task as tasks
from conf_profile.evaluation.unjudged.gate import check_levels
from conf_profile.storage import configuration_file

CEILING = "ceiling.parquet"
CACHED_BY_CONTENT = (*dataset.FEATURE_FILES, *dataset.TEACHING_FILES)


@dataclass(frozen=True)
class Inputs:
    """Where each file of a data set is, and what the cache knows them by.

    An address is a path of this machine or `s3://BUCKET/KEY[?endpoint=URL&region=NAME]`; lexicon, labels and ceiling
    may be absent, which is an empty address. No step is given a folder's.
    """

    behaviour_uri: str
    demographics_uri: str
    task_uri: str
    lexicon_uri: str
    labels_uri: str
    ceiling_uri: str
    as_of: str
    data_digest: str
    labels_digest: str

    @property
    def truth(self) -> tuple[str, ...]:
        """The addresses that the evaluation alone is given."""
        return tuple(filter(None, (self.labels_uri, self.ceiling_uri)))

    @property
    def teaching(self) -> tuple[str, ...]:
        """The addresses that the other steps are given."""
        return tuple(filter(None, (self.behaviour_uri, self.demographics_uri, self.task_uri, self.lexicon_uri)))


@dataclass(frozen=True)
class Places:
    """Where a run keeps what outlives its steps: a folder of this machine, or an address in S3, each.

    `workspace` is for training checkpoints, `answers` for what the teacher said; `configuration` is the file of the
    resolved configuration.
    """

    workspace: str
    answers: str
    configuration: str


def build(config: RunConfig, data: Dataset, champion_version: str, workspace: Path) -> dict[str, Any]:
    """Every argument of the training pipeline, for a run on this machine.

    ConfigError where `gate.unjudged_levels` names attributes that the taxonomy does not have: the gate would find it
    when everything has been paid for.
    """
    check_levels(config.gate, tasks.load(data.task).names)
    inputs = Inputs(
        behaviour_uri=str(data.behaviour),
        demographics_uri=str(data.demographics),
        task_uri=str(data.task),
        lexicon_uri=str(data.lexicon or ""),
        labels_uri=str(data.labels or ""),
        ceiling_uri=str(data.paths.get(CEILING, "")),
        as_of=config.features.as_of or data.as_of,
        data_digest=data.digest(CACHED_BY_CONTENT),
        labels_digest=data.labels_digest(),
    )
    places = Places(str(workspace), str(workspace / "answers"), configuration_file.write(config, workspace))
    return pipeline_arguments(config, inputs, champion_version, places)


def pipeline_arguments(config: RunConfig, inputs: Inputs, champion_version: str, places: Places) -> dict[str, Any]:
    """Every argument of the training pipeline."""
    return {
        **asdict(inputs),
        "champion_version": champion_version,
        "workspace": places.workspace,
        "answers_folder": places.answers,
        "shards": list(range(config.teacher.shards)),
        "samples": config.teacher.samples,
        "seed": config.seed,
        "dtype": config.student.dtype,
        **{f"{section}_config": getattr(config, section).for_step() for section in SECTIONS},
        "configuration": places.configuration,
    }
