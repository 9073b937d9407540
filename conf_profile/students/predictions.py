"""Greedy predictions of one student for the users that are measured. Reads features and weights, never a label."""

from __future__ import annotations

from pathlib import Path

from conf_profile import tables
from conf_profile.config import StudentConfig
from conf_profile.dialogue.prompts import UserFeatures
from conf_profile.students import examples, folder, model, training
from conf_profile.students.folder import Student
from conf_profile.students.rollouts import predict

MEASURED_SPLITS = ("validation", "test")


def predict_student(
    arm: str, source: Path, features: Path, config: StudentConfig, batch_size: int, predictions: Path
) -> None:
    """Writes tables.PREDICTIONS of the student in `source` for the validation and test users."""
    training.quiet_imports(use_vllm=False)
    student, people = folder.load(source, config.dtype), measured_users(features)
    print(f"{arm} answers for {len(people)} users", flush=True)
    table = predict.to_table(student.answer(people, batch_size), folder.load_calibration(source), student.task)
    tables.write(predictions, table, tables.PREDICTIONS)


def predict_untrained(
    sft_student: Path, features: Path, config: StudentConfig, batch_size: int, seed: int, predictions: Path
) -> None:
    """The same of the model that SFT began with; its partition is fitted on its own answers, without labels."""
    training.quiet_imports(use_vllm=False)
    loaded, people = folder.load(sft_student, config.dtype), measured_users(features)
    network, tokenizer = model.rebuild_base(sft_student, config, seed)
    base = Student(network, tokenizer, loaded.task, loaded.prompt, loaded.max_completion_tokens)
    print(f"base answers for {len(people)} users", flush=True)
    answers = base.answer(people, batch_size)
    table = predict.to_table(answers, predict.fit_calibration(answers, loaded.task), loaded.task)
    tables.write(predictions, table, tables.PREDICTIONS)


def measured_users(features: Path) -> list[UserFeatures]:
    """The validation and test users of a table of features."""
    return examples.users(tables.read_features(features), MEASURED_SPLITS)
