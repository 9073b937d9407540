"""The features step as a task of KFP: fetches the two tables and the task, and gives Feast a folder to work in."""

from __future__ import annotations

import tempfile
from pathlib import Path

from components.features import step
from components.outputs import Artefact
from conf_profile.config import FeaturesConfig, parse_section
from conf_profile.data import inputs
from conf_profile.errors import ConfigError


def run(
    features: Artefact,
    report: Artefact,
    behaviour: str,
    demographics: str,
    task_file: str,
    data_digest: str,
    as_of: str,
    config: str,
) -> None:
    """`behaviour`, `demographics` and `task_file` are addresses (see `inputs`), `config` the section `features`.

    ConfigError without a `data_digest`: the next run would find this one in the cache, whatever the tables hold then.
    """
    if not data_digest:
        raise ConfigError(
            "data_digest is empty, and this version of the pipeline takes steps from the cache: start the run with "
            "`conf-profile submit`, or from a version that `conf-profile submit --upload-only` has made, or give a "
            "text that changes with the tables"
        )
    with tempfile.TemporaryDirectory() as folder:
        task = inputs.fetch_task(task_file, Path(folder))
        events, sign_ups = inputs.fetch_features(behaviour, demographics, task, Path(folder))
        step.run(
            behaviour=events,
            demographics=sign_ups,
            task_file=task,
            features=Path(features.path),
            report=Path(report.path),
            workspace=Path(folder) / "feast",
            as_of=as_of,
            config=parse_section(FeaturesConfig, config),
        )
