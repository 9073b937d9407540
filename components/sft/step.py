"""Supervised fine-tuning of the student on the teacher's voted and calibrated answers, with TRL's SFTTrainer."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from conf_profile import tables, taxonomy
from conf_profile.config import PromptConfig, SFTConfig, StudentConfig
from conf_profile.errors import StudentError
from conf_profile.prompts import UserFeatures
from conf_profile.students import examples, folder, model, training
from conf_profile.taxonomy import Taxonomy

IGNORED = -100
"""The label of a token that the loss passes over."""
LOG_KEYS = {"loss": "loss", "entropy": "entropy", "mean_token_accuracy": "token_accuracy"}


def run(
    features: Path,
    pseudo_labels: Path,
    taxonomy_file: Path,
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
    tags, table = taxonomy.load(taxonomy_file), tables.read(features, tables.FEATURES)
    labels = examples.pseudo_labels_by_user(tables.read(pseudo_labels, tables.PSEUDO_LABELS))
    people = examples.users(table, ["train"])
    taught = [person for person in people if person.user_id in labels]
    if not taught:
        raise StudentError(f"{pseudo_labels}: no training user has a pseudo-label; the teacher answered nothing usable")
    unlabelled = examples.users(table, ["second_stage", "validation"]) or people
    network, tokenizer = model.base(student_config, _prompts([*people, *unlabelled], tags, prompt), tags, seed)
    rows = round(len(taught) * config.rationales_per_user * epochs(len(taught), config))
    sequences = _sequences(taught, labels, tags, prompt, config, student_config, tokenizer, rows, seed)
    trainer = _trainer(
        model.add_adapter(network, student_config),
        tokenizer,
        _dataset(sequences, tokenizer, config, student_config, rows, seed),
        config,
        student_config,
        checkpoints,
        seed,
    )
    trainer.train(resume_from_checkpoint=training.last_checkpoint(checkpoints))
    merged = model.merge_adapter(trainer.model)
    folder.save(merged, tokenizer, tags, prompt, student_config, unlabelled, 4 * config.batch_size, student)
    training.write_log(log, trainer.state.log_history, LOG_KEYS)
    return {"users": len(taught), "sequences": rows, "steps": trainer.state.global_step}


def epochs(users: int, config: SFTConfig) -> float:
    """Passes over the users: as many as configured, or as many as `min_steps` takes."""
    rows_per_step = config.batch_size * config.gradient_accumulation
    return max(config.epochs, config.min_steps * rows_per_step / (users * config.rationales_per_user))


def _sequences(
    taught: list[UserFeatures],
    labels: dict[str, dict[str, examples.PseudoLabel]],
    tags: Taxonomy,
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

    return list(examples.sft_examples(taught, labels, tags, prompt, each, seed, tokens, limit))


def _prompts(people: list[UserFeatures], tags: Taxonomy, prompt: PromptConfig) -> list[str]:
    return [examples.student_messages(person, tags, prompt)[-1]["content"] for person in people]


def _trainer(
    network: Any,
    tokenizer: Any,
    dataset: Any,
    config: SFTConfig,
    student_config: StudentConfig,
    checkpoints: Path,
    seed: int,
) -> Any:
    from trl import SFTConfig as TRLConfig
    from trl import SFTTrainer

    arguments = TRLConfig(
        **training.common_arguments(config, checkpoints, seed, checkpoints / "tensorboard"),
        per_device_train_batch_size=config.batch_size,
        num_train_epochs=1,
        lr_scheduler_type="cosine",
        warmup_steps=0.05,
        weight_decay=0.01,
        # Hundreds of steps, not hundreds of thousands: 0.999 would remember the first gradients to the end.
        adam_beta2=0.98,
        logging_steps=10,
        # The rows are made here: what has no label is no part of the loss, and nothing is to be cut.
        dataset_kwargs={"skip_prepare_dataset": True},
        max_length=None,
        train_sampling_strategy="sequential",
    )
    return SFTTrainer(
        model=network,
        args=arguments,
        train_dataset=dataset,
        processing_class=tokenizer,
        callbacks=[training.progress_callback("sft", LOG_KEYS), training.whole_checkpoints()],
    )


def _dataset(
    sequences: list[examples.Example],
    tokenizer: Any,
    config: SFTConfig,
    student_config: StudentConfig,
    rows: int,
    seed: int,
) -> Any:
    """`rows` token sequences, in the order in which they are read (see `training.batch_order`).

    Prompt and answer are tokenised apart, as they are in generation. A sequence beyond the student's length is
    left out: cut, it would teach an answer without an end, or to a prompt that nobody sends.
    """
    from datasets import Dataset

    prompts = tokenizer(examples.prompt_texts([s.messages for s in sequences], tokenizer), add_special_tokens=False)
    answers = tokenizer([s.completion + tokenizer.eos_token for s in sequences], add_special_tokens=False)
    longest = student_config.max_prompt_tokens + student_config.max_completion_tokens
    pairs = [
        pair for pair in zip(prompts["input_ids"], answers["input_ids"], strict=True) if sum(map(len, pair)) <= longest
    ]
    if not pairs:
        raise StudentError(
            f"every prompt is longer than student.max_prompt_tokens ({student_config.max_prompt_tokens})"
        )
    order = training.batch_order([sum(map(len, pair)) for pair in pairs], config.batch_size, rows / len(pairs), seed)
    return Dataset.from_dict(
        {
            "input_ids": [prompt + answer for prompt, answer in map(pairs.__getitem__, order)],
            "labels": [[IGNORED] * len(prompt) + answer for prompt, answer in map(pairs.__getitem__, order)],
        }
    )
