"""The embedded teacher, for machines with no model worth asking.

It reads the same prompt text as an LLM would. In each sample it attends to a few of the user's keyphrases,
weighs them against a lexicon (keyphrase -> evidence for tags, in nats), and answers in the same format with a
rationale and an imperfect, over-confident verbal confidence. It sees no label and no feature that is not in the
prompt. Its own accuracy and calibration stand in every report, so that nobody takes it for a large model.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
from bisect import bisect_right
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from conf_profile.dialogue.output_format import Answer, ProfileAnswer, render
from conf_profile.dialogue.prompts import SEPARATOR, split_keyphrases
from conf_profile.dialogue.task import Task
from conf_profile.dialogue.taxonomy import Taxonomy
from conf_profile.errors import TeacherError
from conf_profile.teachers.protocol import Completion, Request

Floats = npt.NDArray[np.float64]

FIELD_READ = 0.7
"""Probability that a sample reads one scalar, such as what the user said at sign-up."""
DOUBT = 0.5
"""Standard deviation of the noise on a sample's summed evidence, in nats: a mind that is not made up."""
MALFORMED_SHARE = 0.02
"""Share of the answers that are cut in the middle, as long answers of real models are."""
NO_EVIDENCE = 0.05
"""Summed evidence below which the teacher has read nothing; half of those times it says `unknown`."""
LEVEL_BOUNDS = (0.25, 0.40, 0.55, 0.70)
"""Probability of the answer, as the teacher sees it, from which on it says level 2, 3, 4, 5."""
# Letters of scripts that put no space between words: there every part of a text may be a word.
_UNSPACED_LETTERS = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\U00020000-\U0003ffff"
)
_WORD_CHARACTER = f"[^\\W{_UNSPACED_LETTERS}]"


@dataclass(frozen=True)
class LexiconHits:
    """How much a lexicon knows of some users: `informed` are those with any evidence, a keyphrase's or a field's."""

    users: int
    informed: int
    keyphrases: int
    found: int


