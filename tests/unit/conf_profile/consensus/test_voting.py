"""The votes: who wins, how ties are broken, what the score is."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from conf_profile.consensus.voting import LEARNED_VOTES, VOTES, disagreement, fit, tally, vote
from conf_profile.errors import ConfigError, DataError

TAGS = 4
COUNTING = sorted(set(VOTES) - LEARNED_VOTES)


def one(tags, levels, method, tag_count=TAGS):
    """The vote over one user's samples: (tag, score, votes, share)."""
    result = vote(np.array([tags]), np.array([levels]), tag_count, method)
    return int(result.tag[0]), float(result.score[0]), int(result.votes[0]), float(result.share[0])


def test_the_majority_counts_heads_and_the_weighted_vote_confidence():
    tags, levels = [0, 0, 0, 1, 1], [1, 1, 1, 4, 5]
    assert one(tags, levels, "majority") == (0, 3 / 25, 3, 0.6)
    assert one(tags, levels, "weighted") == (1, 9 / 25, 2, 0.4)


@pytest.mark.parametrize(
    ("method", "tags", "levels", "winner"),
    [
        ("majority", [2, 2, 1, 1], [1, 1, 1, 2], 1),  # equal votes: the larger confidence
        ("majority", [2, 2, 1, 1], [2, 1, 1, 2], 1),  # equal in both: the first in the taxonomy
        ("majority_blind", [2, 2, 1, 1], [5, 5, 1, 1], 1),  # equal votes: the first in the taxonomy
        ("weighted", [0, 3, 3], [4, 2, 2], 3),  # equal confidence: more votes
        ("weighted", [3, 2], [4, 4], 2),  # equal in both: the first in the taxonomy
    ],
)
def test_ties(method, tags, levels, winner):
    assert one(tags, levels, method)[0] == winner


@pytest.mark.parametrize("method", COUNTING)
def test_samples_without_an_answer_count_for_nothing_but_the_score_still_divides_by_them(method):
    assert one([-1, 2, -1, -1], [5, 3, 0, 0], method) == (2, 3 / 20, 1, 1.0)


@pytest.mark.parametrize("method", sorted(VOTES))
def test_nobody_answered(method):
    assert one([-1, -1], [0, 0], method) == (-1, 0.0, 0, 0.0)


@pytest.mark.parametrize("method", sorted(VOTES))
def test_one_sample_and_no_users(method):
    tag, score, votes, share = one([3], [5], method)
    assert (tag, votes, share) == (3, 1, 1.0)
    assert score == 1.0 if method in COUNTING else 0 < score <= 1
    none = vote(np.empty((0, 10), np.int64), np.empty((0, 10), np.int64), TAGS, method)
    assert none.tag.tolist() == none.score.tolist() == []


def test_each_user_is_judged_alone():
    result = vote(np.array([[0, 0], [1, 1], [-1, 2]]), np.array([[5, 5], [1, 2], [0, 4]]), TAGS)
    assert result.tag.tolist() == [0, 1, 2]
    assert result.score.tolist() == [1.0, 0.3, 0.4]
    assert result.votes.tolist() == [2, 2, 1]
    assert result.share.tolist() == [1.0, 1.0, 1.0]


def test_tally_sums_any_weights():
    tags = np.array([[0, 2, 2], [-1, 1, -1]])
    assert tally(tags, np.array([[0.5, 1.0, 0.25], [9.0, -1.5, 9.0]]), 3).tolist() == [[0.5, 0, 1.25], [0, -1.5, 0]]
    assert tally(tags, None, 3).tolist() == [[1, 0, 2], [0, 1, 0]]


def test_disagreement_runs_from_unanimous_to_spread_evenly():
    tags = np.array([[1, 1, 1, 1], [0, 1, 2, 3], [0, 0, 1, 1], [0, 1, -1, -1], [-1, -1, -1, -1]])
    assert disagreement(tags, 4)[:4] == pytest.approx([0.0, 1.0, 0.5, 0.5])
    assert np.isnan(disagreement(tags, 4)[4])


def test_wrong_arguments_are_named():
    answers = np.array([[0, 1]])
    with pytest.raises(
        ConfigError, match=r"vote 'best' does not exist; choose one of em, log_odds, majority, majority_blind, weighted"
    ):
        vote(answers, answers, TAGS, "best")
    with pytest.raises(DataError, match="tag numbers from 0 to 4"):
        vote(np.array([[0, 4]]), answers, TAGS)
    with pytest.raises(DataError, match="levels are 1 to 5"):
        vote(answers, np.array([[1, 6]]), TAGS)
    with pytest.raises(DataError, match=r"got \(1, 2\) and \(1, 1\)"):
        vote(answers, np.array([[1]]), TAGS)


