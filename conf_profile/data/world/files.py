"""Writes the generated world as a data set's folder: tables, labels, ceiling, taxonomy and lexicon.

Labels and ceiling are separate files that evaluation alone reads. The lexicon is what the embedded teacher
knows of the world: the true evidence of each keyphrase, with gaps, noise and a leaning towards some tags. It
is made from the world's tables, never from anybody's labels.
"""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from conf_profile import tables
from conf_profile.config import LexiconConfig, WorldConfig
from conf_profile.data import dataset
from conf_profile.data.dataset import Dataset
from conf_profile.data.world import posterior as world_posterior
from conf_profile.data.world.world import (
    AS_OF,
    CONSENT_SHARE,
    DEFAULT,
    FIRST_AGE,
    LAST_AGE,
    LIST_SHARES,
    MODIFIER_SHARE,
    Floats,
    People,
    World,
    build_world,
    draw,
)
from conf_profile.dialogue.task import TASK
from conf_profile.features import DEFAULT_FEATURES
from conf_profile.files import write_text


def build(
    folder: Path,
    users: int,
    seed: int,
    config: WorldConfig = DEFAULT,
    knowledge: LexiconConfig | None = None,
) -> Dataset:
    """Generates `users` people and writes the folder. The same arguments give the same files."""
    people, world = draw(users, seed, config), build_world(config)
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng([seed, 2])
    user_ids = [f"u{index:07d}" for index in range(users)]
    tables.write(folder / "behaviour.parquet", _behaviour(world, people, user_ids, random), tables.BEHAVIOUR)
    tables.write(folder / "demographics.parquet", _demographics(world, people, user_ids, random), tables.DEMOGRAPHICS)
    tables.write(folder / "labels.parquet", _labels(world, people, user_ids), tables.LABELS)
    tables.write(folder / "ceiling.parquet", _ceiling(world, people, user_ids), tables.PREDICTIONS)
    world.taxonomy.save(folder / TASK)
    write_text(
        folder / "lexicon.json", json.dumps(lexicon(world, knowledge or LexiconConfig()), indent=0, sort_keys=True)
    )
    return dataset.finish(folder, name="world", as_of=AS_OF, source="generated", licence="Apache-2.0")


def lexicon(world: World, config: LexiconConfig) -> dict[str, Any]:
    """The embedded teacher's knowledge: keyphrase or field value -> attribute -> tag -> evidence in nats."""
    random = np.random.default_rng(config.seed)
    given = _phrase_given_each_tag(world)
    entries: dict[str, dict[str, dict[str, float]]] = {phrase: {} for phrase in world.phrases}
    for name, likelihood in given.items():
        evidence = np.log(likelihood) - np.log(likelihood.mean(axis=0))
        speaks = np.abs(evidence).max(axis=0) > 0.3
        known = random.random(len(world.phrases)) >= config.gaps
        believed = evidence + random.normal(0.0, config.noise, evidence.shape)
        for column in np.flatnonzero(speaks & known):
            entries[world.phrases[column]][name] = _weights(world, name, believed[:, column])
    leaning = {
        name: _weights(world, name, random.normal(0.0, config.leaning, len(world.taxonomy[name].tags)))
        for name in world.taxonomy.names
    }
    overconfidence = {
        name: {
            tag: config.overconfidence
            for tag in world.taxonomy[name].tags
            if random.random() < config.overconfident_tags
        }
        for name in world.taxonomy.names
    }
    return {
        "name": "world",
        "match": "phrase",
        "entries": {phrase: evidence for phrase, evidence in entries.items() if evidence},
        "fields": _field_evidence(world),
        "prior": leaning,
        "overconfidence": overconfidence,
        "random_levels": config.random_levels,
    }


def _phrase_given_each_tag(world: World) -> dict[str, Floats]:
    """attribute -> [tags, phrases]: a phrase's probability given one tag, the other attributes summed out."""
    states, prior = world.all_states, world.prior(world.all_states)
    likelihood = world.phrase_given_state(states)
    result = {}
    for column, name in enumerate(world.taxonomy.names):
        chosen = [states[:, column] == tag for tag in range(len(world.taxonomy[name].tags))]
        result[name] = np.stack([prior[rows] @ likelihood[rows] / prior[rows].sum() for rows in chosen])
    return result


