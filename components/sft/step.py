"""Supervised fine-tuning of the student on the teacher's voted and calibrated answers, with TRL's SFTTrainer."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from conf_profile import tables
from conf_profile.config import PromptConfig, SFTConfig, StudentConfig
from conf_profile.dialogue import task as tasks
from conf_profile.dialogue.prompts import UserFeatures
from conf_profile.dialogue.task import Task
from conf_profile.errors import StudentError
from conf_profile.students import examples, folder, model, processes, supervised, training


def run(
    features: Path,
    pseudo_labels: Path,
    task_file: Path,
    student: Path,
    log: Path,
    config: SFTConfig,
    student_config: StudentConfig,
    prompt: PromptConfig,
    checkpoints: Path,
    seed: int,
) -> dict[str, int]:
    """Trains on the users of split `train` that have a pseudo-label; writes the student's folder and its log.

    The tokenizer (from scratch only) and the partition of the levels come from users whom the test never sees.
    Checkpoints go to `checkpoints`, so that a killed step continues. Returns the number of users and sequences.
    """
    training.quiet_imports(use_vllm=False)
    task, table = tasks.load(task_file), tables.read_features(features)
    labels = examples.pseudo_labels_by_user(tables.read(pseudo_labels, tables.PSEUDO_LABELS))
    people = examples.users(table, ["train"])
    taught = [person for person in people if person.user_id in labels][: config.max_users]
    if not taught:
        raise StudentError(f"{pseudo_labels}: no training user has a pseudo-label; the teacher answered nothing usable")
    unlabelled = examples.users(table, ["second_stage", "validation"]) or people
    network, tokenizer = model.build_base(student_config, _prompts([*people, *unlabelled], task, prompt), task, seed)
    rows = round(len(taught) * config.rationales_per_user * epochs(len(taught), config))
    sequences = _sequences(taught, labels, task, prompt, config, student_config, tokenizer, rows, seed)
    merged, history, steps = supervised.train(
        network, tokenizer, sequences, rows, config, student_config, checkpoints, seed, "sft"
    )
    if processes.is_first():
        folder.save(merged, tokenizer, task, prompt, student_config, unlabelled, 4 * config.batch_size, student)
        training.write_log(log, history, supervised.LOG_KEYS)
    return {"users": len(taught), "sequences": rows, "steps": steps}


def epochs(users: int, config: SFTConfig) -> float:
    """Passes over the users: as many as configured, or as many as `min_steps` takes."""
    rows_per_step = config.batch_size * config.gradient_accumulation
    return max(config.epochs, config.min_steps * rows_per_step / (users * config.rationales_per_user))


def _sequences(
    taught: list[UserFeatures],
    labels: dict[str, dict[str, examples.PseudoLabel]],
    task: Task,
    prompt: PromptConfig,
    config: SFTConfig,
    student_config: StudentConfig,
    tokenizer: Any,
    rows: int,
    seed: int,
) -> list[examples.Example]:
    """At least `rows` sequences: every epoch names other keyphrases, so that none is learned by heart."""
    each = math.ceil(rows / len(taught))
    # One token is left for the end of the answer.
    limit = student_config.max_completion_tokens - 1

    def tokens(text: str) -> int:
        return len(tokenizer(text, add_special_tokens=False)["input_ids"])

    return list(examples.sft_examples(taught, labels, task, prompt, each, seed, tokens, limit))


def _prompts(people: list[UserFeatures], task: Task, prompt: PromptConfig) -> list[str]:
    return [examples.student_messages(person, task, prompt)[-1]["content"] for person in people]
