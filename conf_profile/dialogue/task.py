"""A task: what is inferred about whom, in which words, from which features.

A task is data, a YAML file `task.yaml`; every key but `attributes` has the paper's setting as its default:

    instruction: You infer ...                        # what is inferred about whom
    attributes:
      age: [under-18, "18-24"]                        # NAME: tags, or NAME: {TAG: DESCRIPTION, ...}
    features:
      watched: {type: list, label: watched titles}    # in the prompt's order; or NAME: TYPE
      plan: category
    examples:                                         # written by hand; each is a turn of the prompt before the user's
      - {features: {watched: [Dumbo]}, answer: {age: under-18}, rationale: Dumbo}

All of it goes into the prompt and travels with the model version. A `taxonomy.yaml` of earlier releases, which has the
attributes alone, is a task with the paper's words and features.
"""

from __future__ import annotations

import re
from collections.abc import Container, Hashable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from conf_profile.dialogue.output_format import Answer, ProfileAnswer, render
from conf_profile.dialogue.taxonomy import UNKNOWN, Taxonomy, parse_attributes
from conf_profile.errors import OutputFormatError, TaxonomyError
from conf_profile.features import (
    DEFAULT_CHARACTERS,
    DEFAULT_FEATURES,
    FEATURE_TYPES,
    Feature,
    FeatureSchema,
    FeatureType,
    FeatureValue,
)
from conf_profile.files import write_text

TASK, FORMER_TASK = "task.yaml", "taxonomy.yaml"
"""The file of a data set and of a model version, and its name in earlier releases."""
DEFAULT_INSTRUCTION = (
    "You infer attributes of a user from what the user watched, searched for, submitted and wrote at sign-up. "
    "Self-reports can be false."
)
NEUTRAL_INSTRUCTION = "You infer attributes of a user from what is known of the user. Self-reports can be false."
"""Of a task with features of its own."""
MAX_INSTRUCTION_CHARACTERS = 4000
MAX_FEATURES, MAX_LABEL_CHARACTERS, MAX_CHARACTERS = 64, 40, 4000
EXAMPLE_LEVEL = 5
"""The confidence of an example's tag that names none: a person wrote it. An attribute that is left out is unknown."""
RESERVED_FEATURES = frozenset({"user_id", "event_timestamp", "consent", "split"})
"""Columns of the tables that are no features."""

_JOINERS = "\u200c\u200d"
"""Invisible, and part of words of several scripts and of emoji."""
_FEATURE_NAME = re.compile(r"[a-z][a-z0-9_]{0,39}")
_KEYS = ("instruction", "attributes", "features", "examples")
_FEATURE_KEYS = ("type", "label", "max_characters", "self_report_of")
_EXAMPLE_KEYS = ("features", "answer", "rationale")


@dataclass(frozen=True)
class Example:
    """A user made up by hand, and the right answer. `features` are pairs of name and value, lists as tuples."""

    features: tuple[tuple[str, FeatureValue], ...]
    answers: tuple[tuple[str, Answer], ...]
    rationale: str = ""

    def render_answer(self, taxonomy: Taxonomy) -> str:
        """The answer in the grammar."""
        return render(ProfileAnswer(self.rationale, dict(self.answers)), taxonomy)


@dataclass(frozen=True)
class Task(Taxonomy):
    """A taxonomy, and all that a prompt says besides. Hashable: prompts are cached by it."""

    instruction: str = DEFAULT_INSTRUCTION
    features: FeatureSchema = DEFAULT_FEATURES
    examples: tuple[Example, ...] = field(default=())

    def to_dict(self) -> dict[str, Any]:
        """The form that `parse` reads, with every default spelled out."""
        return {
            "instruction": self.instruction,
            "attributes": {
                attribute.name: dict(zip(attribute.tags, attribute.descriptions, strict=True))
                if attribute.descriptions
                else list(attribute.tags)
                for attribute in self.attributes
            },
            "features": {feature.name: _feature_to_dict(feature) for feature in self.features},
            **({"examples": [_example_to_dict(example) for example in self.examples]} if self.examples else {}),
        }

    def save(self, path: Path) -> None:
        """Writes the YAML file that `load` reads."""
        write_text(path, yaml.safe_dump(self.to_dict(), sort_keys=False, allow_unicode=True, width=120))


