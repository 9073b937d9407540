"""What the student learns from: prompts, and completions made of pseudo-labels. No torch, no labels.

The rationale comes before the tags and differs between the sequences of one user: each names a few of the
keyphrases that the winning samples relied on. Sampling the rationale is what later makes the student's own
rollouts differ, and a vote over them worth more than its single best answer.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from conf_profile.config import PromptConfig
from conf_profile.dialogue.output_format import Answer, ProfileAnswer, render
from conf_profile.dialogue.prompts import SEPARATOR, Message, UserFeatures, quote, render_messages, split_keyphrases
from conf_profile.dialogue.task import Task
from conf_profile.dialogue.taxonomy import Taxonomy
from conf_profile.features import FeatureSchema

KEYPHRASES_NAMED = 4
"""Keyphrases in one rationale of a training sequence; fewer where the teacher relied on fewer."""


@dataclass(frozen=True)
class PseudoLabel:
    """The voted answer for one attribute of one user."""

    tag: str
    level: int
    rationale: str


@dataclass(frozen=True)
class Example:
    """One training sequence."""

    user_id: str
    messages: tuple[Message, ...]
    completion: str


def users(features: pa.Table, splits: Iterable[str] | None = None) -> list[UserFeatures]:
    """The users of a features table, in the table's order, of the given splits (None: all)."""
    wanted = None if splits is None else frozenset(splits)
    return [
        UserFeatures(**{name: value for name, value in row.items() if name != "split"})
        for row in features.to_pylist()
        if wanted is None or row["split"] in wanted
    ]


def pseudo_labels_by_user(table: pa.Table) -> dict[str, dict[str, PseudoLabel]]:
    """user -> attribute -> pseudo-label."""
    result: dict[str, dict[str, PseudoLabel]] = {}
    for row in table.to_pylist():
        label = PseudoLabel(row["tag"], row["level"], row["rationale"] or "")
        result.setdefault(row["user_id"], {})[row["attribute"]] = label
    return result


def student_messages(user: UserFeatures, task: Task, config: PromptConfig) -> tuple[Message, ...]:
    """The student's prompt, the same in training, evaluation and serving."""
    return tuple(render_messages(user, task, config.student_style, config.max_keyphrases))


def sft_examples(
    people: Sequence[UserFeatures],
    labels: Mapping[str, Mapping[str, PseudoLabel]],
    task: Task,
    config: PromptConfig,
    rationales_per_user: int,
    seed: int,
    tokens: Callable[[str], int] = len,
    max_tokens: int = 10_000,
) -> Iterator[Example]:
    """The sequences of every user that has a pseudo-label; an attribute nobody answered is `unknown` at level 1.

    A completion has at most `max_tokens`, as `tokens` counts them: an answer that cannot be finished must not be
    taught. Its rationale gives up keyphrases for that, never the tags.
    """
    for person in people:
        given = labels.get(person.user_id)
        if not given:
            continue
        messages = student_messages(person, task, config)
        answers = {
            name: Answer(given[name].tag, given[name].level) if name in given else Answer(None, 1)
            for name in task.names
        }
        shown = _shown_keyphrases(person, task.features)
        for phrases in _rationales(person.user_id, shown, given, rationales_per_user, seed):
            yield Example(person.user_id, messages, _completion(phrases, answers, task, tokens, max_tokens))


def _completion(
    phrases: list[str], answers: Mapping[str, Answer], taxonomy: Taxonomy, tokens: Callable[[str], int], limit: int
) -> str:
    """Rationale and tags; while that is too long, the keyphrase with the most tokens goes."""
    text = render(ProfileAnswer(SEPARATOR.join(phrases), answers), taxonomy)
    if not phrases or tokens(text) <= limit:
        return text
    longest = phrases.index(max(phrases, key=tokens))
    return _completion(phrases[:longest] + phrases[longest + 1 :], answers, taxonomy, tokens, limit)


def _shown_keyphrases(person: UserFeatures, features: FeatureSchema) -> list[str]:
    """The texts of all lists as the prompt has them, each once, in the prompt's order."""
    of_lists = (feature for feature in features if feature.type == "list")
    return list(
        dict.fromkeys(
            quote(text, feature.max_characters) for feature in of_lists for text in person.texts(feature.name)
        )
    )


def _rationales(
    user_id: str, shown: Sequence[str], given: Mapping[str, PseudoLabel], count: int, seed: int
) -> list[list[str]]:
    """`count` rationales: keyphrases drawn without replacement, those that more attributes rely on more often.

    They are named in the prompt's order: a set in random order would leave greedy decoding no best next phrase.
    """
    cited = Counter(phrase for label in given.values() for phrase in split_keyphrases(label.rationale))
    phrases = [phrase for phrase in shown if phrase in cited]
    if len(phrases) <= KEYPHRASES_NAMED:
        return [phrases] * count
    digest = hashlib.blake2b(f"{seed}/{user_id}".encode(), digest_size=8).digest()
    random = np.random.default_rng(int.from_bytes(digest, "big"))
    weights = np.array([cited[phrase] for phrase in phrases], dtype=float)
    weights /= weights.sum()
    chosen = [random.choice(len(phrases), KEYPHRASES_NAMED, replace=False, p=weights) for _ in range(count)]
    return [[phrases[i] for i in np.sort(rows)] for rows in chosen]


def to_json(sequences: Iterable[Example]) -> str:
    """Sequences as text, for another process."""
    return json.dumps([asdict(sequence) for sequence in sequences])


def from_json(text: str) -> list[Example]:
    """The inverse of `to_json`."""
    return [Example(row["user_id"], tuple(row["messages"]), row["completion"]) for row in json.loads(text)]


def prompt_texts(messages: Iterable[Sequence[Message]], tokenizer: Any) -> list[str]:
    """The prompts as the model reads them: through the tokenizer's chat template, ready for the answer."""
    return [
        tokenizer.apply_chat_template(
            list(conversation), tokenize=False, add_generation_prompt=True, enable_thinking=False
        )
        for conversation in messages
    ]
