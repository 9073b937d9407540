"""The generated benchmark, in the shape of the paper's ProfileBench (which is not public).

Six true attributes depend on each other (age -> life stage and occupation -> industry and education). Every
keyphrase is drawn from noise or speaks about one attribute; sign-up data are missing, or false, for a known
share of the people. Nothing else is random in a way that depends on the attributes, so the posterior over the
joint state is exact (`world_posterior`), and with it the best F1 that a method which answers for everybody could reach.

The probabilities below were chosen once, for plausibility, and are not tuned to results. Noise and length of the
histories are arguments, so that experiments can vary them.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import yaml

from conf_profile.config import WorldConfig
from conf_profile.dialogue import task as tasks
from conf_profile.dialogue.task import Task

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

DEFAULT = WorldConfig()
AS_OF = datetime(2026, 6, 1, tzinfo=UTC)
OWN_SHARE = 0.62
"""Of the keyphrases about an attribute, how many belong to the person's own tag; the rest are other tags'."""
MODIFIER_SHARE = 0.35
ZIPF_EXPONENT = 0.8
LONGEST_HISTORY = 7.0
"""The most keyphrases that anybody has, as a multiple of the median."""
SELF_AGE_GIVEN, SELF_AGE_TRUE = 0.45, 0.85
SELF_GENDER_GIVEN, SELF_GENDER_TRUE = 0.60, 0.95
SIGNATURE_GIVEN, SIGNATURE_SPEAKS = 0.5, 0.4
REGION_GIVEN = 0.9
CONSENT_SHARE = 0.95
LIST_SHARES = (0.55, 0.30, 0.15)
TOPIC_WEIGHTS = {
    "age": 0.20,
    "gender": 0.17,
    "industry": 0.19,
    "occupation": 0.18,
    "education": 0.12,
    "life_stage": 0.14,
}

_AGE = [0.08, 0.17, 0.24, 0.20, 0.15, 0.16]
_GENDER = [0.5, 0.5]
# Rows: age; columns: single, couple, young-parent, parent-of-teens, empty-nest.
_LIFE_STAGE = [
    [0.97, 0.02, 0.01, 0.00, 0.00],
    [0.70, 0.22, 0.08, 0.00, 0.00],
    [0.34, 0.34, 0.31, 0.01, 0.00],
    [0.20, 0.18, 0.38, 0.24, 0.00],
    [0.18, 0.16, 0.05, 0.44, 0.17],
    [0.20, 0.17, 0.00, 0.07, 0.56],
]
# Rows: age; columns: student, engineer, clinician, teacher, manager, salesperson, artisan, farmer, creator, retired.
_OCCUPATION = [
    [0.93, 0.00, 0.00, 0.00, 0.00, 0.02, 0.01, 0.01, 0.03, 0.00],
    [0.52, 0.08, 0.06, 0.05, 0.02, 0.10, 0.06, 0.03, 0.08, 0.00],
    [0.09, 0.18, 0.14, 0.13, 0.10, 0.13, 0.08, 0.05, 0.10, 0.00],
    [0.02, 0.17, 0.15, 0.15, 0.18, 0.12, 0.09, 0.06, 0.06, 0.00],
    [0.01, 0.14, 0.15, 0.16, 0.21, 0.12, 0.10, 0.07, 0.03, 0.01],
    [0.00, 0.06, 0.08, 0.08, 0.10, 0.06, 0.07, 0.07, 0.01, 0.47],
]
# Rows: occupation; columns: technology, healthcare, education, finance, manufacturing, retail, agriculture, media.
_INDUSTRY = [
    [0.14, 0.10, 0.40, 0.06, 0.06, 0.14, 0.03, 0.07],
    [0.48, 0.05, 0.04, 0.06, 0.27, 0.03, 0.03, 0.04],
    [0.02, 0.90, 0.05, 0.01, 0.01, 0.00, 0.01, 0.00],
    [0.03, 0.03, 0.88, 0.02, 0.01, 0.01, 0.01, 0.01],
    [0.17, 0.13, 0.09, 0.20, 0.16, 0.17, 0.03, 0.05],
    [0.11, 0.08, 0.03, 0.19, 0.12, 0.41, 0.03, 0.03],
    [0.02, 0.02, 0.04, 0.01, 0.52, 0.22, 0.06, 0.11],
    [0.01, 0.00, 0.01, 0.01, 0.03, 0.05, 0.88, 0.01],
    [0.17, 0.03, 0.05, 0.02, 0.03, 0.12, 0.02, 0.56],
    [0.10, 0.16, 0.16, 0.12, 0.18, 0.14, 0.08, 0.06],
]
# Rows: occupation; columns: secondary, vocational, bachelor, postgraduate.
_EDUCATION = [
    [0.52, 0.12, 0.28, 0.08],
    [0.03, 0.15, 0.50, 0.32],
    [0.02, 0.28, 0.35, 0.35],
    [0.01, 0.06, 0.57, 0.36],
    [0.10, 0.16, 0.48, 0.26],
    [0.34, 0.30, 0.31, 0.05],
    [0.27, 0.60, 0.11, 0.02],
    [0.40, 0.42, 0.14, 0.04],
    [0.30, 0.17, 0.43, 0.10],
    [0.36, 0.30, 0.23, 0.11],
]
# Rows: industry; columns: north, south, east, west, capital, islands.
_REGION = [
    [0.10, 0.12, 0.13, 0.20, 0.42, 0.03],
    [0.18, 0.18, 0.17, 0.17, 0.24, 0.06],
    [0.18, 0.18, 0.17, 0.17, 0.24, 0.06],
    [0.09, 0.12, 0.12, 0.13, 0.52, 0.02],
    [0.32, 0.12, 0.27, 0.18, 0.08, 0.03],
    [0.18, 0.19, 0.17, 0.17, 0.23, 0.06],
    [0.20, 0.28, 0.22, 0.17, 0.01, 0.12],
    [0.08, 0.12, 0.08, 0.18, 0.51, 0.03],
]
FIRST_AGE = {"under-18": 13, "18-24": 18, "25-34": 25, "35-44": 35, "45-54": 45, "55+": 55}
LAST_AGE = {"under-18": 17, "18-24": 24, "25-34": 34, "35-44": 44, "45-54": 54, "55+": 84}


@dataclass(frozen=True)
class People:
    """The hidden truth and what is seen of it; indices into the taxonomy, phrases and lists; -1: not given."""

    states: Ints
    """[users, 6] tag indices in the taxonomy's attribute order."""
    phrases: tuple[Ints, ...]
    """For each user, base phrase indices, oldest first."""
    self_age: Ints
    self_gender: Ints
    signature: Ints
    region: Ints


