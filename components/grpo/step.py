"""The second stage: GRPO with TRL's trainer, on the frozen reference, for the users that the filter kept.

For each user TRL samples a group of rollouts. A rollout's advantage is its reward minus the group's mean, over the
group's standard deviation; the loss raises the probability of rollouts with a positive advantage and keeps the
policy near the SFT student by beta x KL(policy || SFT student). `rewards` defines the reward.

The users are those of `train` and `second_stage`: the teacher never answered for the latter, so they cost nothing.
Afterwards the partition of the levels is fitted again on unlabelled users, since levels drift under RL.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from conf_profile import tables
from conf_profile.config import GRPOConfig, StudentConfig
from conf_profile.consensus import confidence, rewards
from conf_profile.consensus.confidence import Calibration
from conf_profile.consensus.rewards import Reference, ReferenceOfUser
from conf_profile.dialogue.prompts import UserFeatures
from conf_profile.dialogue.taxonomy import Taxonomy
from conf_profile.errors import StudentError
from conf_profile.students import examples, folder, model, processes, training
from conf_profile.students.folder import Student

LOG_KEYS = {
    "loss": "loss",
    "reward": "reward",
    "kl": "kl",
    "entropy": "entropy",
    "rewards/agreement_reward/mean": "agreement",
    "rewards/level_reward/mean": "level_agreement",
    "rewards/format_reward/mean": "well_formed",
    rewards.TAG_ENTROPY: "tag_entropy",
    "completions/mean_length": "completion_tokens",
    "step_time": "seconds",
}


def run(
    features: Path,
    reference: Path,
    support: Path,
    filtered: Path,
    sft_student: Path,
    student: Path,
    log: Path,
    config: GRPOConfig,
    student_config: StudentConfig,
    checkpoints: Path,
    seed: int,
) -> dict[str, int]:
    """Trains the SFT student further and writes the new student's folder and its log.

    `filtered` (tables.FILTERED) says which users the difficulty filter kept; `support` (tables.SUPPORT) is read for
    a soft quasi-ground truth alone. `collapsed` in the result is 1 where the tags' entropy fell so far that the
    training was ended.
    """
    training.quiet_imports(config.use_vllm)
    loaded = folder.load(sft_student, student_config.dtype)
    table = tables.read_features(features)
    frozen = tables.read(reference, tables.REFERENCE)
    partition = _partition(frozen, loaded.task)
    references = _references(frozen, partition, loaded.task, _shares(support, config))
    people = _kept_people(table, references, tables.read(filtered, tables.FILTERED))
    if not people and config.steps:
        raise StudentError(f"{filtered}: no user is left for GRPO; relax the filter or give more users")
    # The frozen parts of the reward are complete here; the training only reads them.
    network = loaded.model
    history: Sequence[Any] = []
    if config.steps:
        trainer = _trainer(loaded, people, references, config, student_config, checkpoints, seed)
        training.train(trainer, checkpoints)
        network, history = model.merge_adapter(trainer.model), trainer.state.log_history
    if processes.is_first():
        unlabelled = examples.users(table, ["second_stage", "validation"]) or people
        folder.save(
            network,
            loaded.tokenizer,
            loaded.task,
            loaded.prompt,
            student_config,
            unlabelled,
            _completions_at_once(config),
            student,
            partition,
        )
        training.write_log(log, history, LOG_KEYS)
    steps = max((int(entry["step"]) for entry in history), default=0)
    collapsed = training.has_collapsed(training.logged_values(history, rewards.TAG_ENTROPY), config.max_entropy_loss)
    return {"users": len(people), "steps": steps, "collapsed": int(collapsed)}


def _shares(support: Path, config: GRPOConfig) -> Mapping[tuple[str, str], dict[str, float]] | None:
    """(user, attribute) -> tag -> its share of the samples' confidence; None for a hard quasi-ground truth."""
    if config.quasi_ground_truth != "soft":
        return None
    # share(t) = s(t) / sum over tags of s: what the reference samples' confidence gave to each tag.
    summed: dict[tuple[str, str], dict[str, float]] = {}
    for row in tables.read(support, tables.SUPPORT).to_pylist():
        summed.setdefault((row["user_id"], row["attribute"]), {})[row["tag"]] = row["support"]
    return {cell: {tag: value / sum(tags.values()) for tag, value in tags.items()} for cell, tags in summed.items()}


def _partition(reference: pa.Table, taxonomy: Taxonomy) -> Calibration:
    """The balanced partition of the reference's confidences: scores of votes over a student's samples."""
    attributes = reference.column("attribute").to_numpy(zero_copy_only=False)
    scores = reference.column("confidence").to_numpy()
    return confidence.fit({name: scores[attributes == name] for name in taxonomy.names}, "vote")


def _references(
    table: pa.Table,
    partition: Calibration,
    taxonomy: Taxonomy,
    shares: Mapping[tuple[str, str], dict[str, float]] | None,
) -> dict[str, ReferenceOfUser]:
    """user -> one frozen reference for each attribute; its level is the partition's of its confidence."""
    found: dict[str, dict[str, Reference]] = {}
    for row, level in zip(table.to_pylist(), _levels(table, partition), strict=True):
        soft = None if shares is None else shares[row["user_id"], row["attribute"]]
        entry = Reference(row["tag"], row["confidence"], level, soft)
        found.setdefault(row["user_id"], {})[row["attribute"]] = entry
    return {user: tuple(entries.get(name) for name in taxonomy.names) for user, entries in found.items()}


