"""Texts that differ in case, kind of dash or quote, and spaces alone are the same, where nothing else is meant by them.

Whoever folds must see to it that a folded text stands for one thing only; an exact one always goes first.
"""

from __future__ import annotations

import html
import re
import unicodedata
from collections.abc import Iterator
from functools import lru_cache

_WRAPPERS = frozenset(
    {'""', "''", "``", "**", "__", "“”", "„“", "”“", "‘’", "«»", "»«", "‹›", "「」", "『』", "[]", "()"}
)
_DASHES = re.compile(r"[\u2010-\u2015\u2212\ufe58\ufe63\uff0d]")
_QUOTES = str.maketrans({"’": "'", "‘": "'", "“": '"', "”": '"'})
_NAME_GAPS = re.compile(r"[\s_-]+")
_LONGEST_KEPT = 60
"""Characters; names and tags come again with each answer."""
_SPACE = re.compile(r"\s+")
_AROUND_SIGNS = re.compile(r"\s*([-/&,+])\s*")


def fold(text: str) -> str:
    """The text without case, with one kind of dash and quote, and single spaces."""
    return _fold_kept(text) if len(text) <= _LONGEST_KEPT else _fold(text)


def fold_name(name: str) -> str:
    """A name of an element or a key, folded: `Age Group` and `age-group` are `age_group`."""
    return _NAME_GAPS.sub("_", fold(name))


def _fold(text: str) -> str:
    plain = _DASHES.sub("-", unicodedata.normalize("NFKC", text)).translate(_QUOTES)
    return unicodedata.normalize("NFKC", _AROUND_SIGNS.sub(r"\1", _SPACE.sub(" ", plain).strip()).casefold())


_fold_kept = lru_cache(maxsize=4096)(_fold)


def unwrap(text: str) -> Iterator[str]:
    """The text, then what is left when character references, quotes, emphasis and a full stop are taken off it."""
    text = text.strip()
    yield text
    plain = html.unescape(text)
    if plain != text:
        yield plain
    while plain[:1] + plain[-1:] in _WRAPPERS and len(plain) > 2:
        plain = plain[1:-1].strip()
        yield plain
    if plain[-1:] in (".", "。") and plain[:-1].strip():
        yield plain[:-1].strip()
