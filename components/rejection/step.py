"""Rejection-sampling fine-tuning: the student learns from those of its own samples that agree with their vote.

The cheap rival of GRPO, and a possible start for it. Each round samples the student for the second-stage users,
votes, keeps for each user the samples with the largest agreement (the reward of GRPO, `rewards.agreement`), and
trains on them as they are. It reads no label, and asks no teacher.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

from conf_profile import tables
from conf_profile.config import ReferenceConfig, RejectionConfig, StudentConfig
from conf_profile.consensus import rewards
from conf_profile.consensus.rewards import Reference, ReferenceOfUser
from conf_profile.consensus.voting import NO_ANSWER, Vote
from conf_profile.errors import StudentError
from conf_profile.files import write_text
from conf_profile.students import examples, folder, processes, supervised, training
from conf_profile.students.checkpoints import remote as remote_checkpoints
from conf_profile.students.examples import Example
from conf_profile.students.folder import Student
from conf_profile.students.reference import Samples, sample, second_stage_users

_ANY_LEVEL = 3
"""The reference's level, which agreement does not look at."""


def run(
    features: Path,
    sft_student: Path,
    student: Path,
    log: Path,
    config: RejectionConfig,
    sampling: ReferenceConfig,
    student_config: StudentConfig,
    checkpoints: Path,
    seed: int,
) -> dict[str, int]:
    """Writes the student after `config.rounds` rounds, and the log of the last one.

    Finished rounds lie in `checkpoints` and are not repeated. Without rounds the folder is passed on unchanged.
    Returns rounds, and the sequences of the last one.
    """
    training.quiet_imports(sampling.use_vllm)
    if sampling.use_vllm and processes.count() > 1:
        raise StudentError(
            "rejection sampling with vLLM (reference.use_vllm) runs on one process; give the step one GPU, or set "
            "reference.use_vllm to false"
        )
    current, counts = sft_student, {"rounds": config.rounds, "sequences": 0}
    if processes.is_first():
        write_text(log, "[]")
    for number in range(config.rounds):
        after = checkpoints / f"round-{number}"
        counts["sequences"] = _round(
            features, current, after, log, config, sampling, student_config, checkpoints, seed, number
        )
        current = after / "student"
    if processes.is_first():
        shutil.copytree(current, student, dirs_exist_ok=True)
    return counts


def _round(
    features: Path,
    source: Path,
    after: Path,
    log: Path,
    config: RejectionConfig,
    sampling: ReferenceConfig,
    student_config: StudentConfig,
    checkpoints: Path,
    seed: int,
    number: int,
) -> int:
    """One round from the student in `source` to the one in `after`; returns its training sequences."""
    if (after / "log.json").is_file():
        if processes.is_first():
            shutil.copyfile(after / "log.json", log)
        return int(json.loads((after / "counts.json").read_text(encoding="utf-8"))["sequences"])
    table, loaded = tables.read_features(features), folder.load(source, student_config.dtype)
    people = second_stage_users(table, sampling)

    def sequences_of_round() -> list[Example]:
        samples = sample(source, loaded, people, sampling, seed + number, f"rejection {number + 1}")
        return list(best_samples(samples, sampling, config, loaded))

    sequences = examples.from_json(processes.broadcast_text(lambda: examples.to_json(sequences_of_round())))
    network, history, _ = supervised.train(
        loaded.model, loaded.tokenizer, sequences, len(sequences), config, student_config,
        checkpoints / f"training-{number}", seed + number, f"rejection {number + 1}",
    )  # fmt: skip
    if processes.is_first():
        unlabelled = examples.users(table, ["second_stage", "validation"]) or people
        folder.save(
            network, loaded.tokenizer, loaded.task, loaded.prompt, student_config, unlabelled,
            4 * config.batch_size, after / "student",
        )  # fmt: skip
        write_text(after / "counts.json", json.dumps({"sequences": len(sequences)}))
        # Last, since its presence says that the round is whole.
        training.write_log(after / "log.json", history, supervised.LOG_KEYS)
        remote_checkpoints.upload(after)
        shutil.copyfile(after / "log.json", log)
    processes.wait()
    return len(sequences)


def best_samples(
    samples: Samples, sampling: ReferenceConfig, config: RejectionConfig, student: Student
) -> Iterator[Example]:
    """For each user the `kept_per_user` samples that agree best with the vote, the earlier one of equals."""
    votes = samples.votes(sampling.vote)
    for row, person in enumerate(samples.people):
        truth = _quasi_ground_truth(votes, samples, row)
        agreement = [rewards.agreement(found, truth, samples.task) for found in samples.parsed[row]]
        order = sorted(range(len(agreement)), key=lambda column: -agreement[column])
        kept = [column for column in order if samples.parsed[row][column] is not None][: config.kept_per_user]
        messages = examples.student_messages(person, samples.task, student.prompt)
        for column in kept:
            yield Example(person.user_id, messages, samples.texts[row][column])


def _quasi_ground_truth(votes: Mapping[str, Vote], samples: Samples, row: int) -> ReferenceOfUser:
    entries: list[Reference | None] = []
    for attribute in samples.task.attributes:
        vote = votes[attribute.name]
        winner, score = int(vote.tag[row]), float(vote.score[row])
        entries.append(None if winner == NO_ANSWER else Reference(attribute.tags[winner], score, _ANY_LEVEL))
    return entries
