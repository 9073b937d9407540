"""The world's exact posterior: what the best possible method would answer. Evaluation alone may read it."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from conf_profile.config import WorldConfig
from conf_profile.data.world.world import DEFAULT, People, World, build_world

Floats = npt.NDArray[np.float64]


def marginals(people: People, config: WorldConfig = DEFAULT, chunk: int = 512) -> dict[str, Floats]:
    """attribute -> [users, tags]: posterior probability of each tag given everything that is seen of a user."""
    world = build_world(config)
    states = world.all_states
    log_phrase = np.log(world.phrase_given_state(states)).astype(np.float32)
    log_prior = np.log(np.maximum(world.prior(states), 1e-30)).astype(np.float32)
    counts = _phrase_counts(people, len(world.phrases))
    parts: dict[str, list[Floats]] = {name: [] for name in world.taxonomy.names}
    for start in range(0, len(counts), chunk):
        rows = slice(start, start + chunk)
        log_joint = counts[rows] @ log_phrase.T + log_prior
        log_joint += _log_sign_up(world, people, rows)
        joint = np.exp(log_joint - log_joint.max(axis=1, keepdims=True))
        joint /= joint.sum(axis=1, keepdims=True)
        _collect(world, joint, parts)
    return {name: np.vstack(rows) for name, rows in parts.items()}


def _phrase_counts(people: People, phrase_count: int) -> npt.NDArray[np.float32]:
    counts = np.zeros((len(people.phrases), phrase_count), dtype=np.float32)
    for row, phrases in enumerate(people.phrases):
        np.add.at(counts[row], phrases, 1.0)
    return counts


def _log_sign_up(world: World, people: People, rows: slice) -> npt.NDArray[np.float32]:
    """[users, states]: log-likelihood of the sign-up data; what is not given says nothing."""
    states = world.all_states
    total = np.zeros((len(people.self_age[rows]), len(states)), dtype=np.float32)
    for seen, column, table in (
        (people.self_age, 0, world.self_age_given_age),
        (people.self_gender, 1, world.self_gender_given_gender),
        (people.signature, 5, world.signature_given_stage),
        (people.region, 2, world.region_given_industry),
    ):
        log_table = np.log(np.maximum(table, 1e-30)).astype(np.float32)
        log_table = np.hstack([log_table, np.zeros((len(table), 1), dtype=np.float32)])
        total += log_table[states[:, column]][:, seen[rows]].T
    return total


def _collect(world: World, joint: npt.NDArray[np.float32], parts: dict[str, list[Floats]]) -> None:
    shape = (len(joint), *(len(a.tags) for a in world.taxonomy.attributes))
    cube = joint.reshape(shape)
    for axis, name in enumerate(world.taxonomy.names, start=1):
        others = tuple(i for i in range(1, len(shape)) if i != axis)
        parts[name].append(cube.sum(axis=others).astype(np.float64))