def parse(data: object, source: str = TASK) -> Task:
    """Checks the form that the module's docstring shows; TaxonomyError names the offence and its place."""
    if not isinstance(data, Mapping) or not isinstance(data.get("attributes"), Mapping):
        raise TaxonomyError(
            f"{source}: expected a mapping with the key 'attributes' (name -> list of tags): what is inferred, e.g. "
            "{home: [flat, house]}"
        )
    _refuse_unknown(data, _KEYS, source)
    attributes = parse_attributes(data["attributes"], source)
    names = frozenset(attribute.name for attribute in attributes)
    given = data.get("features")
    features = _default_features(names) if given is None else _features(given, names, source)
    instruction = data.get("instruction")
    if instruction is None:
        instruction = DEFAULT_INSTRUCTION if given is None else NEUTRAL_INSTRUCTION
    task = Task(attributes, _instruction(instruction, source), features)
    examples = data.get("examples") or []
    if not isinstance(examples, Sequence) or isinstance(examples, str):
        raise TaxonomyError(f"{source}: 'examples' must be a list of examples, each with 'features' and 'answer'")
    parsed = tuple(_example(one, task, f"{source}: example {number}") for number, one in enumerate(examples, 1))
    return Task(task.attributes, task.instruction, task.features, parsed)


def load(path: Path) -> Task:
    """Reads a task's file. Duplicate keys are an error (YAML itself would keep the last)."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise TaxonomyError(f"{path}: cannot read the task: {error.strerror}") from error
    return parse_file(content, str(path))


def parse_file(content: bytes, source: str) -> Task:
    """`load` for a file's content."""
    try:
        data = yaml.load(content.decode("utf-8"), Loader=_UniqueKeyLoader)
    except UnicodeDecodeError as error:
        raise TaxonomyError(f"{source}: the task is not UTF-8: {error}") from error
    except yaml.YAMLError as error:
        raise TaxonomyError(f"{source}: not a valid YAML file: {error}") from error
    return parse(data, source)


def file_name(present: Container[str]) -> str:
    """Which of some files holds the task: `task.yaml`, or the `taxonomy.yaml` of an earlier release."""
    return FORMER_TASK if FORMER_TASK in present and TASK not in present else TASK


def find(folder: Path) -> Path:
    """The task's file in a folder."""
    return folder / file_name([name for name in (TASK, FORMER_TASK) if (folder / name).is_file()])


def builtin(name: str) -> Task:
    """One of the tasks that come with the package: `profile` (the paper's six attributes) or `movielens`."""
    return load(Path(__file__).parent / "taxonomies" / f"{name}.yaml")


def _instruction(given: object, source: str) -> str:
    text = " ".join(given.split()) if isinstance(given, str) else ""
    if not text or len(text) > MAX_INSTRUCTION_CHARACTERS:
        raise TaxonomyError(
            f"{source}: 'instruction' must be a text of 1-{MAX_INSTRUCTION_CHARACTERS} characters that says what is "
            "inferred about whom"
        )
    return text


def _default_features(attributes: frozenset[str]) -> FeatureSchema:
    """The paper's; what a user says of an attribute that this task does not have is no self-report."""
    return FeatureSchema(
        tuple(
            replace(feature, self_report_of=feature.self_report_of if feature.self_report_of in attributes else "")
            for feature in DEFAULT_FEATURES
        )
    )


def _features(data: object, attributes: frozenset[str], source: str) -> FeatureSchema:
    if not isinstance(data, Mapping) or not data:
        raise TaxonomyError(f"{source}: 'features' must map names to types, e.g. {{watched: list, plan: category}}")
    if len(data) > MAX_FEATURES:
        raise TaxonomyError(f"{source}: {len(data)} features; at most {MAX_FEATURES}")
    schema = FeatureSchema(tuple(_feature(name, given, attributes, source) for name, given in data.items()))
    if not schema.lists:
        raise TaxonomyError(f"{source}: no feature is a list; behaviour needs at least one (NAME: list)")
    labels = [feature.label for feature in schema]
    twice = sorted({label for label in labels if labels.count(label) > 1})
    if twice:
        raise TaxonomyError(f"{source}: two features have the label {twice[0]!r}; a prompt must tell them apart")
    return schema


def _feature(name: object, given: object, attributes: frozenset[str], source: str) -> Feature:
    if not isinstance(name, str) or not _FEATURE_NAME.fullmatch(name) or name in RESERVED_FEATURES:
        raise TaxonomyError(
            f"{source}: feature name {name!r} must match [a-z][a-z0-9_]* (at most 40 characters) and not be one of "
            f"{', '.join(sorted(RESERVED_FEATURES))}; 'label' may be any text"
        )
    where = f"{source}: feature {name!r}"
    if name in attributes:
        raise TaxonomyError(f"{where} has the name of an attribute; rename it, and keep the word as its label")
    settings = {"type": given} if isinstance(given, str) else given
    if not isinstance(settings, Mapping):
        raise TaxonomyError(f"{where} must be a type ({', '.join(FEATURE_TYPES)}) or a mapping with the key 'type'")
    _refuse_unknown(settings, _FEATURE_KEYS, where)
    kind = settings.get("type")
    if kind not in FEATURE_TYPES:
        raise TaxonomyError(f"{where} has the type {kind!r}; choose {', '.join(FEATURE_TYPES)}")
    reported = settings.get("self_report_of", "")
    if reported and reported not in attributes:
        raise TaxonomyError(f"{where}: self_report_of names {reported!r}, which is not an attribute")
    return Feature(
        name, kind, _label(settings.get("label", name), where), _characters(settings, kind, where), reported or ""
    )


