"""What the pipeline makes for an arm.

An arm is a run of the pipeline with the arm's settings, which ends after the last step that the arm needs; none reaches
the evaluation, and no label's address is given to any. All runs share one folder: arms that share a step find it done.
So data are given by addresses that name their content, and everything else of a run is the same for all of them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, List  # noqa: UP035 - KFP's type system knows typing.List

from components.steps import BY_NAME, steps_of
from conf_profile.config import RunConfig
from conf_profile.data.build import build
from conf_profile.data.dataset import (
    BEHAVIOUR,
    DEMOGRAPHICS,
    FEATURE_FILES,
    LEXICON,
    MANIFEST,
    TASK,
    Dataset,
    load,
)
from conf_profile.files import atomic_path
from conf_profile.source import source_hash
from pipelines.arguments import Inputs, Places, pipeline_arguments
from pipelines.local.shared_runs import SharedRuns


@dataclass(frozen=True)
class Artefacts:
    """The data set of a run, and where the run's outputs are; KeyError for one that the run did not make."""

    data: Dataset
    outputs: Mapping[str, Any]

    @property
    def features(self) -> Path:
        return Path(self.outputs["features"])

    @property
    def candidates(self) -> list[Path]:
        return [Path(shard) for shard in self.outputs["candidates"]]

    def path(self, name: str) -> Path:
        """Another output; see `_outputs`."""
        return Path(self.outputs[name])


@dataclass(frozen=True)
class ExperimentFolder:
    """The folder in which the runs of all arms share what they make."""

    folder: Path

    @cached_property
    def _runs(self) -> SharedRuns:
        return SharedRuns(self.folder)

    def run(self, config: RunConfig, until: str, predictions: str = "") -> Artefacts:
        """Runs the pipeline up to and with a step.

        `predictions` of the student that it makes then are made, too: "trained", or "untrained" for the model that SFT
        began with.
        """
        config = config.model_copy(update={"teacher": config.teacher.model_copy(update={"shards": 1})})
        steps = steps_of(config, until) + ((BY_NAME["predictions"],) if predictions else ())
        data = self.data(config)
        outputs = self._runs.run(self._arguments(config, data), steps, _outputs(), predictions == "untrained")
        return Artefacts(data, outputs)

    def data(self, config: RunConfig) -> Dataset:
        """The data set; the same settings and seed give the same files."""
        from filelock import FileLock

        settings = [source_hash("conf_profile.data.build"), config.data.for_step(), config.seed]
        digest = hashlib.sha256(json.dumps(settings).encode()).hexdigest()[:16]
        folder = self.folder / "data" / digest
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.with_suffix(".lock")):
            return load(folder) if (folder / MANIFEST).is_file() else build(config, folder)

    def _arguments(self, config: RunConfig, data: Dataset) -> dict[str, Any]:
        """Of the steps up to the predictions: what comes after them is told nothing."""
        inputs = Inputs(
            behaviour_uri=self._address(data, BEHAVIOUR),
            demographics_uri=self._address(data, DEMOGRAPHICS),
            task_uri=self._address(data, TASK),
            lexicon_uri=self._address(data, LEXICON) if data.lexicon else "",
            labels_uri="",
            ceiling_uri="",
            as_of=config.features.as_of or data.as_of,
            # Taxonomy and lexicon are known by their addresses: people whom two teachers answer for have one table.
            data_digest=data.digest(FEATURE_FILES),
            labels_digest="",
        )
        places = Places(str(self.folder / "workspace"), str(self.folder / "answers"), configuration="")
        return pipeline_arguments(config, inputs, "", places)

    def _address(self, data: Dataset, name: str) -> str:
        """The address of a file below its own hash."""
        path = self.folder / "inputs" / data.hashes[name][:32] / name
        if not path.is_file():
            with atomic_path(path) as temporary:
                temporary.symlink_to(data.paths[name].resolve())
        return str(path)


def _outputs() -> dict[str, Any]:
    """What is looked at of a run, as far as the run makes it."""
    from kfp import dsl

    from pipelines.training import OUTPUTS

    return {
        **{name: OUTPUTS[name] for name in ("features", "sft_student", "grpo_log", "predictions")},
        "candidates": ("synthesis", "candidates", List[dsl.Dataset]),  # noqa: UP006
        "labelling_report": ("labelling", "report", dsl.Artifact),
        "rejection_student": ("rejection", "student", dsl.Model),
        "reference": ("reference", "reference", dsl.Dataset),
        "filtered": ("filtering", "filtered", dsl.Dataset),
        "grpo_metrics": ("grpo", "metrics", dsl.Metrics),
    }
