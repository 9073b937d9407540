"""Calibration, metrics and thresholds over a caller's tables: literals, laws, and the evaluation step's own figures."""

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import conf_profile as cp
from conf_profile import tables
from conf_profile.consensus import confidence
from conf_profile.errors import DataError
from support.evaluation_world import CONFIG, World

USERS = ["u1", "u2", "u3", "u4"]


def make(tags, levels=None, scores=None, attribute="age", users=USERS):
    columns = {"user_id": users, "attribute": [attribute] * len(users), "tag": pa.array(tags, pa.string())}
    columns |= {} if levels is None else {"level": levels}
    return pa.table(columns | ({} if scores is None else {"score": scores}))


# Right at level 5, wrong at 3, no answer, right at 2.
PREDICTIONS = make(["old", "old", None, "young"], [5, 3, None, 2], [0.9, 0.5, None, 0.4])
LABELS = make(["old", "young", "old", "young"])


def lines(table):
    return {(row.pop("attribute"), row.pop("threshold")): row for row in table.to_pylist()}


def test_metrics_at_each_threshold():
    found = lines(cp.evaluate(PREDICTIONS, LABELS))
    assert list(found) == [(name, tau) for name in ("(all)", "age") for tau in (1, 2, 3, 4, 5)]
    assert [found["age", tau]["precision"] for tau in (1, 2, 3, 4, 5)] == pytest.approx([2 / 3, 2 / 3, 1 / 2, 1, 1])
    assert [found["age", tau]["recall"] for tau in (1, 2, 3, 4, 5)] == pytest.approx(
        [2 / 4, 2 / 4, 1 / 4, 1 / 4, 1 / 4]
    )
    assert [found["age", tau]["answered"] for tau in (1, 2, 3, 4, 5)] == [3, 3, 2, 1, 1]
    assert found["age", 1]["f1"] == pytest.approx(4 / 7)
    assert found["age", 1]["coverage"] == 3 / 4
    assert found["age", 1]["labelled"] == 4
    # |0.9 - 1|, |0.5 - 0| and |0.4 - 1|, each alone in its bin.
    assert found["age", 1]["calibration_error"] == pytest.approx((0.1 + 0.5 + 0.6) / 3)
    assert found["age", 5]["calibration_error"] == pytest.approx(0.1)
    assert [found["(all)", tau] for tau in (1, 2, 3, 4, 5)] == [found["age", tau] for tau in (1, 2, 3, 4, 5)]


def test_all_attributes_together_come_first():
    other = make(["cook"] * 4, [1] * 4, [0.5] * 4, attribute="job")
    labels = pa.concat_tables([LABELS, make(["cook", "nurse", "nurse", None], attribute="job")])
    found = lines(cp.evaluate(pa.concat_tables([PREDICTIONS, other]), labels))
    assert found["(all)", 1]["labelled"] == found["age", 1]["labelled"] + found["job", 1]["labelled"] == 7
    assert found["(all)", 1]["precision"] == pytest.approx(3 / 6)


def test_without_levels_there_is_one_threshold_and_without_scores_no_calibration_error():
    found = lines(cp.evaluate(PREDICTIONS.select(["user_id", "attribute", "tag"]), LABELS))
    assert list(found) == [("(all)", 1), ("age", 1)]
    assert found["age", 1]["precision"] == pytest.approx(2 / 3)
    assert found["age", 1]["calibration_error"] is None


def test_a_user_without_a_prediction_is_not_measured_and_an_attribute_without_one_is_not_answered():
    labels = pa.concat_tables([LABELS, make(["cook"] * 4, attribute="job"), make(["old"], users=["stranger"])])
    found = lines(cp.evaluate(PREDICTIONS, labels))
    assert found["age", 1]["labelled"] == 4
    assert ("job", 1) not in found
    fewer = pa.concat_tables([PREDICTIONS, make(["cook"], [1], [0.5], attribute="job", users=["u1"])])
    job = lines(cp.evaluate(fewer, labels))["job", 1]
    assert (job["precision"], job["recall"], job["labelled"], job["answered"]) == (1.0, 1 / 4, 4, 1)


