"""The form of a lexicon, before a teacher reads it: what would be read as no evidence at all is an error here."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from conf_profile.dialogue.task import Task
from conf_profile.dialogue.taxonomy import Taxonomy
from conf_profile.errors import DataError

MATCHES = ("phrase", "word", "part")
KEYS = ("name", "match", "entries", "fields", "prior", "overconfidence", "random_levels")


def check(path: Path, task: Task) -> None:
    """DataError for a key, a field, an attribute or a tag that the teacher would not find, and for what is no weight.

    Keys of entries and values of fields may have capitals: they are looked up in lower case.
    """
    lexicon = _read(path)
    if strange := [key for key in lexicon if key not in KEYS]:
        raise DataError(f"{path}: unknown key {strange[0]!r}; the keys are {', '.join(KEYS)}")
    if lexicon.get("match", MATCHES[0]) not in MATCHES:
        raise DataError(f"{path}: match is {lexicon['match']!r}; choose {', '.join(MATCHES)}")
    _check_entries(lexicon["entries"], f"{path}: entry", task)
    _check_fields(lexicon.get("fields", {}), path, task)
    for key in ("prior", "overconfidence"):
        _check_evidence(lexicon.get(key, {}), f"{path}: {key}", task)
    share = lexicon.get("random_levels", 0)
    if not _is_number(share) or not 0 <= share <= 1:
        raise DataError(f"{path}: random_levels is {share!r}; give a share from 0 to 1")


def check_tag(attribute: str, tag: str, taxonomy: Taxonomy, where: str) -> None:
    """DataError where the task has no such attribute, or the attribute no such tag."""
    if attribute not in taxonomy.names:
        raise DataError(f"{where}: attribute {attribute!r} is not in the taxonomy; it has {', '.join(taxonomy.names)}")
    if tag not in taxonomy[attribute].index:
        raise DataError(
            f"{where}: {attribute} has the tag {tag!r}, which is not in the taxonomy; it has "
            f"{', '.join(taxonomy[attribute].tags)}"
        )


def _read(path: Path) -> dict[str, Any]:
    try:
        lexicon = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError(f"{path}: not valid JSON: {error}") from error
    if not isinstance(lexicon, dict) or not isinstance(lexicon.get("entries"), dict):
        raise DataError(f"{path}: needs the key 'entries': keyphrase -> attribute -> tag -> weight")
    return lexicon


def _check_fields(fields: object, path: Path, task: Task) -> None:
    labels = {feature.label: feature.name for feature in task.features if feature.type != "list"}
    if not isinstance(fields, Mapping):
        raise DataError(f"{path}: fields must map a label to value -> attribute -> tag -> weight")
    for label, values in fields.items():
        if label not in labels:
            meant = next((known for known, name in labels.items() if name == label), None)
            known = f"write {meant!r}, its label in the prompt" if meant else f"the labels are {', '.join(labels)}"
            raise DataError(f"{path}: fields has {label!r}, which is no label of a scalar feature; {known}")
        if not isinstance(values, Mapping):
            raise DataError(f"{path}: field {label!r} must map values to attribute -> tag -> weight")
        _check_entries(values, f"{path}: field {label!r}, value", task)


def _check_entries(entries: Mapping[str, Any], where: str, task: Task) -> None:
    lowered: dict[str, str] = {}
    for key, evidence in entries.items():
        if not key.strip():
            raise DataError(f"{where} {key!r} is blank; remove it")
        other = lowered.setdefault(key.lower(), key)
        if other != key:
            raise DataError(
                f"{where} {key!r} is there as {other!r}, too, and both are looked up in lower case; keep one"
            )
        _check_evidence(evidence, f"{where} {key!r}", task)


def _check_evidence(evidence: object, where: str, task: Task) -> None:
    if not isinstance(evidence, Mapping):
        raise DataError(f"{where} must map attributes to tag -> weight, not be {evidence!r}")
    for attribute, weights in evidence.items():
        _refuse_bare_tag(attribute, where, task)
        if not isinstance(weights, Mapping):
            raise DataError(f"{where}: {attribute} must map tags to weights, not be {weights!r}")
        for tag, weight in weights.items():
            check_tag(attribute, tag, task, where)
            if not _is_number(weight):
                raise DataError(f"{where}: {attribute} {tag!r} has the weight {weight!r}; give a number, in nats")


def _refuse_bare_tag(name: str, where: str, task: Task) -> None:
    owner = next((attribute.name for attribute in task.attributes if name in attribute.index), None)
    if name not in task.names and owner is not None:
        raise DataError(
            f"{where}: {name!r} is a tag of {owner}, not an attribute; write {{{owner!r}: {{{name!r}: WEIGHT}}}}"
        )


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