def _field_evidence(world: World) -> dict[str, dict[str, dict[str, dict[str, float]]]]:
    """field -> value -> attribute -> tag -> evidence: what a sign-up form says, believed a little too much."""
    ages = {
        str(age): {"age": {tag: 2.0}}
        for tag in world.taxonomy["age"].tags
        for age in range(FIRST_AGE[tag], LAST_AGE[tag] + 1)
    }
    genders = {tag: {"gender": {tag: 2.0}} for tag in world.taxonomy["gender"].tags}
    speaking = zip(world.signatures, world.speaking_stages, strict=False)
    signatures = {text: {"life_stage": {stage: 1.5}} for text, stage in speaking}
    return {"age": ages, "gender": genders, "signature": signatures}


def _weights(world: World, name: str, values: Floats) -> dict[str, float]:
    return {tag: round(float(value), 3) for tag, value in zip(world.taxonomy[name].tags, values, strict=True)}


def _behaviour(world: World, people: People, user_ids: list[str], random: np.random.Generator) -> pa.Table:
    """Three snapshots: an older half, the whole just before AS_OF, and, for some, one after it that must not leak."""
    rows = []
    for user_id, phrases in zip(user_ids, people.phrases, strict=True):
        texts = [_add_modifier(world, world.phrases[phrase], random) for phrase in phrases]
        lists = random.choice(3, size=len(texts), p=LIST_SHARES)
        half = len(texts) // 2
        rows.append(_snapshot(user_id, AS_OF - timedelta(days=90), texts[:half], lists[:half]))
        rows.append(_snapshot(user_id, AS_OF - timedelta(days=int(random.integers(0, 30))), texts, lists))
        if random.random() < 0.1:
            rows.append(_snapshot(user_id, AS_OF + timedelta(days=7), ["after the fact"], np.zeros(1, dtype=int)))
    return tables.from_rows(rows, tables.BEHAVIOUR)


def _add_modifier(world: World, phrase: str, random: np.random.Generator) -> str:
    if random.random() >= MODIFIER_SHARE:
        return phrase
    return f"{phrase} {world.modifiers[random.integers(len(world.modifiers))]}"


def _snapshot(user_id: str, when: Any, texts: list[str], lists: Any) -> dict[str, Any]:
    chosen = {
        name: [text for text, position in zip(texts, lists, strict=True) if position == index]
        for index, name in enumerate(DEFAULT_FEATURES.lists)
    }
    return {"user_id": user_id, "event_timestamp": when, **chosen}


def _demographics(world: World, people: People, user_ids: list[str], random: np.random.Generator) -> pa.Table:
    tags = world.taxonomy["age"].tags
    count = len(user_ids)
    first = np.array([FIRST_AGE[tag] for tag in tags])[people.self_age]
    last = np.array([LAST_AGE[tag] for tag in tags])[people.self_age]
    ages = random.integers(first, last + 1)
    consent = random.random(count) < CONSENT_SHARE
    genders = world.taxonomy["gender"].tags

    def sign_up(i: int) -> tuple[str | None, ...]:
        return (
            str(ages[i]) if people.self_age[i] >= 0 else None,
            genders[people.self_gender[i]] if people.self_gender[i] >= 0 else None,
            world.signatures[people.signature[i]] if people.signature[i] >= 0 else None,
            world.regions[people.region[i]] if people.region[i] >= 0 else None,
        )

    rows = [
        {
            "user_id": user_ids[i],
            "event_timestamp": AS_OF - timedelta(days=200),
            "consent": bool(consent[i]),
            **dict(zip(DEFAULT_FEATURES.scalars, sign_up(i), strict=True)),
        }
        for i in range(count)
    ]
    return tables.from_rows(rows, tables.DEMOGRAPHICS)


def _labels(world: World, people: People, user_ids: list[str]) -> pa.Table:
    rows = [
        {"user_id": user_id, "attribute": name, "tag": world.taxonomy[name].tags[people.states[row, column]]}
        for row, user_id in enumerate(user_ids)
        for column, name in enumerate(world.taxonomy.names)
    ]
    return tables.from_rows(rows, tables.LABELS)


def _ceiling(world: World, people: People, user_ids: list[str]) -> pa.Table:
    rows = []
    for name, posterior in world_posterior.marginals(people, world.config).items():
        best, probability = posterior.argmax(axis=1), posterior.max(axis=1)
        levels = np.clip((probability * 5).astype(int) + 1, 1, 5)
        rows += [
            {
                "user_id": user_id,
                "attribute": name,
                "tag": world.taxonomy[name].tags[best[row]],
                "level": int(levels[row]),
                "score": min(1.0, float(probability[row])),
            }
            for row, user_id in enumerate(user_ids)
        ]
    return tables.from_rows(rows, tables.PREDICTIONS)
