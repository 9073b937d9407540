"""The synthesis step as a task of KFP: fetches task and lexicon, and notes its counts with the candidates."""

from __future__ import annotations

import tempfile
from pathlib import Path

from components.outputs import Artefact
from components.synthesis import step
from conf_profile.config import PromptConfig, TeacherConfig, parse_section
from conf_profile.data import inputs


def run(
    features: Artefact,
    candidates: Artefact,
    task_file: str,
    lexicon: str,
    config: str,
    prompt: str,
    seed: int,
    shard: int,
    answers_folder: str,
) -> None:
    """One shard of the users asked about. An empty `lexicon`: there is none."""
    with tempfile.TemporaryDirectory() as folder:
        tags = inputs.fetch_task(task_file, Path(folder))
        counts = step.run(
            features=Path(features.path),
            task_file=tags,
            lexicon=inputs.fetch_lexicon(lexicon, tags, Path(folder)),
            candidates=Path(candidates.path),
            config=parse_section(TeacherConfig, config),
            prompt=parse_section(PromptConfig, prompt),
            seed=int(seed),
            shard=int(shard),
            answers_folder=answers_folder,
        )
    candidates.metadata.update(counts)
