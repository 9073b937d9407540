"""The generated world: reproducible, its posterior exact, its lexicon and prompts free of labels."""

import numpy as np
import pytest

from conf_profile import tables
from conf_profile.config import LexiconConfig, WorldConfig
from conf_profile.data.world import files as world_files
from conf_profile.data.world import posterior as world_posterior
from conf_profile.data.world import world
from conf_profile.data.world.world import build_world


@pytest.fixture(scope="module")
def people():
    return world.draw(4000, seed=3)


@pytest.fixture(scope="module")
def posterior(people):
    return world_posterior.marginals(people)


def test_the_same_seed_gives_the_same_people():
    first, second = world.draw(50, 1), world.draw(50, 1)
    assert np.array_equal(first.states, second.states)
    assert all(map(np.array_equal, first.phrases, second.phrases))
    assert not np.array_equal(first.states, world.draw(50, 2).states)


def test_distributions_sum_to_one():
    the = build_world()
    assert the.prior(the.all_states).sum() == pytest.approx(1.0)
    assert np.allclose(the.phrase_given_state(the.all_states[:100]).sum(axis=1), 1.0)


def test_the_posterior_is_calibrated_so_it_is_exact(people, posterior):
    """Of the answers given with probability p, a share p is right; nothing else proves an exact posterior so well."""
    for column, name in enumerate(build_world().taxonomy.names):
        best, sure = posterior[name].argmax(axis=1), posterior[name].max(axis=1)
        right = best == people.states[:, column]
        standard_error = np.sqrt((sure * (1 - sure)).sum()) / len(sure)
        assert abs(right.mean() - sure.mean()) < 4 * standard_error


def test_there_is_a_long_tail_and_there_are_empty_histories(people):
    lengths = np.array([len(phrases) for phrases in people.phrases])
    assert (lengths == 0).any()
    assert lengths.max() > 4 * np.median(lengths)


def test_the_files_hold_no_truth_where_training_looks(tmp_path):
    data = world_files.build(tmp_path, 60, seed=0)
    behaviour = tables.read(data.behaviour, tables.BEHAVIOUR)
    demographics = tables.read(data.demographics, tables.DEMOGRAPHICS)
    labels = tables.read(data.labels, tables.LABELS)
    assert set(behaviour.column_names) & {"tag", "age", "gender"} == set()
    assert "tag" not in demographics.column_names
    assert len(labels) == 60 * 6
    assert set(demographics.column("user_id").to_pylist()) == set(labels.column("user_id").to_pylist())
    # A file that speaks of the truth must not change what features depend on.
    assert data.labels_digest() != data.digest()


def test_some_self_reports_are_missing_and_some_are_false(people):
    given = people.self_age >= 0
    assert 0.3 < given.mean() < 0.6
    assert 0.05 < (people.self_age[given] != people.states[given, 0]).mean() < 0.3


def test_the_lexicon_is_the_same_every_time_and_another_seed_is_another_teacher():
    known = [world_files.lexicon(build_world(), LexiconConfig(seed=seed)) for seed in (7, 7, 8)]
    assert known[0] == known[1] != known[2]


def test_a_teacher_can_be_made_better_and_more_sure_than_it_should_be():
    perfect = LexiconConfig(gaps=0.0, noise=0.0, leaning=0.0, overconfident_tags=1.0, overconfidence=4)
    found = world_files.lexicon(build_world(), perfect)
    assert set(found["prior"]["age"].values()) == {0.0}
    assert set(found["overconfidence"]["gender"].values()) == {4}
    usual = world_files.lexicon(build_world(), LexiconConfig())
    assert len(found["entries"]) > len(usual["entries"])


def test_noise_and_length_of_the_histories_can_be_chosen():
    long, quiet = WorldConfig(median_keyphrases=60), WorldConfig(noise_share=0.0)
    lengths = [np.median([len(p) for p in world.draw(400, 1, config).phrases]) for config in (long, WorldConfig())]
    assert lengths[0] > 3 * lengths[1]
    states = build_world().all_states[:5]
    assert build_world(quiet).phrase_given_state(states).sum(axis=1) == pytest.approx(1.0)
    assert (build_world(quiet).phrase_given_state(states)[:, build_world().noise > 0] == 0).all()