def test_labels_may_have_tags_that_nobody_predicts_and_null_ones():
    found = lines(cp.evaluate(PREDICTIONS, make(["old", "middle", None, "young"])))["age", 1]
    assert (found["labelled"], found["answered"], found["precision"]) == (3, 3, pytest.approx(2 / 3))


def test_columns_of_the_labels_are_renamed_by_keyword():
    renamed = LABELS.rename_columns(["person", "question", "truth"])
    names = {"user_id": "person", "attribute": "question", "tag": "truth"}
    assert cp.evaluate(PREDICTIONS, renamed, **names).equals(cp.evaluate(PREDICTIONS, LABELS))
    assert cp.choose_thresholds(PREDICTIONS, renamed, precision=0.6, minimum_answered=1, **names) == {"age": 1}


def test_integer_ids_match_the_same_ids_as_text():
    numbered = PREDICTIONS.set_column(0, "user_id", [[1, 2, 3, 4]])
    text = LABELS.set_column(0, "user_id", [["1", "2", "3", "4"]])
    assert cp.evaluate(numbered, text).equals(cp.evaluate(PREDICTIONS, LABELS))


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (
            make(["old"] * 4, users=["u1.0", "u2.0", "u3.0", "u4.0"]),
            r"evaluate: no label matches a row of the predictions by its user_id \(labels: 'u1.0', 'u2.0', 'u3.0', "
            r"...; predictions: 'u1', 'u2', 'u3', ...\); write the ids of both tables in one form",
        ),
        (make(["old"] * 4, attribute="Age"), r"by its attribute \(labels: 'Age'; predictions: 'age'\)"),
        (make([None] * 4), r"by its user_id \(labels: none; "),
        (make(["old"] * 4, users=["u1", "u1", "u2", "u3"]), "'labels' has 2 rows for user_id=u1, attribute=age"),
    ],
)
def test_labels_that_cannot_be_right(labels, message):
    with pytest.raises(DataError, match=message):
        cp.evaluate(PREDICTIONS, labels)


def test_tags_that_are_written_differently_are_a_warning():
    with pytest.warns(
        UserWarning, match=r"no label of 'age' .*\(labels: 'Old', 'Young'; predictions: 'old', 'young'\)"
    ):
        found = cp.evaluate(PREDICTIONS, make(["Old", "Young", "Old", "Young"]))
    assert lines(found)["age", 1]["precision"] == 0.0


def test_a_label_outside_a_given_taxonomy_is_an_error():
    with pytest.raises(DataError, match=r"evaluate: labels: user 'u2' has the tag 'young'"):
        cp.evaluate(make(["old"] * 4), LABELS, taxonomy={"age": ["old", "middle"]})


def test_two_predictions_for_one_cell_are_an_error():
    with pytest.raises(DataError, match="'predictions' has 2 rows for user_id=u1, attribute=age; keep one of them"):
        cp.evaluate(pa.concat_tables([PREDICTIONS, PREDICTIONS.slice(0, 1)]), LABELS)


def test_thresholds_need_levels_and_a_precision_that_is_a_share():
    with pytest.raises(DataError, match=r"'predictions' lacks the column\(s\) level.*apply_calibration\(\) a level"):
        cp.choose_thresholds(make(["old"] * 4), LABELS, precision=0.8)
    with pytest.raises(DataError, match="precision is 80; it is a share from 0 to 1"):
        cp.choose_thresholds(PREDICTIONS, LABELS, precision=80)


def test_the_lowest_level_that_reaches_the_precision():
    assert cp.choose_thresholds(PREDICTIONS, LABELS, precision=0.6, minimum_answered=1) == {"age": 1}
    assert cp.choose_thresholds(PREDICTIONS, LABELS, precision=0.9, minimum_answered=1) == {"age": 4}
    assert cp.choose_thresholds(PREDICTIONS, LABELS, precision=0.9, minimum_answered=2) == {"age": 1}


