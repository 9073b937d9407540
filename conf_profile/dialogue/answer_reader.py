"""The rule by which an answer of the teacher counts: what is well meant and says one thing is read; nothing is guessed.

Read are: the form of the prompt; the same in a Markdown fence, after a preamble, before an afterword, inside of another
element, with its elements in another order or case, with quoted tags, with levels like 4/5 or the prompt's words for
them; and JSON with the attributes' names. A tag is compared exactly, then without case, and then only if one tag alone
fits. A rationale above the limit is cut after a keyphrase.

An answer in which an attribute is missing, has no level, a tag outside the task or two different answers is malformed
as a whole. Students and serving use the strict parser of `output_format`: a student is trained on one form.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from conf_profile.dialogue.folding import fold, unwrap
from conf_profile.dialogue.output_format import (
    LEVELS,
    MAX_RATIONALE_CHARACTERS,
    Answer,
    ProfileAnswer,
    clean_rationale,
    find_answer,
    parse_or_none,
    strip_markup,
)
from conf_profile.dialogue.prompts import SEPARATOR
from conf_profile.dialogue.reasons import AnswerForm
from conf_profile.dialogue.statements import Statement, find_statements, is_cut
from conf_profile.dialogue.taxonomy import UNKNOWN, Attribute, Taxonomy
from conf_profile.dialogue.thinking import strip_thoughts

_FORMS_OF_REASONS: Mapping[str, AnswerForm] = {
    "length": AnswerForm.CUT_OFF,
    "content_filter": AnswerForm.REFUSED,
    "refusal": AnswerForm.REFUSED,
    "context_length_exceeded": AnswerForm.LONG_PROMPT,
}
_PLACEHOLDERS = ("TAG", "LEVEL")
_PLACEHOLDER_RATIONALE = "keyphrase; keyphrase"
_LEVEL_WORDS: Mapping[str, int] = {
    "one": 1, "two": 2, "three": 3, "four": 4, "five": 5,
    "a guess": 1, "guess": 1,
    "weak hints": 2, "weak hint": 2,
    "more likely than not": 3,
    "several clear signs": 4, "clear signs": 4,
    "certain": 5,
}  # fmt: skip
"""Numbers, and what the prompt says of each level; others, like `high`, may be either of two."""
_LEVEL_PREFIX = re.compile(r"^(?:level|confidence)\s*[:=]?\s*")
_OF_FIVE = re.compile(r"^(\d)(?:\.0+)?\s*(?:(?:/|of|out of)\s*5)?$")
_SIGNED_NUMBER = re.compile(r"[-+]\s*\d")
_LEVEL_PARTS = re.compile(r"[-():,;]")
_TAG_WITH_LEVEL = re.compile(
    r"^(?P<tag>.+?)\s*[,;:|-]?\s*(?:[(\[](?P<bracket>[^()\[\]]+)[)\]]|(?P<words>(?:level|confidence)\b.+)|(?P<five>\d\s*/\s*5))$",
    re.IGNORECASE | re.DOTALL,
)
_LONGEST_TAG_WITH_LEVEL = 200
_MARKUP = re.compile(r"[<{]")
_BULLET = re.compile(r"^\s*(?:[-*•]|\d+[.)])\s+")


@dataclass(frozen=True)
class ReadAnswer:
    """An answer as it was read: its form, and its content where that is well-formed."""

    form: AnswerForm
    answer: ProfileAnswer | None = None


class _UnreadableError(Exception):
    """A part of an answer that nothing is read from."""

    def __init__(self, form: AnswerForm) -> None:
        super().__init__(form)
        self.form = form


def read_answer(text: str, taxonomy: Taxonomy, reason: str = "") -> ReadAnswer:
    """Reads an answer of the teacher; see the module for what counts.

    `reason` is what the teacher knows of a text that is empty or not whole (`Completion.reason`).
    """
    if exact := parse_or_none(text, taxonomy):
        return ReadAnswer(AnswerForm.EXACT, exact)
    found = _read_tolerantly(strip_thoughts(text), taxonomy) if text.strip() else ReadAnswer(AnswerForm.EMPTY)
    return found if found.answer else ReadAnswer(_FORMS_OF_REASONS.get(reason, found.form))


def _read_tolerantly(text: str, taxonomy: Taxonomy) -> ReadAnswer:
    found = find_answer(text, taxonomy)
    # Without these signs, what stands around the answer states nothing: a fence, a preamble.
    if found and not _MARKUP.search(found[1]):
        return ReadAnswer(AnswerForm.OTHER_FORM, replace(found[0], rationale=_shorten(found[0].rationale)[0]))
    statements = find_statements(text, taxonomy)
    said = [statement for statement in statements.found if not _is_placeholder(statement)]
    if {statement.attribute for statement in said} != set(taxonomy.names):
        return ReadAnswer(_incomplete_form(text, said, taxonomy))
    try:
        answers = {attribute.name: _resolve(said, attribute) for attribute in taxonomy.attributes}
    except _UnreadableError as error:
        return ReadAnswer(error.form)
    rationale, is_whole = _shorten(_first_rationale(statements.rationales))
    form = AnswerForm.OTHER_FORM if is_whole else AnswerForm.CUT_RATIONALE
    return ReadAnswer(form, ProfileAnswer(rationale, answers))


def _is_placeholder(statement: Statement) -> bool:
    """Whether it repeats the prompt's own description of the form."""
    return (statement.tag, *statement.levels) == _PLACEHOLDERS


