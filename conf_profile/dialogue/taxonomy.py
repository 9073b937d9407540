"""Attributes and their closed tag sets.

A taxonomy is data: a YAML file `{attributes: {name: [tag, ...]}}`. Order matters twice: attributes are
answered in this order, and a tie in a vote goes to the tag that stands first.
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import yaml

from conf_profile.errors import TaxonomyError

UNKNOWN = "unknown"
"""What a teacher or a student answers when the evidence says nothing; stored as a null tag."""

_ATTRIBUTE_NAME = re.compile(r"[a-z][a-z0-9_]{0,39}")
_RESERVED_ATTRIBUTES = frozenset({"rationale", "level", "user"})
_FORBIDDEN_IN_TAG = re.compile(r"[<>&\x00-\x1f\x7f]")


@dataclass(frozen=True)
class Attribute:
    """One attribute and its tags, in the taxonomy's order."""

    name: str
    tags: tuple[str, ...]

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

    def to_dict(self) -> dict[str, dict[str, list[str]]]:
        """The form that `parse` reads."""
        return {"attributes": {attribute.name: list(attribute.tags) for attribute in self.attributes}}

    def save(self, path: Path) -> None:
        """Writes the YAML file that `load` reads."""
        path.write_text(yaml.safe_dump(self.to_dict(), sort_keys=False, allow_unicode=True), encoding="utf-8")


def parse(data: object, source: str = "taxonomy") -> Taxonomy:
    """Checks `{attributes: {name: [tag, ...]}}` and returns the taxonomy; TaxonomyError names the offence."""
    if not isinstance(data, Mapping) or not isinstance(data.get("attributes"), Mapping):
        raise TaxonomyError(f"{source}: expected a mapping with the key 'attributes' (name -> list of tags)")
    attributes = data["attributes"]
    if not attributes:
        raise TaxonomyError(f"{source}: 'attributes' is empty; declare at least one attribute")
    return Taxonomy(tuple(_attribute(str(name), tags, source) for name, tags in attributes.items()))


def load(path: Path) -> Taxonomy:
    """Reads a taxonomy's YAML file. Duplicate keys are an error (YAML itself would keep the last)."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise TaxonomyError(f"{path}: cannot read the taxonomy: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise TaxonomyError(f"{path}: the taxonomy is not UTF-8: {error}") from error
    try:
        data = yaml.load(text, Loader=_UniqueKeyLoader)
    except yaml.YAMLError as error:
        raise TaxonomyError(f"{path}: not a valid YAML file: {error}") from error
    return parse(data, str(path))


def builtin(name: str) -> Taxonomy:
    """One of the taxonomies that come with the package: `profile` (six attributes) or `movielens`."""
    return load(Path(__file__).parent / "taxonomies" / f"{name}.yaml")


def _attribute(name: str, tags: object, source: str) -> Attribute:
    if not _ATTRIBUTE_NAME.fullmatch(name) or name in _RESERVED_ATTRIBUTES:
        raise TaxonomyError(
            f"{source}: attribute name {name!r} must match [a-z][a-z0-9_]* and not be one of "
            f"{', '.join(sorted(_RESERVED_ATTRIBUTES))}"
        )
    if not isinstance(tags, Sequence) or isinstance(tags, str) or len(tags) < 2:
        raise TaxonomyError(f"{source}: attribute {name!r} needs a list of at least two tags")
    checked = tuple(_tag(tag, name, source) for tag in tags)
    duplicates = sorted({tag for tag in checked if checked.count(tag) > 1})
    if duplicates:
        raise TaxonomyError(f"{source}: attribute {name!r} lists {', '.join(map(repr, duplicates))} twice")
    return Attribute(name, checked)


def _tag(tag: object, attribute: str, source: str) -> str:
    text = tag if isinstance(tag, str) else ""
    bad = not text or text != text.strip() or text == UNKNOWN or _FORBIDDEN_IN_TAG.search(text)
    if bad or len(text) > 60:
        raise TaxonomyError(
            f"{source}: attribute {attribute!r} has the tag {tag!r}; a tag is a quoted string of 1-60 characters "
            f"without < > & or control characters, and not {UNKNOWN!r} (that one is always allowed)"
        )
    return text


class _UniqueKeyLoader(yaml.SafeLoader):
    """SafeLoader that refuses a mapping with the same key twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[object, object]:
        seen: set[object] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, Hashable):
                continue  # what the loader itself says of it is better
            if key in seen:
                raise yaml.constructor.ConstructorError(None, None, f"duplicate key {key!r}", key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep)
