"""Supervised training with TRL's SFTTrainer: what the first stage and rejection sampling have in common."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from conf_profile.config import StudentConfig, SupervisedConfig
from conf_profile.errors import StudentError
from conf_profile.students import examples, model, processes, training
from conf_profile.students.examples import Example

IGNORED_LABEL = -100
"""The label of a token that the loss passes over."""
LOG_KEYS = {"loss": "loss", "entropy": "entropy", "mean_token_accuracy": "token_accuracy"}


def train(
    network: Any,
    tokenizer: Any,
    sequences: Sequence[Example],
    rows: int,
    config: SupervisedConfig,
    student_config: StudentConfig,
    checkpoints: Path,
    seed: int,
    label: str,
) -> tuple[Any, list[Any], int]:
    """Trains on `rows` rows of the sequences; a killed try continues from `checkpoints`.

    Returns the network with any adapter merged, the trainer's history, and the optimiser steps made. Progress
    lines begin with `label`.
    """
    from trl import SFTTrainer

    trainer = SFTTrainer(
        model=model.add_adapter(network, student_config),
        args=_arguments(config, checkpoints, seed),
        train_dataset=dataset(sequences, tokenizer, config, student_config, rows, seed),
        processing_class=tokenizer,
        callbacks=[training.progress_callback(label, LOG_KEYS), training.mark_whole_checkpoints()],
    )
    training.train(trainer, checkpoints)
    return model.merge_adapter(trainer.model), trainer.state.log_history, int(trainer.state.global_step)


def dataset(
    sequences: Sequence[Example],
    tokenizer: Any,
    config: SupervisedConfig,
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
            "labels": [[IGNORED_LABEL] * len(prompt) + answer for prompt, answer in map(pairs.__getitem__, order)],
        }
    )


def _arguments(config: SupervisedConfig, checkpoints: Path, seed: int) -> Any:
    from trl import SFTConfig as TRLConfig

    rows, accumulation = processes.share(config.batch_size, config.gradient_accumulation)
    return TRLConfig(
        **training.common_arguments(config, checkpoints, seed, checkpoints / "tensorboard"),
        per_device_train_batch_size=rows,
        gradient_accumulation_steps=accumulation,
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
