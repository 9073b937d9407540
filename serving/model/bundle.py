"""What the transformer needs of a model's folder: everything but the weights. No torch, no tokenizer.

The folder is a registry version (or a student's folder before promotion): task.yaml, calibration.json,
profile.json, and from the promotion thresholds.json, evaluation.json and manifest.json.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from conf_profile import tables
from conf_profile.config import PromptConfig
from conf_profile.consensus import confidence
from conf_profile.consensus.confidence import EVEN_BOUNDARIES, Calibration, Partition
from conf_profile.dialogue import task as tasks
from conf_profile.dialogue.output_format import structured_output_regex
from conf_profile.dialogue.prompts import Message, UserFeatures
from conf_profile.dialogue.task import Task
from conf_profile.dialogue.taxonomy import Taxonomy
from conf_profile.errors import ServingError
from conf_profile.evaluation.labelled_users import is_judged
from conf_profile.registry.version_files import (
    CALIBRATION,
    EVALUATION,
    MANIFEST,
    PROFILE,
    THRESHOLDS,
    VOTE_CALIBRATION,
)
from conf_profile.students import examples

ADVICE = "give a model's folder, or fetch the model again"
UNRELEASED_VERSION = "unreleased"
"""The version of a folder that no registry has published."""
UNJUDGED_STATUS = "unjudged"
"""The status of a version that no true label has judged."""
GREEDY, VOTE = "greedy", "vote"
LOWEST_LEVEL = 1


@dataclass(frozen=True)
class Bundle:
    """One model version as the transformer sees it. `thresholds` are the model's own: attribute -> lowest level.

    None: that attribute's answers are never accepted, whatever a request says. `judged` is False for a version that no
    true label has judged; it alone has such attributes.

    `calibration` is for the score of one answer, `vote_calibration` for that of a vote over several.
    """

    version: str
    task: Task
    calibration: Calibration
    vote_calibration: Calibration
    prompt: PromptConfig
    max_completion_tokens: int
    thresholds: Mapping[str, int | None]
    evaluation: Mapping[str, Any]
    judged: bool = True

    def messages(self, features: UserFeatures) -> tuple[Message, ...]:
        """The prompt, by the one function that training uses."""
        return examples.student_messages(features, self.task, self.prompt)

    def check_thresholds(self, given: Iterable[str]) -> None:
        """ServingError where the server's own thresholds name attributes that the model does not have."""
        names = self.task.names
        if strange := sorted(set(given) - set(names)):
            raise ServingError(
                f"thresholds: the model knows no attribute {', '.join(strange)}; it has {', '.join(names)}"
            )

    def override_thresholds(self, *given: Mapping[str, int]) -> Mapping[str, int | None]:
        """The model's own thresholds and others over them, later over earlier; what is never accepted stays so."""
        levels = {name: level for layer in given for name, level in layer.items()}
        return {name: None if own is None else levels.get(name, own) for name, own in self.thresholds.items()}

    @property
    def grammar(self) -> str:
        """The regex that vLLM holds an answer to.

        Its rationale may be as long as in training. A shorter one would cut evidence off that the model was about to
        name, and the answer would be another; that the tags still fit is what the model has learned.
        """
        return structured_output_regex(self.task)


def load(folder: Path) -> Bundle:
    """Reads a model's folder; ConfProfileError names what is missing or broken."""
    profile = tables.read_json(folder / PROFILE, ADVICE)
    task = tasks.load(tasks.find(folder))
    manifest = tables.read_json(folder / MANIFEST, ADVICE) if (folder / MANIFEST).is_file() else {}
    evaluation = tables.read_json(folder / EVALUATION, ADVICE) if (folder / EVALUATION).is_file() else {}
    judged = is_judged(evaluation)
    return Bundle(
        version=str(manifest.get("version", UNRELEASED_VERSION)),
        task=task,
        calibration=confidence.load(folder / CALIBRATION, GREEDY),
        vote_calibration=_vote_calibration(folder / VOTE_CALIBRATION, task),
        prompt=PromptConfig.model_validate(profile["prompt"]),
        max_completion_tokens=int(profile["max_completion_tokens"]),
        thresholds=_thresholds(folder / THRESHOLDS, task, judged),
        evaluation=evaluation,
        judged=judged,
    )


def _vote_calibration(path: Path, taxonomy: Taxonomy) -> Calibration:
    """Even fifths for a student that was saved without: it never went through the second stage."""
    if path.is_file():
        return confidence.load(path, VOTE)
    return Calibration(VOTE, dict.fromkeys(taxonomy.names, Partition(EVEN_BOUNDARIES)))


def _thresholds(path: Path, taxonomy: Taxonomy, judged: bool) -> Mapping[str, int | None]:
    given = tables.read_json(path, ADVICE) if path.is_file() else {}
    missing = LOWEST_LEVEL if judged else None
    levels = {name: given.get(name, missing) for name in taxonomy.names}
    return {name: None if level is None else int(level) for name, level in levels.items()}
