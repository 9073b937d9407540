"""Greedy predictions of the students that are measured. Reads features and weights, never a label."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from conf_profile.config import StorageConfig, StudentConfig
from conf_profile.dialogue.prompts import UserFeatures
from conf_profile.evaluation.arms import BASE, CHAMPION, SFT, SFT_GRPO
from conf_profile.rollout import smoke
from conf_profile.students import folder, training
from conf_profile.students.predictions import measured_users, predict_student, predict_untrained
from conf_profile.students.rollouts import predict


def predict_arms(
    features: Path,
    sft_student: Path,
    student: Path,
    champion: Path | None,
    student_config: StudentConfig,
    batch_size: int,
    seed: int,
    work: Path,
) -> dict[str, Path]:
    """Writes tables.PREDICTIONS of the arms base, sft, sft_grpo and champion; returns arm -> file."""
    target = {arm: work / f"predictions-{arm}.parquet" for arm in (BASE, SFT, SFT_GRPO, CHAMPION)}
    predict_untrained(sft_student, features, student_config, batch_size, seed, target[BASE])
    given = {SFT: sft_student, SFT_GRPO: student, CHAMPION: champion}
    for arm, source in given.items():
        if source is not None:
            predict_student(arm, source, features, student_config, batch_size, target[arm])
    return {arm: path for arm, path in target.items() if path.is_file()}


def smoke_profiles(student: Path, features: Path, config: StudentConfig, batch_size: int) -> dict[str, Any]:
    """Made-up users and what the candidate says of them, by which a rollout recognises it; see `rollout.smoke`."""
    training.quiet_imports(use_vllm=False)
    made_up = smoke.make_up_users(measured_users(features))
    if not made_up:
        return smoke.render(())
    loaded = folder.load(student, config.dtype)
    answers = loaded.answer(made_up, batch_size)
    table = predict.to_table(answers, folder.load_calibration(student), loaded.task)
    return smoke.render([found for user in made_up if (found := _make_smoke_profile(user, table))])


@dataclass(frozen=True)
class Rival:
    """The champion that the candidate is compared with: its version and its folder; "" and None: there is none.

    `judged` is False for one that was promoted without any true label.
    """

    version: str = ""
    folder: Path | None = None
    judged: bool = True


def fetch_champion(version: str, storage: StorageConfig, target: Path) -> Rival:
    """Downloads and verifies the champion that this run competes with; "any": whichever it is at this moment."""
    if not version:
        return Rival()
    from conf_profile.registry import registry

    models = registry.connect(storage)
    if version == registry.ANY_CHAMPION:
        champion = models.champion()
        if champion is None:
            return Rival()
        version = champion.version
    return Rival(version, target, models.download(version, target).judged)


def _make_smoke_profile(user: UserFeatures, table: pa.Table) -> smoke.SmokeProfile | None:
    """None for a user of whom nothing was said: structured output may say more than free generation did."""
    rows = [row for row in table.to_pylist() if row["user_id"] == user.user_id]
    if all(row["tag"] is None for row in rows):
        return None
    lists = {name: texts for name, texts in user.values.items() if isinstance(texts, tuple)}
    return smoke.SmokeProfile(lists, {row["attribute"]: smoke.ExpectedAnswer(row["tag"], row["level"]) for row in rows})