def test_evaluation_measures_the_same_tables_alike(tmp_path):
    world = World(tmp_path)
    path = world.predict("sft", 0.7)
    expected = world.score({"sft": path})
    arm = expected["arms"]["sft"]
    split = dict(zip(world.users, world.split, strict=True))
    predictions, labels = tables.read(path, tables.PREDICTIONS), tables.read(tmp_path / "labels.parquet", tables.LABELS)
    of_split = pa.array([split[user] for user in predictions["user_id"].to_pylist()])
    test, validation = (predictions.filter(pa.compute.equal(of_split, name)) for name in ("test", "validation"))

    found = lines(cp.evaluate(test, labels, taxonomy=world.taxonomy, resamples=CONFIG.bootstrap, seed=0))
    for name, curve in {"(all)": arm["sweep"], **arm["sweep_per_attribute"]}.items():
        for point in curve:
            line = found[name, point["tau"]]
            assert {rate: line[rate] for rate in ("precision", "recall", "f1", "coverage")} == pytest.approx(
                {rate: point[rate] for rate in ("precision", "recall", "f1", "coverage")}
            )
    for name, figures in {"(all)": arm, **arm["per_attribute"]}.items():
        assert found[name, 1]["labelled"] == figures["support"]
        for rate in ("precision", "recall", "f1"):
            limits = [found[name, 1][f"{rate}_low"], found[name, 1][f"{rate}_high"]]
            assert limits == pytest.approx(figures[f"{rate}_ci"])
    assert found["(all)", 1]["calibration_error"] == pytest.approx(arm["ece"])
    chosen = cp.choose_thresholds(validation, labels, precision=CONFIG.target_precision, taxonomy=world.taxonomy)
    assert chosen == expected["thresholds"]


VOTES = st.lists(st.one_of(st.none(), st.floats(0, 1)), min_size=1, max_size=40)


def votes_of(scores):
    tags = [None if score is None else "old" for score in scores]
    return make(tags, scores=pa.array(scores, pa.float64()), users=[f"u{n}" for n in range(len(scores))])


@settings(deadline=None)
@given(VOTES)
def test_levels_rise_with_the_score_and_stand_beside_a_tag_only(scores):
    votes = votes_of(scores)
    levels = cp.apply_calibration(votes, cp.fit_calibration(votes))
    assert levels.drop_columns(["level"]).equals(votes)
    pairs = list(zip(scores, levels["level"].to_pylist(), strict=True))
    assert all((score is None) == (level is None) for score, level in pairs)
    ordered = [level for _, level in sorted(pair for pair in pairs if pair[0] is not None)]
    assert ordered == sorted(ordered)
    assert set(ordered) <= {1, 2, 3, 4, 5}


def test_a_calibration_fits_each_attribute_by_itself_and_is_the_pipelines_own(tmp_path):
    high = make(["cook"] * 5, scores=[0.5, 0.6, 0.7, 0.8, 0.9], attribute="job", users=range(5))
    low = make(["old"] * 5, scores=[0.1, 0.2, 0.3, 0.4, 0.5], users=range(5))
    votes = pa.concat_tables([high, low])
    calibration = cp.fit_calibration(votes)
    assert cp.apply_calibration(votes, calibration)["level"].to_pylist() == [1, 2, 3, 4, 5] * 2
    confidence.save(calibration, tmp_path / "calibration.json")
    assert confidence.load(tmp_path / "calibration.json", "teacher-vote") == calibration
    with pytest.raises(DataError, match="attribute 'job' has no calibration; it was fitted for: age"):
        cp.apply_calibration(votes, cp.fit_calibration(low))


def test_a_level_that_was_there_is_replaced_in_its_place():
    votes = make(["old"] * 4, [1, 1, 1, 1], [0.1, 0.2, 0.3, 0.4])
    levels = cp.apply_calibration(votes, cp.fit_calibration(votes))
    assert levels.column_names == votes.column_names
    assert levels["level"].to_pylist() == [1, 2, 4, 5]


def test_a_tag_without_a_score_has_no_level():
    votes = make(["old", "old"], scores=[0.5, None], users=["a", "b"])
    with pytest.raises(DataError, match="fit_calibration: row 1 of 'votes' has a tag without a score"):
        cp.fit_calibration(votes)
    with pytest.raises(DataError, match=r"apply_calibration: 'votes' lacks the column\(s\) score"):
        cp.apply_calibration(make(["old"] * 4), cp.fit_calibration(votes_of([0.5])))
