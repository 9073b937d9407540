"""The one grammar of an answer: renderer, strict parser, and the regex for structured output.

    <rationale>pension calculator; rose pruning</rationale>
    <age>55+<level>4</level></age><gender>unknown<level>1</level></gender>...

The rationale comes first, so that sampling it is what makes rollouts differ; then one element for each
attribute in the taxonomy's order, the tag before its verbal confidence level (1-5), so that the level speaks
about the tag that was said. `unknown` stands for "the evidence says nothing" and is parsed to None.

The parser is strict: an answer that is cut, nested wrongly, out of order, outside the tag set, or followed
by anything else is malformed as a whole. White space between elements is the one freedom, since chat models
like line breaks. User text cannot reach the grammar: `prompts.quote` takes the angle brackets out of it.
Students and serving are read strictly; a teacher's answers are read by `answer_reader`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

from conf_profile.dialogue.taxonomy import UNKNOWN, Taxonomy
from conf_profile.errors import OutputFormatError

LEVELS = (1, 2, 3, 4, 5)
MAX_RATIONALE_CHARACTERS = 600
_FORBIDDEN_IN_RATIONALE = re.compile(r"[<>\x00-\x1f\x7f]+")


@dataclass(frozen=True)
class Answer:
    """One attribute's answer: a tag of the taxonomy (None: unknown) and a verbal confidence level 1-5."""

    tag: str | None
    level: int


@dataclass(frozen=True)
class ProfileAnswer:
    """A well-formed completion: the evidence that was named, and one answer per attribute."""

    rationale: str
    answers: Mapping[str, Answer]


def render(answer: ProfileAnswer, taxonomy: Taxonomy) -> str:
    """Writes an answer in the grammar; the exact inverse of `parse` for a rationale that is clean."""
    elements = [f"<rationale>{clean_rationale(answer.rationale)}</rationale>"]
    for attribute in taxonomy.attributes:
        given = answer.answers[attribute.name]
        _check(given, attribute.name, attribute.index)
        elements.append(f"<{attribute.name}>{given.tag or UNKNOWN}<level>{given.level}</level></{attribute.name}>")
    return "".join(elements)


def parse(text: str, taxonomy: Taxonomy) -> ProfileAnswer:
    """Reads a completion. Raises OutputFormatError where it departs from the grammar in any way."""
    match = _pattern(taxonomy).fullmatch(text)
    if match is None:
        raise OutputFormatError(f"the answer does not follow the grammar (it begins {text[:80]!r})")
    return _answer(match, taxonomy)


def parse_or_none(text: str, taxonomy: Taxonomy) -> ProfileAnswer | None:
    """`parse`, with None for a malformed answer: for the places where malformed is an outcome, not an error."""
    try:
        return parse(text, taxonomy)
    except OutputFormatError:
        return None


def find_answer(text: str, taxonomy: Taxonomy) -> tuple[ProfileAnswer, str] | None:
    """The first answer in the grammar that stands in a text, and what stands around it; None where there is none."""
    match = _pattern(taxonomy).search(text)
    return (_answer(match, taxonomy), text[: match.start()] + text[match.end() :]) if match else None


@lru_cache(maxsize=16)
def structured_output_regex(taxonomy: Taxonomy, rationale_characters: int = MAX_RATIONALE_CHARACTERS) -> str:
    """The grammar without its optional white space, for vLLM's structured output (`{"regex": ...}`).

    `rationale_characters` is the longest rationale it lets through, at most MAX_RATIONALE_CHARACTERS.
    """
    return _regex(taxonomy, gap="", named=False, rationale_characters=rationale_characters)


def clean_rationale(text: str) -> str:
    """Text that the grammar accepts as a rationale: no angle brackets or control characters, limited length."""
    return strip_markup(text)[:MAX_RATIONALE_CHARACTERS].strip()


def strip_markup(text: str) -> str:
    """The text without angle brackets and control characters, however long."""
    return _FORBIDDEN_IN_RATIONALE.sub(" ", text).strip()


def _answer(match: re.Match[str], taxonomy: Taxonomy) -> ProfileAnswer:
    answers = {
        name: Answer(None if match[f"{name}_tag"] == UNKNOWN else match[f"{name}_tag"], int(match[f"{name}_level"]))
        for name in taxonomy.names
    }
    return ProfileAnswer(match["rationale_text"].strip(), answers)


@lru_cache(maxsize=16)
def _pattern(taxonomy: Taxonomy) -> re.Pattern[str]:
    return re.compile(r"\s*" + _regex(taxonomy, gap=r"\s*", named=True) + r"\s*")


def _regex(taxonomy: Taxonomy, gap: str, named: bool, rationale_characters: int = MAX_RATIONALE_CHARACTERS) -> str:
    def group(name: str, body: str) -> str:
        return f"(?P<{name}>{body})" if named else f"({body})"

    rationale = group("rationale_text", rf"[^<>]{{0,{rationale_characters}}}")
    elements = [f"<rationale>{rationale}</rationale>"]
    for attribute in taxonomy.attributes:
        tags = "|".join(re.escape(tag) for tag in (*attribute.tags, UNKNOWN))
        tag, level = group(f"{attribute.name}_tag", tags), group(f"{attribute.name}_level", "[1-5]")
        elements.append(f"<{attribute.name}>{gap}{tag}{gap}<level>{level}</level>{gap}</{attribute.name}>")
    return gap.join(elements)


def _check(answer: Answer, attribute: str, index: Mapping[str, int]) -> None:
    if answer.tag is not None and answer.tag not in index:
        raise OutputFormatError(f"{attribute}: tag {answer.tag!r} is not in the taxonomy")
    if answer.level not in LEVELS:
        raise OutputFormatError(f"{attribute}: level {answer.level!r} is not one of 1-5")
