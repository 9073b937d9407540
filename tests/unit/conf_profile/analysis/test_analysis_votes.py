"""Votes over a caller's table: literals, laws, and what the pipeline's own step makes of the same samples."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import conf_profile as cp
from components.labelling.step import run
from conf_profile import tables
from conf_profile.config import LabellingConfig
from conf_profile.consensus import confidence
from conf_profile.consensus.voting import VOTES
from conf_profile.errors import ConfigError, DataError, TaxonomyError
from support.evaluation_world import World


def table(rows, names=("user_id", "attribute", "tag", "level")):
    return pa.table({name: list(values) for name, values in zip(names, zip(*rows, strict=True), strict=True)})


def elected(samples, *arguments, **options):
    """(user, attribute) -> (tag, score, votes, share)."""
    rows = cp.vote(samples, *arguments, **options).to_pylist()
    return {
        (row["user_id"], row["attribute"]): (row["tag"], round(row["score"], 9), row["votes"], row["share"])
        for row in rows
    }


ANN_AND_BOB = table(
    [
        ("bob", "job", "cook", 3),
        ("ann", "age", "old", 5),
        ("ann", "age", "young", 2),
        ("ann", "age", "young", 2),
        ("bob", "age", "young", 4),
        ("bob", "age", None, None),
        ("ann", "job", None, 2),
    ]
)


def test_one_row_for_each_user_and_attribute_that_was_asked_users_in_the_order_of_the_samples():
    assert cp.vote(ANN_AND_BOB).to_pylist() == [
        {"user_id": "bob", "attribute": "age", "tag": "young", "score": 4 / 15, "votes": 1, "share": 1.0},
        {"user_id": "bob", "attribute": "job", "tag": "cook", "score": 3 / 15, "votes": 1, "share": 1.0},
        {"user_id": "ann", "attribute": "age", "tag": "old", "score": 5 / 15, "votes": 1, "share": 1 / 3},
        {"user_id": "ann", "attribute": "job", "tag": None, "score": 0.0, "votes": 0, "share": 0.0},
    ]


def test_the_methods_are_the_votes_of_the_method():
    assert elected(ANN_AND_BOB, "majority")["ann", "age"][0] == "young"
    assert elected(ANN_AND_BOB, "weighted")["ann", "age"][0] == "old"
    with pytest.raises(ConfigError, match="vote 'best' does not exist; choose one of em, log_odds, majority"):
        cp.vote(ANN_AND_BOB, "best")


def test_the_score_divides_by_the_requested_samples_and_these_are_the_most_rows_of_a_cell_unless_given():
    assert elected(ANN_AND_BOB)["bob", "age"][1] == round(4 / 15, 9)
    assert elected(ANN_AND_BOB, sample_count=10)["bob", "age"][1] == 4 / 50
    with pytest.raises(DataError, match="user 'ann' has 3 samples of 'age', and sample_count is 2"):
        cp.vote(ANN_AND_BOB, sample_count=2)


def test_without_levels_answers_count_alike_and_the_score_is_the_share_of_the_requested_samples():
    samples = ANN_AND_BOB.drop_columns(["level"])
    assert elected(samples)["ann", "age"] == ("young", round(2 / 3, 9), 2, 2 / 3)
    assert elected(samples) == elected(samples, "majority")


@pytest.mark.parametrize("silence", [None, "", "  ", "unknown"])
def test_a_tag_that_says_nothing_is_no_answer(silence):
    samples = table([("ann", "age", silence, 5), ("ann", "age", "old", 1)])
    assert elected(samples) == {("ann", "age"): ("old", 0.1, 1, 1.0)}


def test_a_malformed_sample_is_no_answer_whatever_it_says():
    samples = table([("ann", "age", "old", 5), ("ann", "age", "young", 1)])
    assert elected(samples.append_column("well_formed", [[False, True]])) == {("ann", "age"): ("young", 0.1, 1, 1.0)}


def test_nobody_answered_on_an_attribute():
    assert elected(table([("ann", "age", None, None)])) == {("ann", "age"): (None, 0.0, 0, 0.0)}


def test_no_rows_give_no_rows():
    result = cp.vote(ANN_AND_BOB.slice(0, 0))
    assert result.num_rows == 0
    assert result.column_names == ["user_id", "attribute", "tag", "score", "votes", "share"]


def test_a_tie_goes_to_the_tag_that_is_first_as_text_or_in_the_taxonomy():
    samples = table([("ann", "age", "young", 3), ("ann", "age", "old", 3)])
    assert elected(samples)["ann", "age"][0] == "old"
    assert elected(samples, taxonomy={"age": ["young", "old"]})["ann", "age"][0] == "young"


def test_a_taxonomy_orders_the_attributes_and_refuses_what_it_does_not_have():
    both = {"job": ["cook", "nurse"], "age": ["young", "old"]}
    assert cp.vote(ANN_AND_BOB, taxonomy=both)["attribute"].to_pylist() == ["job", "age", "job", "age"]
    with pytest.raises(
        DataError, match=r"vote: user 'bob' has the attribute 'job' .* which the taxonomy does not have"
    ):
        cp.vote(ANN_AND_BOB, taxonomy={"age": ["young", "old"]})
    with pytest.raises(DataError, match=r"vote: user 'ann' has the tag 'old' \(attribute 'age'\)"):
        cp.vote(ANN_AND_BOB, taxonomy={**both, "age": ["young", "middle"]})
    with pytest.raises(TaxonomyError, match="vote: taxonomy: attribute 'age' needs a list of at least two tags"):
        cp.vote(ANN_AND_BOB, taxonomy={"age": ["young"]})


def test_a_tag_belongs_to_its_attribute():
    samples = table([("ann", "age", "a", 3), ("ann", "job", "b", 3)])
    with pytest.raises(DataError, match="has the tag 'b'"):
        cp.vote(samples, taxonomy={"age": ["a", "b"], "job": ["a", "c"]})


def test_columns_are_renamed_by_keyword_and_the_result_has_our_names():
    renamed = ANN_AND_BOB.rename_columns(["person", "question", "answer", "sureness"])
    names = {"user_id": "person", "attribute": "question", "tag": "answer", "level": "sureness"}
    assert cp.vote(renamed, **names).equals(cp.vote(ANN_AND_BOB))


def test_a_level_under_another_name_counts_only_where_it_is_named():
    renamed = ANN_AND_BOB.rename_columns({"level": "sureness"})
    assert elected(renamed)["ann", "age"][0] == "young"
    assert elected(renamed, level="sureness")["ann", "age"][0] == "old"
    with pytest.raises(DataError, match=r"vote\(level='sure'\): 'samples' lacks the column\(s\) sure; it has user_id"):
        cp.vote(renamed, level="sure")


TAGS = st.sampled_from(["a", "b", "c", None])
SAMPLES = st.lists(
    st.tuples(st.integers(0, 4), st.sampled_from(["x", "y"]), TAGS, st.integers(1, 5)), min_size=1, max_size=40
)


@settings(deadline=None)
@given(SAMPLES, st.sampled_from(sorted(VOTES)), st.randoms(use_true_random=False))
def test_the_order_of_the_rows_changes_no_vote(rows, method, random):
    before = elected(table(rows), method)
    random.shuffle(rows)
    after = elected(table(rows), method)
    assert before.keys() == after.keys()
    for cell, outcome in before.items():
        assert after[cell] == pytest.approx(outcome) if outcome[0] is not None else after[cell] == outcome


@settings(deadline=None)
@given(SAMPLES)
def test_a_vote_counts_what_stands_in_the_table(rows):
    requested = max(sum((user, name) == (u, n) for u, n, *_ in rows) for user, name, *_ in rows)
    for (user, name), (tag, score, votes, share) in elected(table(rows)).items():
        given = [(t, c) for u, n, t, c in rows if (u, n) == (user, name) and t is not None]
        sums = {t: sum(c for s, c in given if s == t) for t, _ in given}
        assert tag is None if not given else sums[tag] == max(sums.values())
        assert score == pytest.approx(sums.get(tag, 0) / (5 * requested))
        assert votes == sum(t == tag for t, _ in given)
        assert share == (votes / len(given) if given else 0.0)


@pytest.mark.parametrize("method", sorted(VOTES))
def test_the_pipeline_labels_the_same_candidates_alike(tmp_path, method):
    world = World(tmp_path)
    (shard, _) = world.candidates(0.5, samples=10)
    run(
        [shard], tmp_path / "task.yaml", None, tmp_path / "labels.pq", tmp_path / "calibration.json",
        tmp_path / "report.json", LabellingConfig(vote=method), samples=10,
    )  # fmt: skip
    expected = tables.read(tmp_path / "labels.pq", tables.PSEUDO_LABELS)

    votes = cp.vote(tables.read(shard, tables.CANDIDATES), method, taxonomy=world.taxonomy)
    levels = cp.apply_calibration(votes, cp.fit_calibration(votes)).filter(pa.compute.field("tag").is_valid())
    for column in ("user_id", "attribute", "tag", "score", "votes"):
        assert levels[column].to_pylist() == expected[column].to_pylist()
    # The step counts scores in steps of 1 / 50,000, so that a score at a boundary may change its level.
    assert np.mean(levels["level"].to_numpy() == expected["level"].to_numpy()) > 0.99
    stored = cp.apply_calibration(votes, confidence.load(tmp_path / "calibration.json"))
    assert stored.filter(pa.compute.field("tag").is_valid())["level"].to_pylist() == expected["level"].to_pylist()