def _first_rationale(rationales: Sequence[str]) -> str:
    stripped = (rationale.strip() for rationale in rationales)
    return next((text for text in stripped if text and text != _PLACEHOLDER_RATIONALE), "")


def _incomplete_form(text: str, said: Sequence[Statement], taxonomy: Taxonomy) -> AnswerForm:
    if is_cut(text, taxonomy):
        return AnswerForm.CUT_OFF
    return AnswerForm.MISSING_ATTRIBUTE if said else AnswerForm.NO_ANSWER


def _resolve(statements: Sequence[Statement], attribute: Attribute) -> Answer:
    """What all statements about an attribute say alike."""
    answers = {_read(each, attribute) for each in statements if each.attribute == attribute.name}
    if len(answers) > 1:
        raise _UnreadableError(AnswerForm.TWO_ANSWERS)
    return answers.pop()


def _read(statement: Statement, attribute: Attribute) -> Answer:
    if not statement.tag:
        raise _UnreadableError(AnswerForm.MISSING_ATTRIBUTE)
    if statement.levels:
        return Answer(_read_tag(statement.tag, attribute), _read_levels(statement.levels))
    return _read_together(statement.tag, attribute)


def _read_together(text: str, attribute: Attribute) -> Answer:
    """A tag with its level in one text, as `old (4)`; a tag of the task that looks like this has no level."""
    try:
        _read_tag(text, attribute)
    except _UnreadableError as error:
        match = _TAG_WITH_LEVEL.match(text) if len(text) <= _LONGEST_TAG_WITH_LEVEL else None
        if error.form != AnswerForm.OTHER_TAG or match is None:
            raise
        level = match["bracket"] or match["words"] or match["five"]
        return Answer(_read_tag(match["tag"], attribute), _read_levels([level]))
    raise _UnreadableError(AnswerForm.NO_LEVEL)


def _read_tag(text: str, attribute: Attribute) -> str | None:
    """The one tag that a text stands for, None for `unknown`."""
    variants = list(unwrap(text))
    for variant in variants:
        if variant in attribute.index:
            return variant
        if variant == UNKNOWN:
            return None
    tags = _folded_tags(attribute)
    for variant in variants:
        fitting = tags.get(fold(variant), ())
        if len(fitting) > 1:
            raise _UnreadableError(AnswerForm.AMBIGUOUS_TAG)
        if fitting:
            return None if fitting[0] == UNKNOWN else fitting[0]
    raise _UnreadableError(AnswerForm.OTHER_TAG)


@lru_cache(maxsize=256)
def _folded_tags(attribute: Attribute) -> Mapping[str, tuple[str, ...]]:
    """folded text -> the tags, and `unknown`, that it may stand for."""
    tags: dict[str, tuple[str, ...]] = {}
    for tag in (*attribute.tags, UNKNOWN):
        tags[fold(tag)] = (*tags.get(fold(tag), ()), tag)
    return tags


def _read_levels(texts: Sequence[str]) -> int:
    levels = {_read_level(text) for text in texts}
    if len(levels) > 1:
        raise _UnreadableError(AnswerForm.TWO_ANSWERS)
    return levels.pop()


def _read_level(text: str) -> int:
    """4, 4/5, `4 out of 5`, `level 4`, `four`, `several clear signs`, `4 (several clear signs)`."""
    folded = _LEVEL_PREFIX.sub("", fold(list(unwrap(text))[-1]))
    if not folded:
        raise _UnreadableError(AnswerForm.NO_LEVEL)
    if _SIGNED_NUMBER.match(folded):
        raise _UnreadableError(AnswerForm.OTHER_LEVEL)
    levels = {_level_of(part.strip()) for part in _LEVEL_PARTS.split(folded) if part.strip()}
    level = levels.pop() if len(levels) == 1 else None
    if level is None:
        raise _UnreadableError(AnswerForm.OTHER_LEVEL)
    return level


def _level_of(text: str) -> int | None:
    match = _OF_FIVE.match(text)
    level = unicodedata.digit(match[1]) if match else _LEVEL_WORDS.get(text)
    return level if level in LEVELS else None


def _shorten(rationale: str) -> tuple[str, bool]:
    """The rationale in the grammar's bounds, cut after a keyphrase where it is too long; whether it is whole."""
    lines = [line for line in rationale.splitlines() if line.strip()]
    gap = SEPARATOR if lines and all(map(_BULLET.match, lines)) else " "
    text = strip_markup(gap.join(_BULLET.sub("", line).strip() for line in lines))
    if len(text) <= MAX_RATIONALE_CHARACTERS:
        return text, True
    keyphrases, separator, _ = clean_rationale(text).rpartition(SEPARATOR.strip())
    return (keyphrases if separator else clean_rationale(text)).strip(), False
