"""What a vote over the student's own rollouts knows beyond its greedy answer: the room that GRPO has.

    python -m benchmarks.vote_headroom [--run FOLDER] [--users 400] [--samples 10]

Measures a finished run's SFT and final student on users of the second stage (never the test users) against their
true labels: greedy accuracy, accuracy of one sample and of the confidence-weighted vote at several temperatures, the
share of well-formed answers, and the share of the named keyphrases that the user really has. Prints JSON lines.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np

from conf_profile import tables
from conf_profile.consensus import voting
from conf_profile.consensus.ballots import Ballots
from conf_profile.dialogue.output_format import ProfileAnswer, parse_or_none
from conf_profile.dialogue.prompts import UserFeatures, quote, split_keyphrases
from conf_profile.dialogue.taxonomy import Taxonomy
from conf_profile.evaluation.arms import SFT, SFT_GRPO
from conf_profile.students import examples, folder, training
from conf_profile.students.folder import Student
from conf_profile.students.rollouts import rollouts
from conf_profile.students.rollouts.rollouts import Sampling

ParsedAnswers = list[list[ProfileAnswer | None]]


def sample(student: Student, people: list[UserFeatures], temperature: float, samples: int) -> ParsedAnswers:
    """[users][samples] answers, None where malformed."""
    sampling = Sampling(temperature, samples, 640, student.max_completion_tokens, seed=1)
    texts = rollouts.generate(student.model, student.tokenizer, student.prompts(people), sampling)
    return [[parse_or_none(text, student.task) for text in row] for row in texts]


def accuracies(parsed: ParsedAnswers, truth: dict[str, np.ndarray], taxonomy: Taxonomy) -> dict[str, float]:
    """Accuracy of one sample and of the weighted vote, averaged over the attributes; no answer is wrong."""
    single, voted = [], []
    for name in taxonomy.names:
        ballots = Ballots.from_answers(parsed, taxonomy[name])
        single.append((ballots.tags == truth[name][:, None]).mean())
        voted.append((voting.vote_on(ballots).tag == truth[name]).mean())
    well_formed = np.mean([answer is not None for row in parsed for answer in row])
    return {"single": float(np.mean(single)), "vote": float(np.mean(voted)), "well_formed": float(well_formed)}


def truthful_share(parsed: ParsedAnswers, people: list[UserFeatures]) -> dict[str, float]:
    """The share of the keyphrases named in rationales that stand in the user's own lists: whole, and by first word.

    The second leaves out what hangs on a keyphrase ('near me', 'for beginners'), which says nothing of a user.
    """
    whole, first_word = [], []
    for person, row in zip(people, parsed, strict=True):
        own = {quote(phrase) for name in person.values for phrase in person.texts(name)}
        beginnings = {phrase.split(" ")[0] for phrase in own}
        named = [phrase for answer in row if answer for phrase in split_keyphrases(answer.rationale)]
        whole += [phrase in own for phrase in named]
        first_word += [phrase.split(" ")[0] in beginnings for phrase in named]
    return {"named_truly": float(np.mean(whole)), "named_truly_by_first_word": float(np.mean(first_word))}


def main() -> None:
    """One JSON line for each student and temperature."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", type=Path, default=Path("runs/world-tiny"))
    parser.add_argument("--users", type=int, default=400)
    parser.add_argument("--samples", type=int, default=10)
    given = parser.parse_args()
    training.quiet_imports(use_vllm=False)
    workspace = given.run / "workspace"
    outputs = json.loads((workspace / "outputs.json").read_text(encoding="utf-8"))
    arguments = json.loads((workspace / "arguments.json").read_text(encoding="utf-8"))
    features = tables.read_features(Path(outputs["features"]))
    people = examples.users(features, ["second_stage"])[: given.users]
    labels = tables.read(Path(arguments["labels_uri"]), tables.LABELS).to_pylist()
    known = {(row["user_id"], row["attribute"]): row["tag"] for row in labels}
    for arm, key in ((SFT, "sft_student"), (SFT_GRPO, "student")):
        student = folder.load(Path(outputs[key]), "float32")
        tags = student.task
        truth = {
            name: np.array([tags[name].index.get(known.get((p.user_id, name), ""), -2) for p in people])
            for name in tags.names
        }
        greedy = sample(student, people, 0.0, 1)
        row = {"arm": arm, "temperature": 0.0, **truthful_share(greedy, people)}
        print(json.dumps(row | accuracies(greedy, truth, tags)), flush=True)
        for temperature in (1.0, 0.7, 0.5):
            drawn = sample(student, people, temperature, given.samples)
            print(json.dumps({"arm": arm, "temperature": temperature} | accuracies(drawn, truth, tags)), flush=True)


if __name__ == "__main__":
    main()