ballots = st.integers(1, 8).flatmap(
    lambda samples: st.tuples(
        hnp.arrays(np.int64, (5, samples), elements=st.integers(-1, TAGS - 1)),
        hnp.arrays(np.int64, (5, samples), elements=st.integers(1, 5)),
        st.permutations(range(samples)),
    )
)


def same(first, second):
    return np.allclose(first.score, second.score, rtol=0, atol=1e-9) and all(
        np.array_equal(getattr(first, name), getattr(second, name)) for name in ("tag", "votes", "share")
    )


@given(ballots, st.sampled_from(sorted(VOTES)))
def test_the_order_of_the_samples_does_not_matter(drawn, method):
    tags, levels, order = drawn
    assert same(vote(tags, levels, TAGS, method), vote(tags[:, order], levels[:, order], TAGS, method))


@given(ballots, st.integers(1, 5))
def test_a_weighted_vote_with_equal_weights_is_the_majority(drawn, level):
    tags, levels, _ = drawn
    equal = np.full_like(levels, level)
    assert same(vote(tags, equal, TAGS, "weighted"), vote(tags, equal, TAGS, "majority"))


@given(ballots, st.sampled_from(COUNTING))
def test_a_vote_is_what_counting_by_hand_gives(drawn, method):
    tags, levels, _ = drawn
    result = vote(tags, levels, TAGS, method)
    for user in range(len(tags)):
        votes = [int((tags[user] == tag).sum()) for tag in range(TAGS)]
        support = [int(levels[user][tags[user] == tag].sum()) for tag in range(TAGS)]
        orders = {"majority": (votes, support), "majority_blind": (votes, votes), "weighted": (support, votes)}
        first, second = orders[method]
        winner = max(range(TAGS), key=lambda tag: (first[tag], second[tag], -tag)) if sum(votes) else -1
        assert result.tag[user] == winner
        assert result.score[user] == (support[winner] / (5 * tags.shape[1]) if sum(votes) else 0.0)


def answers_of(users, samples, accuracy, level, seed):
    """[users, samples] answers to the true tag 0 or 1: right with the tag's own accuracy, at the tag's own level."""
    random = np.random.default_rng(seed)
    truth = random.integers(0, 2, users)
    right = random.random((users, samples)) < np.array(accuracy)[truth][:, None]
    tags = np.where(right, truth[:, None], 1 - truth[:, None])
    return truth, tags, np.array(level)[tags]


def accuracy_of(method, truth, tags, levels):
    return float((vote(tags, levels, 2, method).tag == truth).mean())


def test_em_finds_the_tag_that_a_teacher_says_too_often_and_too_surely():
    # A teacher that says tag 1, at level 5, to most people of tag 0, and never says 0 to people of tag 1.
    truth, tags, levels = answers_of(3000, 10, accuracy=(0.45, 0.98), level=(3, 5), seed=0)
    assert accuracy_of("weighted", truth, tags, levels) < 0.7
    assert accuracy_of("em", truth, tags, levels) > 0.95


def test_log_odds_finds_the_level_that_means_nothing():
    # Level 5 is said at random and is right half of the time, level 2 is right nine times out of ten.
    random = np.random.default_rng(1)
    truth, levels = random.integers(0, 2, 3000), np.where(random.random((3000, 9)) < 0.5, 5, 2)
    right = random.random((3000, 9)) < np.where(levels == 5, 0.5, 0.9)
    tags = np.where(right, truth[:, None], 1 - truth[:, None])
    weights = fit(tags, levels, 2, "log_odds").evidence.weights
    assert weights[2] > 3 * weights[5]
    assert accuracy_of("log_odds", truth, tags, levels) > accuracy_of("weighted", truth, tags, levels) + 0.05


@given(ballots, st.sampled_from(sorted(LEARNED_VOTES)))
def test_a_learned_vote_elects_only_what_was_named_and_scores_it_within_bounds(drawn, method):
    tags, levels, _ = drawn
    result = vote(tags, levels, TAGS, method)
    for user, tag in enumerate(result.tag):
        assert tag in tags[user] or (tag == -1 and (tags[user] == -1).all())
    assert ((result.score >= 0) & (result.score <= 1)).all()


def test_what_was_fitted_on_some_users_elects_for_others():
    _, tags, levels = answers_of(500, 10, accuracy=(0.45, 0.98), level=(3, 5), seed=2)
    voter = fit(tags, levels, 2, "em")
    truth, others, their_levels = answers_of(500, 10, accuracy=(0.45, 0.98), level=(3, 5), seed=3)
    assert (voter.elect(others, their_levels).tag == truth).mean() > 0.95
    assert same(voter.elect(tags, levels), vote(tags, levels, 2, "em"))