class World:
    """The generator's tables: phrases, mixture and prior, all derived from the constants above and `config`."""

    def __init__(self, config: WorldConfig) -> None:
        self.config = config
        self.taxonomy: Task = tasks.builtin("profile")
        raw = _phrases()
        self.topics: list[tuple[str, str]] = [
            (name, tag) for name in self.taxonomy.names for tag in self.taxonomy[name].tags
        ]
        self.phrases: list[str] = [p for name, tag in self.topics for p in raw["attributes"][name][tag]]
        self.phrases += raw["noise"]
        self.modifiers: list[str] = raw["modifiers"]
        self.regions: list[str] = raw["regions"]
        speaking = [(stage, text) for stage in self.taxonomy["life_stage"].tags for text in raw["signatures"][stage]]
        self.signatures: list[str] = [text for _, text in speaking] + raw["signatures"]["anyone"]
        self.speaking_stages = [stage for stage, _ in speaking]

    @cached_property
    def phrase_given_tag(self) -> dict[str, Floats]:
        """attribute -> [tags, phrases]: distribution of a keyphrase that speaks about the attribute."""
        within = self._phrase_given_topic
        result = {}
        for name in self.taxonomy.names:
            rows = [i for i, topic in enumerate(self.topics) if topic[0] == name]
            count = len(rows)
            share = np.full((count, count), (1.0 - OWN_SHARE) / (count - 1))
            np.fill_diagonal(share, OWN_SHARE)
            result[name] = share @ within[rows]
        return result

    @cached_property
    def _phrase_given_topic(self) -> Floats:
        raw = _phrases()["attributes"]
        table = np.zeros((len(self.topics), len(self.phrases)))
        start = 0
        for row, (name, tag) in enumerate(self.topics):
            count = len(raw[name][tag])
            table[row, start : start + count] = _zipf(count)
            start += count
        return table

    @cached_property
    def noise(self) -> Floats:
        """[phrases]: distribution of a keyphrase that says nothing."""
        count = len(_phrases()["noise"])
        return np.concatenate([np.zeros(len(self.phrases) - count), _zipf(count)])

    def phrase_given_state(self, states: Ints) -> Floats:
        """[states, phrases]: the mixture of noise and the six attributes."""
        noise_share = self.config.noise_share
        mixture = np.tile(noise_share * self.noise, (len(states), 1))
        for column, name in enumerate(self.taxonomy.names):
            weight = (1.0 - noise_share) * TOPIC_WEIGHTS[name]
            mixture += weight * self.phrase_given_tag[name][states[:, column]]
        return mixture

    @cached_property
    def all_states(self) -> Ints:
        """[19200, 6]: every joint state."""
        grids = np.meshgrid(*[np.arange(len(a.tags)) for a in self.taxonomy.attributes], indexing="ij")
        return np.stack([grid.ravel() for grid in grids], axis=1).astype(np.int64)

    def prior(self, states: Ints) -> Floats:
        """[states]: probability of each joint state."""
        age, gender, industry, occupation, education, stage = states.T
        return np.asarray(
            np.array(_AGE)[age]
            * np.array(_GENDER)[gender]
            * np.array(_OCCUPATION)[age, occupation]
            * np.array(_INDUSTRY)[occupation, industry]
            * np.array(_EDUCATION)[occupation, education]
            * np.array(_LIFE_STAGE)[age, stage]
        )

    @cached_property
    def self_age_given_age(self) -> Floats:
        """[age, reported age band]: a false report is any other band."""
        return _truthfulness_table(len(_AGE), SELF_AGE_TRUE)

    @cached_property
    def self_gender_given_gender(self) -> Floats:
        return _truthfulness_table(len(_GENDER), SELF_GENDER_TRUE)

    @cached_property
    def signature_given_stage(self) -> Floats:
        """[life stage, signatures]: some speak about the stage, the others are anyone's."""
        stages = self.taxonomy["life_stage"].tags
        own = np.array([[float(s == stage) for s in self.speaking_stages] for stage in stages])
        own *= SIGNATURE_SPEAKS / own.sum(axis=1, keepdims=True)
        anyone = len(self.signatures) - len(self.speaking_stages)
        return np.hstack([own, np.full((len(stages), anyone), (1.0 - SIGNATURE_SPEAKS) / anyone)])

    @cached_property
    def region_given_industry(self) -> Floats:
        return np.array(_REGION)


