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
        _dataset(sequences, tokenizer, config, rows, seed),
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
        max_length=student_config.max_prompt_tokens + student_config.max_completion_tokens,
        completion_only_loss=True,
        train_sampling_strategy="sequential",
    )
    return SFTTrainer(
        model=network,
        args=arguments,
        train_dataset=dataset,
        processing_class=tokenizer,
        callbacks=[training.progress_callback("sft", LOG_KEYS), training.whole_checkpoints()],
    )


def _dataset(sequences: list[examples.Example], tokenizer: Any, config: SFTConfig, rows: int, seed: int) -> Any:
    """`rows` of the sequences, in the order in which they are read (see `training.batch_order`)."""
    from datasets import Dataset

    prompts = examples.prompt_texts([s.messages for s in sequences], tokenizer)
    pairs = list(zip(prompts, (s.completion + tokenizer.eos_token for s in sequences), strict=True))
    lengths = [len(ids) for ids in tokenizer(["".join(pair) for pair in pairs], add_special_tokens=False)["input_ids"]]
    order = training.batch_order(lengths, config.batch_size, rows / len(pairs), seed)
    return Dataset.from_dict(
        {"prompt": [pairs[row][0] for row in order], "completion": [pairs[row][1] for row in order]}
    )
