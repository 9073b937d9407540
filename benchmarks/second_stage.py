"""Settings of the second stage compared without a single label.

    python -m benchmarks.second_stage [--run FOLDER] [--samples 60] --variant learning_rate=1e-4,temperature=1.0 ...

Starts from a finished run of the generated world. Two measures, on validation and test users, whom no student was
trained on: agreement with the teacher's vote over many fresh samples (what the teacher would say if it were asked for
ever), and the entropy of the tags given, summed over the attributes, in nats. True labels are not read. Agreement
alone misleads: a student that drifts towards the frequent tags agrees more often, while its tags' entropy falls.
Prints one JSON line for the teacher's own vote, one for the SFT student, and one for each variant, trained anew.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from conf_profile import tables, voting
from conf_profile.config import GRPOConfig, PromptConfig, ReferenceConfig, StudentConfig, TeacherConfig, parse_section
from conf_profile.output_format import ProfileAnswer, parse_or_none
from conf_profile.prompts import UserFeatures, render_messages
from conf_profile.students import examples, folder, training
from conf_profile.students.folder import Student
from conf_profile.taxonomy import Taxonomy
from conf_profile.teachers.lexicon import LexiconTeacher
from conf_profile.teachers.protocol import Request

FIRST_FRESH_SAMPLE = 1000
"""Sample numbers that no run asks for, so that the vote is independent of the one the student learned from."""


@dataclass(frozen=True)
class Setting:
    """A finished run: what it was given, and its users, whose names tell what they were used for."""

    arguments: dict[str, Any]
    outputs: dict[str, str]
    held_out: list[UserFeatures]
    student: Path

    def section(self, kind: Any, name: str) -> Any:
        return parse_section(kind, self.arguments[name])


def load(run: Path) -> Setting:
    """Reads a finished run's folder."""
    arguments = json.loads((run / "workspace" / "arguments.json").read_text(encoding="utf-8"))
    outputs = json.loads((run / "workspace" / "outputs.json").read_text(encoding="utf-8"))
    features = tables.read(Path(outputs["features"]), tables.FEATURES)
    return Setting(arguments, outputs, examples.users(features, ["validation", "test"]), Path(outputs["sft_student"]))


def ballots(samples: Sequence[Sequence[ProfileAnswer | None]], tags: Taxonomy) -> np.ndarray:
    """[attributes, users]: the weighted vote's tag, -1 where nobody answered."""
    votes = []
    for attribute in tags.attributes:
        given = [[found.answers[attribute.name] if found else None for found in row] for row in samples]
        tag = np.array([[attribute.index.get(a.tag or "", -1) if a else -1 for a in row] for row in given])
        level = np.array([[a.level if a and a.tag else 0 for a in row] for row in given])
        votes.append(voting.vote(tag, level, len(attribute.tags), "weighted").tag)
    return np.stack(votes)


def teachers_vote(setting: Setting, tags: Taxonomy, numbers: Iterable[int]) -> np.ndarray:
    """The lexicon teacher's vote over the samples of these numbers, for the held-out users."""
    config, prompt = setting.section(TeacherConfig, "teacher_config"), setting.section(PromptConfig, "prompt_config")
    teacher = LexiconTeacher(
        Path(setting.arguments["lexicon_uri"]), tags, config.keyphrases_read, setting.arguments["seed"]
    )
    requests = [
        Request(p.user_id, tuple(render_messages(p, tags, "full", prompt.max_keyphrases)), tuple(numbers))
        for p in setting.held_out
    ]

    async def answers() -> dict[str, list[ProfileAnswer | None]]:
        found: dict[str, list[ProfileAnswer | None]] = {}
        async for completion in teacher.complete(requests):
            found.setdefault(completion.user_id, []).append(parse_or_none(completion.text, tags))
        return found

    found = asyncio.run(answers())
    return ballots([found[person.user_id] for person in setting.held_out], tags)


def agreement(given: np.ndarray, wanted: np.ndarray) -> float:
    """The share of the cells, averaged over the attributes, in which two sets of answers agree, in percent."""
    return float(100 * np.mean([(row == want)[want >= 0].mean() for row, want in zip(given, wanted, strict=True)]))


