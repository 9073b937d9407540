"""A small tokenizer for a student that starts from scratch.

It is made from prompts (keyphrases and sign-up fields), never from labels. Its pieces may span the words of a
keyphrase, so that a frequent keyphrase costs one token and a new one a few; the answer grammar's elements,
which follow from the taxonomy alone, are tokens of their own.
"""

from __future__ import annotations

import itertools
import math
import string
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

from conf_profile.dialogue.output_format import LEVELS
from conf_profile.dialogue.prompts import SEPARATOR
from conf_profile.dialogue.task import Task
from conf_profile.dialogue.taxonomy import UNKNOWN, Taxonomy
from conf_profile.features import FeatureSchema

PAD, END, UNKNOWN_PIECE, ANSWER = "<pad>", "<end>", "<unk>", "<answer>"
MAX_PIECE_CHARACTERS = 48
MINIMUM_SAVING = 100
"""Tokens that a piece must save over all prompts: a rarer one is hardly trained, and each one slows sampling."""
MINIMUM_FORM_ANSWERS = 5
"""People who must have given an answer at sign-up (an age, a region) for it to be one piece."""
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ message['content'] }}"
    "{% if message['role'] == 'assistant' %}" + END + "{% else %}\n{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}" + ANSWER + "{% endif %}"
)


def grammar_tokens(taxonomy: Taxonomy) -> list[str]:
    """The answer's elements as tokens: '<age>25-34', '<level>4</level></age>' and so on."""
    tokens = ["<rationale>", "</rationale>"]
    for attribute in taxonomy.attributes:
        tokens += [f"<{attribute.name}>{tag}" for tag in (*attribute.tags, UNKNOWN)]
        tokens += [f"<level>{level}</level></{attribute.name}>" for level in LEVELS]
    return tokens


def train_tokenizer(prompts: Iterable[str], task: Task, vocabulary_size: int) -> Any:
    """Builds the tokenizer; returns a transformers PreTrainedTokenizerFast with a chat template."""
    from tokenizers import Tokenizer, decoders, models
    from transformers import PreTrainedTokenizerFast

    elements = grammar_tokens(task) + _label_tokens(task.features)
    special = [PAD, END, UNKNOWN_PIECE, ANSWER]
    pieces = _pieces(prompts, task.features, max(64, vocabulary_size - len(elements) - len(special)))
    tokenizer = Tokenizer(models.Unigram([(token, 0.0) for token in special] + pieces, unk_id=2))
    tokenizer.decoder = decoders.Fuse()
    tokenizer.add_special_tokens(special)
    tokenizer.add_tokens(elements)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        eos_token=END,
        unk_token=UNKNOWN_PIECE,
        additional_special_tokens=[ANSWER],
        chat_template=CHAT_TEMPLATE,
        padding_side="left",
        clean_up_tokenization_spaces=False,
    )


def _pieces(prompts: Iterable[str], features: FeatureSchema, count: int) -> list[tuple[str, float]]:
    """Pieces and their log-probabilities: every character, then the runs of words that save the most tokens.

    A run begins or ends a keyphrase, so that 'rose pruning calendar near me' is the keyphrase and its tail. One
    that a single longer run nearly always continues (`extended`) saves nothing of its own.
    """
    runs, characters, extended = Counter[str](), Counter[str](), Counter[str]()
    prompts = list(prompts)
    times = Counter(_keyphrases(prompts))
    for phrase, count_of_phrase in times.items():
        characters.update(phrase)
        runs.update(dict.fromkeys(itertools.chain(*_runs(phrase)), count_of_phrase))
    for chain in itertools.chain.from_iterable(map(_runs, times)):
        for shorter, longer in itertools.pairwise(chain):
            extended[shorter] = max(extended[shorter], runs[longer])
    characters.update(string.printable.replace("<", "").replace(">", "").strip() + " ")
    saved = {run: _saving(run, runs) * (runs[run] - extended[run]) for run in runs}
    worth = sorted((run for run in runs if saved[run] >= MINIMUM_SAVING), key=lambda run: (-saved[run], run))
    chosen = worth[: max(0, count - len(characters))]
    counts = (
        dict.fromkeys(sorted(characters), 1) | _form_answers(prompts, features) | {run: runs[run] for run in chosen}
    )
    total = math.log(sum(counts.values()))
    return [(piece, math.log(times) - total) for piece, times in counts.items()]


def _form_answers(prompts: Iterable[str], features: FeatureSchema) -> dict[str, int]:
    """What people gave at sign-up, each answer whole: an age spelled in digits would have to be put together."""
    lines = (line.partition(": ") for prompt in prompts for line in prompt.splitlines())
    scalars = {feature.label for feature in features if feature.type != "list"}
    times = Counter(value for label, _, value in lines if label in scalars)
    return {value: count for value, count in times.items() if count >= MINIMUM_FORM_ANSWERS and _select_short([value])}


def _saving(run: str, runs: Counter[str]) -> int:
    """Tokens that one occurrence of a run saves: one where two more frequent runs make it up, else its characters."""
    cuts = (position for position, character in enumerate(run) if character == " " and position)
    made_up = any(min(runs[run[:cut]], runs[run[cut:]]) > runs[run] for cut in cuts)
    return 1 if made_up else len(run)


def _keyphrases(prompts: Iterable[str]) -> Iterator[str]:
    """What is left of the prompts for the trained pieces: keyphrases and field values."""
    for prompt in prompts:
        for line in prompt.splitlines():
            yield from (line.partition(": ")[2] or line).split(SEPARATOR)


def _runs(phrase: str) -> tuple[list[str], list[str]]:
    """Runs of words from the start, and runs with a leading space to the end, each list from short to long."""
    words = phrase.split(" ")
    heads = [" ".join(words[:end]) for end in range(1, len(words))] + [phrase]
    tails = ["".join(f" {word}" for word in words[start:]) for start in range(len(words) - 1, 0, -1)]
    return _select_short(heads), _select_short(tails)


def _select_short(runs: list[str]) -> list[str]:
    return [run for run in runs if 1 < len(run) <= MAX_PIECE_CHARACTERS]


def _label_tokens(features: FeatureSchema) -> list[str]:
    """What begins a line of the prompt (see `prompts.render_user`)."""
    return [f"{before}{feature.label}: " for feature in features for before in ("\n", "")] + ["\n", SEPARATOR]


def level_alternatives(pieces: list[str], position: int, digit_at: int) -> list[str]:
    """The five pieces that a level's piece could have been: the same piece with another digit."""
    piece = pieces[position]
    return [piece[:digit_at] + str(level) + piece[digit_at + 1 :] for level in LEVELS]


def level_positions(pieces: list[str]) -> list[tuple[int, int]]:
    """Where the levels stand in a tokenised answer: (index of the piece, index of the digit in the piece).

    Works on raw pieces, whatever the tokenizer: '<level>' and a digit are ASCII in all of them.
    """
    text, starts = "".join(pieces), list(itertools.accumulate(map(len, pieces), initial=0))
    positions, search_from, piece = [], 0, 0
    while (found := text.find("<level>", search_from)) >= 0:
        digit = found + len("<level>")
        search_from = digit
        if digit >= len(text) or text[digit] not in "12345":
            continue
        while starts[piece + 1] <= digit:
            piece += 1
        positions.append((piece, digit - starts[piece]))
    return positions