def _label(given: object, where: str) -> str:
    label = given if isinstance(given, str) else ""
    strange = any(
        not (character.isprintable() or character in _JOINERS) or character in "<>{};:" for character in label
    )
    if not label or label != label.strip() or strange or len(label) > MAX_LABEL_CHARACTERS:
        raise TaxonomyError(
            f"{where} has the label {given!r}; a label is one line of 1-{MAX_LABEL_CHARACTERS} characters without "
            "< > { } ; :"
        )
    return label


def _characters(settings: Mapping[str, Any], kind: FeatureType, where: str) -> int:
    given = settings.get("max_characters", DEFAULT_CHARACTERS[kind])
    if not isinstance(given, int) or isinstance(given, bool) or not 1 <= given <= MAX_CHARACTERS:
        raise TaxonomyError(f"{where}: max_characters is {given!r}; give a whole number from 1 to {MAX_CHARACTERS}")
    return given


def _example(given: object, task: Task, where: str) -> Example:
    if not isinstance(given, Mapping) or not {"features", "answer"} <= set(given):
        raise TaxonomyError(f"{where} must be a mapping with 'features' and 'answer'")
    _refuse_unknown(given, _EXAMPLE_KEYS, where)
    features, answer = given["features"], given["answer"]
    if not isinstance(features, Mapping) or not isinstance(answer, Mapping):
        raise TaxonomyError(f"{where}: 'features' and 'answer' must map names to values")
    values = tuple((str(name), _example_value(name, value, task, where)) for name, value in features.items())
    if strange := [name for name in answer if name not in task.names]:
        raise TaxonomyError(f"{where} answers {strange[0]!r}; the attributes are {', '.join(task.names)}")
    answers = tuple((name, _example_answer(answer.get(name), f"{where}: {name}")) for name in task.names)
    example = Example(values, answers, str(given.get("rationale") or ""))
    try:
        example.render_answer(task)
    except OutputFormatError as error:
        raise TaxonomyError(f"{where} has an answer that does not parse: {error}") from error
    return example


def _example_value(name: object, value: object, task: Task, where: str) -> FeatureValue:
    kind = task.features.types.get(str(name))
    if kind is None:
        raise TaxonomyError(f"{where}: unknown feature {name!r}; the features are {', '.join(task.features.names)}")
    if kind == "list":
        texts = value if isinstance(value, Sequence) and not isinstance(value, str) else [None]
        if not all(isinstance(text, str) for text in texts):
            raise TaxonomyError(f"{where}: {name!r} must be a list of quoted texts")
        return tuple(str(text) for text in texts)
    wanted = (int, float) if kind == "number" else str
    if not isinstance(value, wanted) or isinstance(value, bool):
        raise TaxonomyError(f"{where}: {name!r} must be a {'number' if kind == 'number' else 'quoted text'}")
    return float(value) if isinstance(value, int | float) else str(value)


def _example_answer(given: object, where: str) -> Answer:
    if given is None:
        return Answer(None, 1)
    tag, level = (given.get("tag"), given.get("level", EXAMPLE_LEVEL)) if isinstance(given, Mapping) else (given, None)
    if not isinstance(tag, str):
        raise TaxonomyError(f"{where} must be a quoted tag, or {{tag: TAG, level: 1-5}}")
    return Answer(None if tag == UNKNOWN else tag, EXAMPLE_LEVEL if level is None else level)


def _feature_to_dict(feature: Feature) -> dict[str, Any]:
    given = {key: value for key, value in asdict(feature).items() if key != "name" and value}
    return {key: given[key] for key in _FEATURE_KEYS if key in given}


def _example_to_dict(example: Example) -> dict[str, Any]:
    return {
        "features": {name: list(value) if isinstance(value, tuple) else value for name, value in example.features},
        "answer": {name: {"tag": said.tag or UNKNOWN, "level": said.level} for name, said in example.answers},
        "rationale": example.rationale,
    }


def _refuse_unknown(data: Mapping[Any, Any], known: Sequence[str], where: str) -> None:
    if strange := sorted(str(key) for key in data if key not in known):
        raise TaxonomyError(f"{where}: unknown key(s) {', '.join(strange)}; the keys are {', '.join(known)}")


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