def tag_entropy(given: np.ndarray) -> float:
    """The entropy of the tags given over all users, summed over the attributes, in nats."""
    shares = [np.unique(row[row >= 0], return_counts=True)[1] / max(1, (row >= 0).sum()) for row in given]
    return float(sum(-(share * np.log(share)).sum() for share in shares))


def greedy(student: Student, people: list[UserFeatures]) -> tuple[np.ndarray, float]:
    """[attributes, users] greedy tags, and the share of well-formed answers in percent."""
    answers = student.answer(people, batch_size=256)
    index = [attribute.index for attribute in student.taxonomy.attributes]
    rows = [[index[column].get(tag or "", -1) for column, tag in enumerate(row)] for row in answers.tags]
    return np.array(rows).T, 100 * (1 - answers.malformed / len(people))


def measure(name: str, student: Student, setting: Setting, wanted: np.ndarray, **more: Any) -> None:
    """Prints one line about a student."""
    given, well_formed = greedy(student, setting.held_out)
    say(name, given, wanted, well_formed=round(well_formed, 1), **more)


def say(name: str, given: np.ndarray, wanted: np.ndarray, **more: Any) -> None:
    """One JSON line."""
    line = {"arm": name, "agreement": round(agreement(given, wanted), 2), "tag_entropy": round(tag_entropy(given), 2)}
    print(json.dumps(line | more), flush=True)


def second_stage(setting: Setting, variant: dict[str, Any], work: Path) -> tuple[Student, dict[str, float]]:
    """Samples the reference and trains with GRPO as the pipeline's steps do, one variant's settings changed."""
    from components.filtering.step import run as filtering
    from components.grpo.step import run as grpo
    from components.reference.step import run as reference
    from conf_profile.config import FilteringConfig

    features, seed = Path(setting.outputs["features"]), setting.arguments["seed"]
    student_config = setting.section(StudentConfig, "student_config")
    sampling = {name.removeprefix("reference."): value for name, value in variant.items() if "." in name}
    training_ = {name: value for name, value in variant.items() if "." not in name}
    reference(
        features, setting.student, work / "reference", work / "reference.json",
        setting.section(ReferenceConfig, "reference_config").model_copy(update=sampling), student_config.dtype, seed,
    )  # fmt: skip
    filtering(
        work / "reference", work / "filtered", work / "filtering.json",
        setting.section(FilteringConfig, "filtering_config"), seed,
    )  # fmt: skip
    config = setting.section(GRPOConfig, "grpo_config").model_copy(update={"report_to": (), **training_})
    grpo(
        features, work / "reference", work / "filtered", setting.student, work / "student", work / "log.json",
        config, student_config, work / "checkpoints", seed,
    )  # fmt: skip
    history = json.loads((work / "log.json").read_text(encoding="utf-8"))
    last = {name: round(float(np.mean([row[name] for row in history[-5:]])), 4) for name in ("kl", "entropy", "reward")}
    return folder.load(work / "student", student_config.dtype), last


def parse_variant(text: str) -> dict[str, Any]:
    """'learning_rate=1e-4,reference.samples=16' as a mapping; names without a dot are grpo's."""
    pairs = (item.partition("=") for item in text.split(",") if item)
    return {name: yaml.safe_load(value) if "e-" not in value else float(value) for name, _, value in pairs}


def main() -> None:
    """One JSON line for each arm."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, default=Path("runs/world-tiny"))
    parser.add_argument("--samples", type=int, default=60, help="fresh samples of the teacher behind the measure")
    parser.add_argument("--variant", action="append", default=[], dest="variants")
    given = parser.parse_args()
    training.quiet_imports(use_vllm=False)
    setting = load(given.run)
    sft = folder.load(setting.student, "float32")
    numbers = range(FIRST_FRESH_SAMPLE, FIRST_FRESH_SAMPLE + given.samples)
    wanted = teachers_vote(setting, sft.taxonomy, numbers)
    say("teacher, fresh samples", wanted, wanted)
    say("teacher_weighted", teachers_vote(setting, sft.taxonomy, range(setting.arguments["samples"])), wanted)
    measure("sft", sft, setting, wanted)
    for text in given.variants:
        start = time.monotonic()
        with tempfile.TemporaryDirectory() as work:
            student, last = second_stage(setting, parse_variant(text), Path(work))
            measure(text, student, setting, wanted, seconds=round(time.monotonic() - start), **last)


if __name__ == "__main__":
    main()