class LexiconTeacher:
    """A teacher made of a lexicon file (JSON; see docs/teachers.md for the format)."""

    def __init__(self, lexicon_path: Path, task: Task, keyphrases_read: int, seed: int) -> None:
        text = _read(lexicon_path)
        self._lexicon = _Lexicon(_parse(text, lexicon_path), task)
        self._task = task
        self._keyphrases_read = keyphrases_read
        self._list_labels = frozenset(feature.label for feature in task.features if feature.type == "list")
        self._seed = seed
        digest = hashlib.sha256(text.encode()).hexdigest()[:16]
        self._fingerprint = f"lexicon/{digest}/read={keyphrases_read}/seed={seed}{self._lexicon.reading}"

    @property
    def fingerprint(self) -> str:
        return self._fingerprint

    async def complete(self, requests: Sequence[Request]) -> AsyncIterator[Completion]:
        for request in requests:
            for sample, text in zip(request.samples, self._answers(request), strict=True):
                yield Completion(request.user_id, sample, text)
            await asyncio.sleep(0)

    async def aclose(self) -> None:
        return None

    def count_hits(self, prompts: Iterable[str]) -> LexiconHits:
        """What the lexicon knows of users, from their parts of the prompt. A keyphrase counts each time it is there."""
        users = informed = keyphrases = found = 0
        for prompt in prompts:
            phrases, fields = _read_prompt(prompt, self._list_labels)
            hits = int(self._lexicon.keyphrase_evidence(phrases).any(axis=1).sum())
            users, keyphrases, found = users + 1, keyphrases + len(phrases), found + hits
            informed += bool(hits or self._lexicon.field_evidence(fields).any())
        return LexiconHits(users, informed, keyphrases, found)

    def _answers(self, request: Request) -> list[str]:
        phrases, fields = _read_prompt(request.messages[-1]["content"], self._list_labels)
        evidence = self._lexicon.keyphrase_evidence(phrases)
        field_evidence = self._lexicon.field_evidence(fields)
        return [
            self._answer(phrases, evidence, field_evidence, self._random(request.user_id, sample))
            for sample in request.samples
        ]

    def _random(self, user_id: str, sample: int) -> np.random.Generator:
        """Each (user, sample) has its own stream, so that shards and restarts give the same answers."""
        digest = hashlib.blake2b(f"{self._seed}/{user_id}/{sample}".encode(), digest_size=8).digest()
        return np.random.default_rng(int.from_bytes(digest, "big"))

    def _answer(self, phrases: list[str], evidence: Floats, field_evidence: Floats, random: np.random.Generator) -> str:
        read = np.sort(random.permutation(len(phrases))[: self._keyphrases_read])
        fields_read = random.random(len(field_evidence)) < FIELD_READ
        total = evidence[read].sum(axis=0) + field_evidence[fields_read].sum(axis=0)
        spoken = [phrases[i] for i in read if np.abs(evidence[i]).max() > 0]
        answers = {name: self._judge(total[columns], name, random) for name, columns in self._lexicon.columns.items()}
        text = render(ProfileAnswer(SEPARATOR.join(spoken), answers), self._task)
        return text[: len(text) * 2 // 3] if random.random() < MALFORMED_SHARE else text

    def _judge(self, evidence: Floats, name: str, random: np.random.Generator) -> Answer:
        if np.abs(evidence).max() < NO_EVIDENCE and random.random() < 0.5:
            return Answer(None, 1)
        logits = evidence + self._lexicon.prior[name] + random.normal(0.0, DOUBT, len(evidence))
        odds = np.exp(logits - logits.max())
        best = int(odds.argmax())
        level = 1 + bisect_right(LEVEL_BOUNDS, odds[best] / odds.sum())
        tag = self._task[name].tags[best]
        # A teacher that never guesses its level draws no number, so its answers stay what they were.
        if self._lexicon.random_levels and random.random() < self._lexicon.random_levels:
            level = int(random.integers(1, 6))
        return Answer(tag, min(5, level + self._lexicon.overconfidence[name].get(tag, 0)))


class _Lexicon:
    """The lexicon as rows over all tags of all attributes, laid side by side."""

    def __init__(self, data: Mapping[str, Any], taxonomy: Taxonomy) -> None:
        self._taxonomy = taxonomy
        self.columns: dict[str, slice] = {}
        start = 0
        for attribute in taxonomy.attributes:
            self.columns[attribute.name] = slice(start, start + len(attribute.tags))
            start += len(attribute.tags)
        self._width = start
        self._match = data.get("match", "phrase")
        # Keyphrases and values are looked up in lower case.
        self._entries = {key.lower(): self._row(evidence) for key, evidence in data["entries"].items()}
        self._fields = {
            field: {value.lower(): self._row(evidence) for value, evidence in values.items()}
            for field, values in data.get("fields", {}).items()
        }
        keys = [*data["entries"], *(value for values in data.get("fields", {}).values() for value in values)]
        self.reading = "/whole-words" if self._match == "word" else ""
        self.reading += "" if all(key == key.lower() for key in keys) else "/lower-case"
        """Part of the fingerprint: earlier releases read the same file in another way."""
        self._words = {entry: _word_pattern(entry) for entry in self._entries} if self._match == "word" else {}
        prior = self._row(data.get("prior", {}))
        self.prior = {name: prior[columns] for name, columns in self.columns.items()}
        given = data.get("overconfidence", {})
        self.overconfidence: dict[str, dict[str, int]] = {name: given.get(name, {}) for name in taxonomy.names}
        self.random_levels = float(data.get("random_levels", 0.0))
        self._known: dict[str, Floats] = {}

    def keyphrase_evidence(self, phrases: list[str]) -> Floats:
        """[phrases, all tags]: evidence of each keyphrase; zeros where the lexicon knows nothing."""
        return np.array([self._look_up(phrase) for phrase in phrases]).reshape(len(phrases), self._width)

    def field_evidence(self, fields: Mapping[str, str]) -> Floats:
        """[fields, all tags]: evidence of the sign-up form."""
        known = [self._fields[f][v.lower()] for f, v in fields.items() if v.lower() in self._fields.get(f, {})]
        return np.array(known).reshape(len(known), self._width)

    def _row(self, evidence: Mapping[str, Mapping[str, float]]) -> Floats:
        row = np.zeros(self._width)
        for name, weights in evidence.items():
            if name in self.columns:
                index = self._taxonomy[name].index
                for tag, weight in weights.items():
                    row[self.columns[name].start + index[tag]] = weight
        return row

    def _look_up(self, phrase: str) -> Floats:
        key = phrase.lower()
        if key not in self._known:
            self._known[key] = self._by_start(key) if self._match == "phrase" else self._by_parts(key)
        return self._known[key]

    def _by_start(self, key: str) -> Floats:
        """The longest run of first words that is an entry: 'rose pruning calendar near me' finds the first three."""
        words = key.split(" ")
        for end in range(len(words), 0, -1):
            row = self._entries.get(" ".join(words[:end]))
            if row is not None:
                return row
        return np.zeros(self._width)

    def _by_parts(self, key: str) -> Floats:
        """The sum of all entries in it: 'man' is in 'man of the house' and, as a whole word, not in 'woman'."""
        total = np.zeros(self._width)
        for entry, row in self._entries.items():
            pattern = self._words.get(entry)
            if entry in key and (pattern is None or pattern.search(key)):
                total += row
        return total


def _word_pattern(entry: str) -> re.Pattern[str] | None:
    """Finds an entry as whole words; None for one that a sign begins or ends, which says itself where it stops."""
    if not entry or not (entry[0].isalnum() and entry[-1].isalnum()):
        return None
    begins, ends = (re.fullmatch(_WORD_CHARACTER, edge) for edge in (entry[0], entry[-1]))
    before = f"(?<!{_WORD_CHARACTER})" if begins else ""
    after = f"(?!{_WORD_CHARACTER})" if ends else ""
    return re.compile(f"{before}{re.escape(entry)}{after}")


def _read_prompt(text: str, list_labels: frozenset[str]) -> tuple[list[str], dict[str, str]]:
    """The user's part of the prompt, read back: all keyphrases, and the scalars by their labels."""
    phrases: list[str] = []
    fields: dict[str, str] = {}
    for line in text.splitlines():
        label, _, value = line.partition(": ")
        if label in list_labels:
            phrases += split_keyphrases(value)
        elif value:
            fields[label] = value
    return phrases, fields


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise TeacherError(
            f"{path}: cannot read the lexicon: {error.strerror}; the lexicon teacher needs one, or choose "
            "teacher.kind openai or vllm"
        ) from error


def _parse(text: str, path: Path) -> dict[str, Any]:
    try:
        data = json.loads(text)
    except json.JSONDecodeError as error:
        raise TeacherError(f"{path}: the lexicon is not valid JSON: {error}") from error
    if not isinstance(data, dict) or not isinstance(data.get("entries"), dict):
        raise TeacherError(f"{path}: the lexicon needs the key 'entries' (phrase -> attribute -> tag -> weight)")
    return data