@cache
def build_world(config: WorldConfig = DEFAULT) -> World:
    """The world of a configuration; building it costs milliseconds, its tables are shared."""
    return World(config)


def draw(count: int, seed: int, config: WorldConfig = DEFAULT) -> People:
    """Draws `count` people. The same seed gives the same people."""
    world, random = build_world(config), np.random.default_rng([seed, 1])
    age = _choose(random, np.tile(_AGE, (count, 1)))
    gender = _choose(random, np.tile(_GENDER, (count, 1)))
    occupation = _choose(random, np.array(_OCCUPATION)[age])
    industry = _choose(random, np.array(_INDUSTRY)[occupation])
    education = _choose(random, np.array(_EDUCATION)[occupation])
    stage = _choose(random, np.array(_LIFE_STAGE)[age])
    states = np.stack([age, gender, industry, occupation, education, stage], axis=1)
    return People(
        states=states,
        phrases=_draw_phrases(world, states, random),
        self_age=_reveal_share(random, SELF_AGE_GIVEN, _choose(random, world.self_age_given_age[age])),
        self_gender=_reveal_share(random, SELF_GENDER_GIVEN, _choose(random, world.self_gender_given_gender[gender])),
        signature=_reveal_share(random, SIGNATURE_GIVEN, _choose(random, world.signature_given_stage[stage])),
        region=_reveal_share(random, REGION_GIVEN, _choose(random, world.region_given_industry[industry])),
    )


def _draw_phrases(world: World, states: Ints, random: np.random.Generator) -> tuple[Ints, ...]:
    """History lengths have a long tail; one person in a hundred has none."""
    count = len(states)
    median = world.config.median_keyphrases
    longest = round(LONGEST_HISTORY * median) + 2
    lengths = np.clip(np.round(np.exp(random.normal(np.log(median), 0.6, count))), 2, longest).astype(int)
    lengths[random.random(count) < 0.01] = 0
    owners = np.repeat(np.arange(count), lengths)
    drawn = np.empty(len(owners), dtype=np.int64)
    for start in range(0, len(owners), 20_000):
        part = slice(start, start + 20_000)
        drawn[part] = _choose(random, world.phrase_given_state(states[owners[part]]))
    return tuple(np.split(drawn, np.cumsum(lengths)[:-1]))


def _choose(random: np.random.Generator, probabilities: npt.ArrayLike) -> Ints:
    """One index for each row of [rows, choices] probabilities."""
    cumulative = np.cumsum(np.asarray(probabilities), axis=1)
    draws = random.random((len(cumulative), 1)) * cumulative[:, -1:]
    return np.asarray((draws > cumulative).sum(axis=1), dtype=np.int64)


def _reveal_share(random: np.random.Generator, share: float, values: Ints) -> Ints:
    return np.where(random.random(len(values)) < share, values, -1)


def _truthfulness_table(count: int, truth: float) -> Floats:
    table = np.full((count, count), (1.0 - truth) / (count - 1))
    np.fill_diagonal(table, truth)
    return table


def _zipf(count: int) -> Floats:
    weights = 1.0 / np.arange(1, count + 1) ** ZIPF_EXPONENT
    return np.asarray(weights / weights.sum())


@cache
def _phrases() -> dict[str, Any]:
    data: dict[str, Any] = yaml.safe_load((Path(__file__).parent / "phrases.yaml").read_text(encoding="utf-8"))
    return data
