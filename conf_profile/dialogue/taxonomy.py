"""Attributes and their closed tag sets.

Order matters twice: attributes are answered in this order, and a tie in a vote goes to the tag that stands first. The
file that declares them is read by `task`, which holds the rest of what a prompt says.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from conf_profile.errors import TaxonomyError

UNKNOWN = "unknown"
"""What a teacher or a student answers when the evidence says nothing; stored as a null tag."""
MAX_TAG_CHARACTERS = 60
MAX_DESCRIPTION_CHARACTERS = 300

_MAX_NAME_CHARACTERS = 40
_RESERVED_ATTRIBUTES = frozenset({"rationale", "level", "user"})
_FORBIDDEN_IN_TAG = frozenset("<>")


@dataclass(frozen=True)
class Attribute:
    """One attribute and its tags, in the taxonomy's order.

    `descriptions` is empty, or has a sentence for each tag.
    """

    name: str
    tags: tuple[str, ...]
    descriptions: tuple[str, ...] = ()

    @cached_property
    def index(self) -> Mapping[str, int]:
        """Tag -> its position in `tags`."""
        return {tag: position for position, tag in enumerate(self.tags)}


@dataclass(frozen=True)
class Taxonomy:
    """The closed set of questions and answers of one data set."""

    attributes: tuple[Attribute, ...]

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Attribute names in the taxonomy's order."""
        return tuple(attribute.name for attribute in self.attributes)

    def __getitem__(self, name: str) -> Attribute:
        for attribute in self.attributes:
            if attribute.name == name:
                return attribute
        raise TaxonomyError(f"attribute {name!r} is not in the taxonomy; it has: {', '.join(self.names)}")


def parse_attributes(data: object, source: str) -> tuple[Attribute, ...]:
    """Checks `{name: [tag, ...]}` or `{name: {tag: description, ...}}`; TaxonomyError names the offence."""
    if not isinstance(data, Mapping):
        raise TaxonomyError(f"{source}: expected a mapping with the key 'attributes' (name -> list of tags)")
    if not data:
        raise TaxonomyError(f"{source}: 'attributes' is empty; declare at least one attribute")
    return tuple(_attribute(name, tags, source) for name, tags in data.items())


def _attribute(name: object, tags: object, source: str) -> Attribute:
    if not isinstance(name, str) or not _is_name(name):
        raise TaxonomyError(
            f"{source}: attribute name {name!r} must be a lower-case letter of any script, then letters, digits and _ "
            f"(at most {_MAX_NAME_CHARACTERS} characters), and not be one of {', '.join(sorted(_RESERVED_ATTRIBUTES))}"
        )
    listed: tuple[object, ...] = ()
    if isinstance(tags, Mapping | Sequence) and not isinstance(tags, str):
        listed = tuple(tags)
    if len(listed) < 2:
        raise TaxonomyError(f"{source}: attribute {name!r} needs a list of at least two tags")
    checked = tuple(_tag(tag, name, source) for tag in listed)
    duplicates = sorted({tag for tag in checked if checked.count(tag) > 1})
    if duplicates:
        raise TaxonomyError(f"{source}: attribute {name!r} lists {', '.join(map(repr, duplicates))} twice")
    return Attribute(name, checked, _descriptions(name, tags, source) if isinstance(tags, Mapping) else ())


def _descriptions(attribute: str, tags: Mapping[object, object], source: str) -> tuple[str, ...]:
    for tag, text in tags.items():
        if not isinstance(text, str) or not text.strip():
            raise TaxonomyError(
                f"{source}: attribute {attribute!r}: the tag {tag!r} has no description, and others have one; "
                "describe every tag of an attribute, or give a plain list of tags"
            )
        if len(text) > MAX_DESCRIPTION_CHARACTERS:
            raise TaxonomyError(
                f"{source}: attribute {attribute!r}: the description of {tag!r} has {len(text)} characters; at most "
                f"{MAX_DESCRIPTION_CHARACTERS}, since every prompt holds it"
            )
    return tuple(" ".join(str(text).split()) for text in tags.values())


def _is_name(name: str) -> bool:
    """A name is an element of the answer's grammar, and a key of JSON: letters of any script, none in upper case."""
    return (
        name.isidentifier()
        and name[0].isalpha()
        and name == name.lower() == unicodedata.normalize("NFC", name)
        and len(name) <= _MAX_NAME_CHARACTERS
        and name not in _RESERVED_ATTRIBUTES
    )


def _tag(tag: object, attribute: str, source: str) -> str:
    text = tag if isinstance(tag, str) else ""
    forbidden = any(character in _FORBIDDEN_IN_TAG or unicodedata.category(character) == "Cc" for character in text)
    if not text or text != text.strip() or text == UNKNOWN or forbidden or len(text) > MAX_TAG_CHARACTERS:
        raise TaxonomyError(
            f"{source}: attribute {attribute!r} has the tag {tag!r}; a tag is a quoted string of "
            f"1-{MAX_TAG_CHARACTERS} characters without < > or control characters, and not {UNKNOWN!r} (that one is "
            "always allowed)"
        )
    return text
