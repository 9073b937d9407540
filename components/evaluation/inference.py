"""Greedy predictions of the students that are measured. Reads features and weights, never a label."""

from __future__ import annotations

from pathlib import Path

from conf_profile import tables
from conf_profile.config import StorageConfig, StudentConfig
from conf_profile.prompts import UserFeatures
from conf_profile.students import examples, folder, model, predict, training
from conf_profile.students.folder import Student

MEASURED_SPLITS = ("validation", "test")


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
    training.quiet_imports(use_vllm=False)
    people = examples.users(tables.read(features, tables.FEATURES), MEASURED_SPLITS)
    dtype = student_config.dtype
    written = {"base": _predict_base(sft_student, people, student_config, batch_size, seed, work)}
    for arm, source in (("sft", sft_student), ("sft_grpo", student), ("champion", champion)):
        if source is not None:
            written[arm] = _predict(arm, folder.load(source, dtype), source, people, batch_size, work)
    return written


def fetch_champion(version: str, storage: StorageConfig, target: Path) -> Path | None:
    """Downloads and verifies the champion that this run competes with; None where there is none yet."""
    if not version:
        return None
    from conf_profile import registry

    registry.connect(storage).download(version, target)
    return target


def _predict(arm: str, student: Student, source: Path, people: list[UserFeatures], batch_size: int, work: Path) -> Path:
    print(f"evaluation: {arm} answers for {len(people)} users", flush=True)
    answers = student.answer(people, batch_size)
    return _write(arm, predict.to_table(answers, folder.load_calibration(source), student.taxonomy), work)


def _predict_base(
    sft_student: Path,
    people: list[UserFeatures],
    config: StudentConfig,
    batch_size: int,
    seed: int,
    work: Path,
) -> Path:
    """The base has no partition of its own: it is fitted on its own answers, without labels."""
    loaded = folder.load(sft_student, config.dtype)
    network, tokenizer = model.base_of(sft_student, config, seed)
    base = Student(network, tokenizer, loaded.taxonomy, loaded.prompt, loaded.max_completion_tokens)
    print(f"evaluation: base answers for {len(people)} users", flush=True)
    answers = base.answer(people, batch_size)
    calibration = predict.fit_calibration(answers, loaded.taxonomy)
    return _write("base", predict.to_table(answers, calibration, loaded.taxonomy), work)


def _write(arm: str, table: object, work: Path) -> Path:
    path = work / f"predictions-{arm}.parquet"
    tables.write(path, table, tables.PREDICTIONS)
    return path