def _levels(table: pa.Table, partition: Calibration) -> list[int]:
    attributes = table.column("attribute").to_numpy(zero_copy_only=False)
    scores = table.column("confidence").to_numpy()
    levels = np.zeros(len(scores), dtype=np.int64)
    for name in partition.partitions:
        rows = attributes == name
        levels[rows] = confidence.apply(partition, name, scores[rows])
    return list(map(int, levels))


def _kept_people(features: pa.Table, references: dict[str, ReferenceOfUser], filtered: pa.Table) -> list[UserFeatures]:
    kept = {row["user_id"] for row in filtered.to_pylist() if row["kept"]} & references.keys()
    return [person for person in examples.users(features, ["train", "second_stage"]) if person.user_id in kept]


def _trainer(
    loaded: Student,
    people: list[UserFeatures],
    references: dict[str, ReferenceOfUser],
    config: GRPOConfig,
    student_config: StudentConfig,
    checkpoints: Path,
    seed: int,
) -> Any:
    from trl import GRPOTrainer

    trainer = GRPOTrainer(
        model=model.add_adapter(loaded.model, student_config),
        args=_arguments(config, student_config, checkpoints, seed),
        train_dataset=_dataset(loaded, people, config, seed),
        processing_class=loaded.tokenizer,
        reward_funcs=list(rewards.make_rewards(loaded.task, references, config.weight, config.quasi_ground_truth)),
        callbacks=[
            training.progress_callback("grpo", LOG_KEYS),
            training.mark_whole_checkpoints(),
            training.collapse_guard(rewards.TAG_ENTROPY, config.max_entropy_loss),
        ],
    )
    if student_config.lora_rank is not None and config.kl:
        # TRL's copy of the fresh adapter, which changes nothing: the SFT student is the model without adapters. With
        # two adapters in a checkpoint the trainer would load the copy alone and go on from the untrained one.
        trainer.model.delete_adapter("ref")
    return trainer


def _dataset(loaded: Student, people: list[UserFeatures], config: GRPOConfig, seed: int) -> Any:
    """A row for each prompt of the whole training, in the order in which they are read."""
    from datasets import Dataset

    order = prompt_order(len(people), config.prompts_per_step, config.steps, seed)
    prompts = loaded.prompts(people)
    return Dataset.from_dict(
        {"prompt": [prompts[row] for row in order], "user_id": [people[row].user_id for row in order]}
    )


def prompt_order(users: int, per_step: int, steps: int, seed: int) -> list[int]:
    """Users of every step: random passes over all of them, where what does not fill a step is left out.

    As TRL draws them, but for the whole training at once: TRL's own sampler begins at the first pass again when a
    training is continued in a later one. StudentError for fewer users than a step takes.
    """
    import torch

    if users < per_step:
        raise StudentError(
            f"{users} users are left for GRPO, fewer than a step takes; lower grpo.prompts_per_step ({per_step}), "
            "relax the filter or give more users"
        )
    generator = torch.Generator().manual_seed(seed)
    order: list[int] = []
    while len(order) < per_step * steps:
        order += torch.randperm(users, generator=generator).tolist()[: users // per_step * per_step]
    return order[: per_step * steps]


def _completions_at_once(config: GRPOConfig) -> int:
    """Those that one pass of a step trains on; a step has `gradient_accumulation` passes.

    As many are generated at once for the partition: a GPU that trains on them has room for them, and not always
    for those of the whole step.
    """
    return config.prompts_per_step * config.rollouts // config.gradient_accumulation


def _arguments(config: GRPOConfig, student_config: StudentConfig, checkpoints: Path, seed: int) -> Any:
    from trl import GRPOConfig as TRLConfig

    if config.prompts_per_step % processes.count():
        # A vote over the rollouts of one user needs all of them in one process.
        raise StudentError(
            f"grpo.prompts_per_step {config.prompts_per_step} cannot be shared by {processes.count()} processes; "
            "make it a multiple of that, or give the step another number of GPUs"
        )
    rows, accumulation = processes.share(_completions_at_once(config), config.gradient_accumulation)
    vllm = {"vllm_mode": "colocate"} if config.use_vllm else {}
    return TRLConfig(
        **training.common_arguments(config, checkpoints, seed, checkpoints / "tensorboard"),
        per_device_train_batch_size=rows,
        gradient_accumulation_steps=accumulation,
        num_generations=config.rollouts,
        max_completion_length=student_config.max_completion_tokens,
        max_steps=config.steps,
        temperature=config.temperature,
        # The whole distribution: the trained log-probabilities are those of an untruncated one.
        top_k=0,
        beta=config.kl,
        lr_scheduler_type="constant_with_warmup",
        warmup_steps=min(5, config.steps),
        logging_steps=1,
        use_vllm=config.use_vllm,
        shuffle_dataset=False,
        # R = agreement + level_reward x level agreement + format_reward x [well-formed]; see `rewards`.
        reward_weights=[1.0, config.level_reward, config.format_reward],
        **vllm,
    )
