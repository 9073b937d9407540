"""Finds what an answer states, attribute by attribute, in whatever form: elements like those of the prompt, or JSON.

It reads no meaning: which tag or level a text stands for is decided by `answer_reader`. A line such as `age: old (4)`
is no statement: a user's text, which a teacher may quote, could be such a line, but it reaches no teacher with angle
brackets or braces in it (`prompts.quote`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, NamedTuple

from conf_profile.dialogue.folding import fold_name
from conf_profile.dialogue.taxonomy import UNKNOWN, Taxonomy

RATIONALE, LEVEL, TAG = "rationale", "level", "tag"
_ALIASES: Mapping[str, tuple[str, ...]] = {
    RATIONALE: ("rationale", "reasoning", "reason", "evidence", "keyphrases"),
    LEVEL: ("level", "confidence", "confidence_level", "certainty"),
    TAG: ("tag", "value", "answer", "label", "category", "choice"),
}
_LEVELS = ("levels", "confidences", *_ALIASES[LEVEL])
"""Keys of an object that holds the level of each attribute."""
_SUBJECTS = ("attribute", "name", "key")
"""Keys that say of which attribute an object speaks."""
_TOKEN = re.compile(r"""<\s*(/?)\s*([^\s<>/"'=]{1,80})(\s[^<>]*|/)?>""")
_PARAMETER = re.compile(r"""([^\s"'=/]+)\s*=\s*("[^"]*"|'[^']*')""")
_TRAILING_COMMA = re.compile(r",(?=\s{0,100}[}\]])")
_MOST_OBJECTS = 50
_MOST_BROKEN_OBJECTS = 8
"""Places where JSON might begin and does not, after which nothing more is tried."""
_DEEPEST = 4


@dataclass(frozen=True)
class Statement:
    """What is said of one attribute, as text; None where it is not said. Several levels are of one element."""

    attribute: str
    tag: str | None
    levels: tuple[str, ...] = ()


@dataclass
class Statements:
    """Everything that an answer states, in its order."""

    found: list[Statement] = field(default_factory=list)
    rationales: list[str] = field(default_factory=list)


def find_statements(text: str, taxonomy: Taxonomy) -> Statements:
    """All statements of a text, from its elements and from its JSON."""
    statements = Statements()
    names = names_of(taxonomy)
    _read_elements(text, names, statements)
    for value in _objects(text):
        _read_object(value, names, statements, _DEEPEST)
    return statements


def is_cut(text: str, taxonomy: Taxonomy) -> bool:
    """Whether something is opened and never closed: an element that the prompt names, an object, or a markup sign.

    An empty text is one that ended within a thought.
    """
    if not text or text.count("{") > text.count("}") or text.rfind("<") > text.rfind(">"):
        return True
    tokens = _tokens(text, names_of(taxonomy))
    last: dict[str, bool] = {token.kind: token.closing or token.empty for token in tokens}
    return not all(last.values())


@dataclass(frozen=True, eq=False)
class Names:
    """What the names of elements and keys stand for, in whatever case."""

    attributes: Mapping[str, str]
    kinds: Mapping[str, str]

    def attribute(self, name: str) -> str | None:
        """The attribute of this name."""
        return self.attributes.get(name) or self.attributes.get(fold_name(name))

    def kind(self, name: str) -> str | None:
        """RATIONALE, LEVEL or TAG where the name stands for one of these and is no attribute of the task."""
        return None if self.attribute(name) else self.kinds.get(fold_name(name))

    def level_of(self, name: str) -> str | None:
        """The attribute whose level has this name, as `age_level`."""
        folded = fold_name(name)
        for suffix in _ALIASES[LEVEL]:
            if folded.endswith(f"_{suffix}") and not self.attribute(name):
                return self.attribute(folded.removesuffix(f"_{suffix}"))
        return None


@lru_cache(maxsize=16)
def names_of(taxonomy: Taxonomy) -> Names:
    """The names of a task's attributes; a folded one that two of them share stands for neither."""
    folded: dict[str, list[str]] = {}
    for name in taxonomy.names:
        folded.setdefault(fold_name(name), []).append(name)
    alone = {key: names[0] for key, names in folded.items() if len(names) == 1}
    kinds = {alias: kind for kind, aliases in _ALIASES.items() for alias in aliases}
    return Names({**alone, **{name: name for name in taxonomy.names}}, kinds)


class _Token(NamedTuple):
    """An opening or closing tag of markup whose name means something: an attribute, or one of the kinds.

    `level_of` is the attribute of an element such as <age_level>, which is of kind LEVEL.
    """

    kind: str
    attribute: str | None
    level_of: str | None
    closing: bool
    empty: bool
    parameters: str
    start: int
    end: int


def _tokens(text: str, names: Names) -> list[_Token]:
    return [token for match in _TOKEN.finditer(text) if (token := _token(match, names))]


def _token(match: re.Match[str], names: Names) -> _Token | None:
    closing, name, rest = match[1] == "/", match[2], (match[3] or "")
    kind, attribute, level_of = _meaning(names, name)
    if kind is None:
        return None
    empty = rest.rstrip().endswith("/")
    return _Token(kind, attribute, level_of, closing, empty, rest.rstrip().rstrip("/"), match.start(), match.end())


def _tokens_after(tokens: Sequence[_Token], position: int) -> Iterator[_Token]:
    return (tokens[number] for number in range(position + 1, len(tokens)))


@lru_cache(maxsize=4096)
def _meaning(names: Names, name: str) -> tuple[str | None, str | None, str | None]:
    """The kind of an element of this name, its attribute, and the attribute whose level it is."""
    if attribute := names.attribute(name):
        return attribute, attribute, None
    level_of = names.level_of(name)
    return (LEVEL if level_of else names.kind(name)), None, level_of


def _read_elements(text: str, names: Names, statements: Statements) -> None:
    tokens = _tokens(text, names)
    # Where a level stands before the first tag, one that follows an element may be the next one's.
    first = next((token for token in tokens if token.kind != RATIONALE), None)
    levels_follow = first is not None and first.attribute is not None
    siblings = _sibling_levels(text, tokens)
    for position, token in enumerate(tokens):
        if token.closing:
            continue
        if token.kind == RATIONALE:
            end = next(
                (t.start for t in _tokens_after(tokens, position) if t.kind == RATIONALE or t.attribute), len(text)
            )
            statements.rationales.append(text[token.end : end])
        elif token.attribute:
            found = _element(text, tokens, position, names, levels_follow)
            if found and not found.levels:
                found = Statement(found.attribute, found.tag, siblings.get(found.attribute, ()))
            if found:
                statements.found.append(found)


def _sibling_levels(text: str, tokens: Sequence[_Token]) -> dict[str, tuple[str, ...]]:
    """attribute -> the levels in elements like <age_level>."""
    levels: dict[str, tuple[str, ...]] = {}
    for position, token in enumerate(tokens):
        if token.level_of and not token.closing:
            levels[token.level_of] = (*levels.get(token.level_of, ()), _text_of(text, tokens, position))
    return levels


def _element(text: str, tokens: Sequence[_Token], position: int, names: Names, levels_follow: bool) -> Statement | None:
    """The statement of the element that opens at a token; None where that is a mention in passing, or cut."""
    opening = tokens[position]
    assert opening.attribute is not None
    tag, levels = _parameters(opening, names)
    end = position
    if not opening.empty:
        inner = range(position + 1, len(tokens))
        end = next((n for n in inner if tokens[n].attribute or tokens[n].kind == RATIONALE), len(tokens))
        closed = end < len(tokens) and tokens[end].closing and tokens[end].attribute == opening.attribute
        stop = tokens[end].start if end < len(tokens) else len(text) - len(_cut_markup(text))
        inside = tokens[position + 1 : end]
        # A level that is closed ends an element whose own end is missing.
        if not closed and not any(token.kind == LEVEL and token.closing for token in inside):
            return None
        words, said = _content(text, opening.end, stop, inside)
        tag, levels = (tag or words), (*levels, *said)
    if not levels and levels_follow and end + 1 < len(tokens):
        after = tokens[end + 1]
        is_level = after.kind == LEVEL and not after.closing and not after.level_of
        if is_level and not text[tokens[end].end : after.start].strip():
            levels = (_text_of(text, tokens, end + 1),)
    return Statement(opening.attribute, tag, levels)


def _cut_markup(text: str) -> str:
    """What a text that was cut has of its last tag of markup."""
    at = text.rfind("<")
    return text[at:] if at > text.rfind(">") else ""


def _parameters(token: _Token, names: Names) -> tuple[str, tuple[str, ...]]:
    """Tag and levels in the tag of markup itself, as <age level="4">."""
    found = [(names.kind(name), value[1:-1]) for name, value in _PARAMETER.findall(token.parameters)]
    return (
        next((value for kind, value in found if kind == TAG), ""),
        tuple(value for kind, value in found if kind == LEVEL),
    )


def _content(text: str, start: int, stop: int, inside: Sequence[_Token]) -> tuple[str, tuple[str, ...]]:
    """The words of an element outside of its levels, and its levels."""
    words, levels, at = [], [], start
    for position, token in enumerate(inside):
        if token.start < at or token.kind != LEVEL or token.closing:
            continue
        words.append(text[at : token.start])
        end = next((t for t in _tokens_after(inside, position) if t.kind == LEVEL), None)
        level_stop = end.start if end else stop
        levels.append(text[token.end : level_stop].strip())
        at = end.end if end and end.closing else level_stop
    words.append(text[at:stop])
    return _TOKEN.sub("", "".join(words)).strip(), tuple(levels)


def _text_of(text: str, tokens: Sequence[_Token], position: int) -> str:
    end = tokens[position + 1].start if position + 1 < len(tokens) else len(text)
    return text[tokens[position].end : end].strip()


class _Pairs(list[tuple[str, Any]]):
    """A JSON object with a key that stands there twice, as it is written."""


# Not strict: models write line breaks into texts.
_DECODER = json.JSONDecoder(object_pairs_hook=_Pairs, parse_int=str, parse_float=str, parse_constant=str, strict=False)


def _objects(text: str) -> list[Any]:
    """The JSON objects of a text, outermost ones; their numbers are texts. Commas too many are forgiven."""
    found = list(_decode_objects(text))
    return found or list(_decode_objects(_TRAILING_COMMA.sub("", text)))


def _decode_objects(text: str) -> Iterator[Any]:
    at, broken = text.find("{"), 0
    for _ in range(_MOST_OBJECTS):
        if at < 0 or broken == _MOST_BROKEN_OBJECTS:
            return
        try:
            value, end = _DECODER.raw_decode(text, at)
            yield value
        except (ValueError, RecursionError):
            end, broken = at + 1, broken + 1
        at = text.find("{", end)


def _read_object(pairs: _Pairs, names: Names, statements: Statements, depth: int) -> None:
    if depth == 0:
        return
    subject = next((names.attribute(value) for key, value in pairs if _is_subject(key, value, names)), None)
    if subject:
        statements.found.append(_statement(subject, pairs, {}, names))
        return
    levels = _levels(pairs, names)
    for key, value in pairs:
        attribute = names.attribute(key)
        if attribute:
            statements.found.append(_statement(attribute, value, levels, names))
        elif names.kind(key) == RATIONALE:
            statements.rationales.append(_rationale(value))
        elif not (isinstance(value, _Pairs) and fold_name(key) in _LEVELS):
            for each in value if isinstance(value, list) and not isinstance(value, _Pairs) else [value]:
                if isinstance(each, _Pairs):
                    _read_object(each, names, statements, depth - 1)


def _is_subject(key: str, value: Any, names: Names) -> bool:
    """Whether a pair says of which attribute the object speaks; an attribute may itself be called `name`."""
    return (
        not names.attribute(key)
        and fold_name(key) in _SUBJECTS
        and isinstance(value, str)
        and names.attribute(value) is not None
    )


def _levels(pairs: _Pairs, names: Names) -> dict[str, tuple[str, ...]]:
    """attribute -> the levels that stand beside it: {"age_level": 4}, or {"levels": {"age": 4}}."""
    levels: dict[str, tuple[str, ...]] = {}
    for key, value in pairs:
        beside = [(attribute, value)] if (attribute := names.level_of(key)) else []
        if isinstance(value, _Pairs) and fold_name(key) in _LEVELS and not names.attribute(key):
            beside = [(attribute, level) for name, level in value if (attribute := names.attribute(name))]
        for attribute, level in beside:
            levels[attribute] = (*levels.get(attribute, ()), _level_text(level))
    return levels


def _statement(attribute: str, value: Any, beside: Mapping[str, tuple[str, ...]], names: Names) -> Statement:
    """{"tag": ..., "level": ...}, {TAG: LEVEL}, [TAG, LEVEL], or TAG with the level beside it."""
    levels = beside.get(attribute, ())
    if isinstance(value, _Pairs):
        tags = [_tag_text(each) for key, each in value if names.kinds.get(fold_name(key)) == TAG]
        inside = tuple(_level_text(each) for key, each in value if names.kinds.get(fold_name(key)) == LEVEL)
        if len(value) == 1 and not tags and not inside:
            return Statement(attribute, value[0][0], (_level_text(value[0][1]),))
        return Statement(attribute, _join(tags), (*inside, *levels))
    if isinstance(value, list):
        is_pair = len(value) == 2
        return Statement(attribute, _text(value[0]) if is_pair else None, tuple(map(_level_text, value[1:])))
    return Statement(attribute, _text(value), levels)


def _join(tags: Sequence[str | None]) -> str | None:
    """The one tag; several as a text that is no tag of any task; None for none."""
    different = dict.fromkeys(tag for tag in tags if tag is not None)
    return "\0".join(different) if different else None


def _tag_text(value: Any) -> str | None:
    """A tag, also alone in a list."""
    return _join([_text(each) for each in value]) if isinstance(value, list) else _text(value)


def _text(value: Any) -> str | None:
    """A scalar of JSON as text: null is `unknown`, and what is no scalar is None."""
    if value is None:
        return UNKNOWN
    if isinstance(value, bool):
        return str(value).lower()
    return value if isinstance(value, str) else None


def _level_text(value: Any) -> str:
    return "" if value is None else _text(value) or ""


def _rationale(value: Any) -> str:
    parts = value if isinstance(value, list) else [value]
    return "; ".join(part for part in parts if isinstance(part, str))
