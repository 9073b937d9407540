"""The labelling step: small Parquet files in, literal tables out, and a clear error for each broken rule."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from components.labelling.step import run
from conf_profile import tables
from conf_profile.config import LabellingConfig
from conf_profile.consensus import candidates as reading
from conf_profile.consensus import confidence
from conf_profile.dialogue import task as tasks
from conf_profile.dialogue.reasons import AnswerForm
from conf_profile.errors import DataError

TAXONOMY = tasks.parse({"attributes": {"age": ["young", "old"], "job": ["cook", "nurse", "pilot"]}})
ATTRIBUTES = ("age", "job")


def sample(user, number, age, job, rationale=None):
    """The rows of one completion; `age` and `job` are (tag, level), None for both makes it malformed."""
    given = dict(zip(ATTRIBUTES, (age, job), strict=True))
    well_formed = age is not None
    return [
        {
            "user_id": user,
            "sample": number,
            "attribute": name,
            "tag": given[name][0] if well_formed else None,
            "level": given[name][1] if well_formed else None,
            "rationale": rationale,
            "well_formed": well_formed,
        }
        for name in ATTRIBUTES
    ]


ANN = [
    *sample("ann", 0, ("old", 5), ("cook", 2), "roses; soup"),
    *sample("ann", 1, ("young", 2), ("nurse", 5), "memes"),
    *sample("ann", 2, ("young", 2), ("cook", 2), "soup; ; memes ; soup"),
]
BOB = [
    *sample("bob", 0, None, None),
    *sample("bob", 1, (None, 1), ("pilot", 3), "jets"),
    *sample("bob", 2, (None, 2), ("pilot", 4), "jets; maps"),
]


class Bench:
    """A folder with the step's inputs and outputs."""

    def __init__(self, folder: Path):
        self.folder = folder
        TAXONOMY.save(folder / "task.yaml")

    def write(self, rows, name="candidates.parquet", **options):
        path = self.folder / name
        table = rows if isinstance(rows, pa.Table) else tables.from_rows(rows, tables.CANDIDATES)
        pq.write_table(table, path, **options)
        return path

    def features(self, **splits):
        rows = [{"user_id": u, "split": s, "watch": [], "search": [], "submit": []} for u, s in splits.items()]
        path = self.folder / "features.parquet"
        tables.write(path, tables.from_rows(rows, tables.FEATURES), tables.FEATURES)
        return path

    def label(self, paths, vote="weighted", features=None, samples=3, block_rows=reading.BLOCK_ROWS):
        run(
            candidates=paths if isinstance(paths, list) else [paths],
            task_file=self.folder / "task.yaml",
            features=features,
            pseudo_labels=self.folder / "pseudo_labels.parquet",
            calibration=self.folder / "calibration.json",
            report=self.folder / "report.json",
            config=LabellingConfig(vote=vote),
            samples=samples,
            block_rows=block_rows,
        )
        return tables.read(self.folder / "pseudo_labels.parquet", tables.PSEUDO_LABELS).to_pylist()

    @property
    def report(self):
        return json.loads((self.folder / "report.json").read_text())


@pytest.fixture
def bench(tmp_path):
    return Bench(tmp_path)


def row(user, attribute, tag, support, level, votes, rationale):
    return {
        "user_id": user, "attribute": attribute, "tag": tag, "score": support / 15,
        "level": level, "votes": votes, "rationale": rationale,
    }  # fmt: skip


EXPECTED = [
    row("ann", "age", "old", 5, 3, 1, "roses; soup"),
    row("ann", "job", "nurse", 5, 2, 1, "memes"),
    row("bob", "job", "pilot", 7, 4, 2, "jets; maps"),
]


def test_the_report_counts_samples_by_how_they_were_read(bench):
    ann = [{**row, "form": AnswerForm.EXACT} for row in ANN]
    bob = [{**row, "form": AnswerForm.OTHER_FORM if row["well_formed"] else AnswerForm.CUT_OFF} for row in BOB]
    bench.label([bench.write(ann, "one.parquet"), bench.write(bob, "two.parquet", row_group_size=1)])
    assert bench.report["answers"] == {
        "forms": {AnswerForm.EXACT: 3, AnswerForm.OTHER_FORM: 2},
        "reasons": {AnswerForm.CUT_OFF: 1},
    }


def test_candidates_of_an_earlier_release_do_not_say_how_they_were_read(bench):
    older = tables.from_rows(ANN + BOB, tables.CANDIDATES).drop_columns(["form"])
    assert bench.label(bench.write(older)) == EXPECTED
    assert "answers" not in bench.report


def test_the_weighted_vote(bench):
    assert bench.label(bench.write(ANN + BOB)) == EXPECTED


def test_the_majority_and_the_most_cited_keyphrases_of_its_samples(bench):
    assert bench.label(bench.write(ANN + BOB), vote="majority") == [
        row("ann", "age", "young", 4, 3, 2, "memes; soup"),
        row("ann", "job", "cook", 4, 2, 2, "soup; roses; memes"),
        row("bob", "job", "pilot", 7, 4, 2, "jets; maps"),
    ]


def test_the_report(bench):
    bench.label(bench.write(ANN + BOB[:-1]))
    report = bench.report
    assert report.pop("disagreement") == pytest.approx({"age": 0.9182958, "job": 0.2896901})
    assert report.pop("balance") == {
        "before": pytest.approx({"age": 7 / 15, "job": 0.3}),
        "after": pytest.approx({"age": 0.8, "job": 0.3}),
    }
    assert report == {
        "users": 2,
        "attributes": ["age", "job"],
        "samples": 3,
        "vote": "weighted",
        "rows": 11,
        "missing_rows": 1,
        "malformed_share": 2 / 11,
        "pseudo_labels": 3,
        "unanswered": {"age": 1, "job": 0},
        "raw_levels": {"age": [0, 2, 0, 0, 1], "job": [0, 2, 1, 0, 1]},
        "calibrated_levels": {"age": [0, 0, 1, 0, 0], "job": [0, 1, 0, 1, 0]},
    }


def test_the_calibration_is_fitted_on_training_users_and_applied_to_all(bench):
    rows = [r for i, level in enumerate((1, 2, 3, 4, 5)) for r in sample(f"u{i}", 0, ("old", level), ("cook", level))]
    splits = {"u0": "train", "u1": "train", "u2": "test", "u3": "second_stage", "nobody": "train"}
    labels = bench.label(bench.write(rows), features=bench.features(**splits), samples=1)
    # Two training scores, 0.2 and 0.4: one boundary at 0.3 decides, as it would for nobody else's scores.
    assert [label["level"] for label in labels if label["attribute"] == "age"] == [2, 4, 4, 4, 4]
    fitted = confidence.load(bench.folder / "calibration.json", "teacher-vote")
    assert fitted.partitions["age"].boundaries[1:3] == pytest.approx((0.3, 0.3))


def many(users=40, samples=4, rationales=True):
    random = np.random.default_rng(0)
    rows = []
    for user in range(users):
        for number in range(samples):
            age = (random.choice(["young", "old", None]), int(random.integers(1, 6)))
            job = (random.choice(["cook", "nurse", "pilot", None]), int(random.integers(1, 6)))
            phrases = "; ".join(f"phrase {code}" for code in random.integers(6, size=3)) if rationales else None
            whole = random.random() > 0.1
            answers = (age, job) if whole else (None, None)
            rows += sample(f"user {user:02d}", number, *answers, phrases if whole else None)
    return rows


@pytest.mark.parametrize("rationales", [True, False])
@pytest.mark.parametrize("vote", ["weighted", "majority"])
def test_the_order_within_a_user_does_not_matter(bench, vote, rationales):
    rows = many(rationales=rationales)
    ordered = bench.label(bench.write(rows), vote, samples=4)
    report = bench.report
    assert any(label["rationale"] for label in ordered) == rationales
    random = np.random.default_rng(1)
    shuffled = [rows[8 * user + place] for user in range(40) for place in random.permutation(8)]
    assert bench.label(bench.write(shuffled), vote, samples=4) == ordered
    assert bench.report == report


def test_the_regular_layout_takes_the_short_way_and_others_do_not(bench):
    def is_regular(rows):
        whole = next(reading._whole_users(bench.write(rows), 99, 99))
        block = reading._block(whole, TAXONOMY, 4)
        shape = block.tags.shape
        attribute = reading._attributes(whole, TAXONOMY)
        return reading._is_regular(
            reading._starts(whole.codes("user_id")), attribute, reading._samples(whole, 4), shape
        )

    rows = many(users=3)
    assert is_regular(rows)
    assert not is_regular(rows[:-1])
    assert not is_regular([rows[1], rows[0], *rows[2:]])


@pytest.mark.parametrize("block_rows", [1, 8, 9, 50])
@pytest.mark.parametrize("row_group_size", [3, 8, 1000])
def test_neither_blocks_nor_row_groups_change_anything(bench, block_rows, row_group_size):
    rows = many()
    whole = bench.label(bench.write(rows), samples=4)
    report = bench.report
    split = bench.write(rows, row_group_size=row_group_size)
    assert bench.label(split, samples=4, block_rows=block_rows) == whole
    assert bench.report == report


def test_shards_are_one_table(bench):
    rows = many()
    whole = bench.label(bench.write(rows), samples=4)
    shards = [bench.write(rows[:80], "0.parquet"), bench.write([], "1.parquet"), bench.write(rows[80:], "2.parquet")]
    assert bench.label(shards, samples=4) == whole


def test_other_encodings_of_the_same_table_are_read(bench):
    table = tables.from_rows(ANN + BOB, tables.CANDIDATES)
    as_dictionary = table.set_column(
        2, "attribute", table.column("attribute").cast(pa.dictionary(pa.int8(), pa.string()))
    )
    as_large = as_dictionary.set_column(0, "user_id", table.column("user_id").cast(pa.large_string()))
    as_wide = as_large.set_column(4, "level", table.column("level").cast(pa.int64()))
    assert bench.label(bench.write(as_wide)) == EXPECTED


def test_a_rationale_column_of_nulls_alone_may_have_any_type(bench):
    table = tables.from_rows(ANN + BOB, tables.CANDIDATES)
    without = table.set_column(5, "rationale", pa.nulls(len(table)))
    assert bench.label(bench.write(without)) == [{**label, "rationale": None} for label in EXPECTED]


def test_at_most_eight_keyphrases(bench):
    rationale = "; ".join("abcdefghij")
    labels = bench.label(bench.write(sample("ann", 0, ("old", 5), ("cook", 5), rationale)), samples=1)
    assert labels[0]["rationale"] == "a; b; c; d; e; f; g; h"


def test_rationales_without_a_keyphrase_are_null(bench):
    labels = bench.label(bench.write(sample("ann", 0, ("old", 5), ("cook", 5), " ; ")), samples=1)
    assert [label["rationale"] for label in labels] == [None, None]


def test_one_sample(bench):
    labels = bench.label(bench.write(sample("ann", 0, ("old", 5), (None, 1))), samples=1)
    assert [(label["tag"], label["score"], label["level"]) for label in labels] == [("old", 1.0, 3)]


def test_all_samples_malformed_give_no_label_and_a_report(bench):
    assert bench.label(bench.write(sample("ann", 0, None, None) + sample("bob", 0, None, None))) == []
    report = bench.report
    assert report["malformed_share"] == 1.0
    assert report["unanswered"] == {"age": 2, "job": 2}
    assert report["disagreement"] == {"age": 0.0, "job": 0.0}


def changed(position, **columns):
    rows = [dict(entry) for entry in ANN + BOB]
    rows[position] |= columns
    return rows


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (changed(3, level=6), r"row 3 \(user 'ann'\): the level is 6; levels are 1 to 5"),
        (changed(3, level=0), r"row 3 \(user 'ann'\): the level is 0"),
        (changed(3, level=None), r"row 3 \(user 'ann'\): a tag without a level"),
        (changed(9, tag="king"), r"row 9 \(user 'bob'\): job has the tag 'king'.*it has: cook, nurse, pilot"),
        (changed(0, tag="cook"), r"row 0 \(user 'ann'\): age has the tag 'cook'"),
        (
            changed(4, attribute="hat"),
            r"row 4 \(user 'ann'\): attribute 'hat' is not in the taxonomy; it has: age, job",
        ),
        (changed(5, sample=3), r"row 5 \(user 'ann'\): sample 3 where 3 were asked for \(0 to 2\)"),
        (changed(5, sample=-1), r"row 5 \(user 'ann'\): sample -1"),
        (changed(5, sample=1), r"row 5 \(user 'ann'\): a second row for sample 1 of this user and attribute"),
        (ANN + BOB + ANN[:1], r"row 12: user 'ann' appears again \(first in .*candidates\.parquet: row 0\)"),
        ([], r"the table 'candidates' has no rows; run the synthesis step"),
    ],
)
@pytest.mark.parametrize("block_rows", [1, 1000])
def test_a_broken_rule_is_named_with_file_and_row(bench, rows, message, block_rows):
    with pytest.raises(DataError, match=rf"candidates\.parquet: .*{message}"):
        bench.label(bench.write(rows), block_rows=block_rows)
    assert sorted(path.name for path in bench.folder.iterdir()) == ["candidates.parquet", "task.yaml"]


def test_a_user_in_two_shards_is_named(bench):
    shards = [bench.write(ANN, "0.parquet"), bench.write(BOB + ANN, "1.parquet")]
    with pytest.raises(
        DataError, match=r"1\.parquet: row 6: user 'ann' appears again \(first in .*0\.parquet: row 0\)"
    ):
        bench.label(shards)


def test_more_rows_of_a_user_than_there_can_be(bench):
    with pytest.raises(DataError, match="user 'ann' has more than 6 rows, from row 0 on"):
        bench.label(bench.write(ANN * 3), block_rows=4)


@pytest.mark.parametrize("name", ["user_id", "well_formed"])
def test_empty_cells_are_named(bench, name):
    rows = pa.Table.from_pylist(
        changed(7, **{name: None}), schema=pa.schema([f.with_nullable(True) for f in tables.CANDIDATES.schema])
    )
    with pytest.raises(DataError, match=rf"candidates\.parquet: row 7 .*the column '{name}' is empty"):
        bench.label(bench.write(rows))


def test_columns_and_types_are_checked_before_anything_is_read(bench):
    table = tables.from_rows(ANN, tables.CANDIDATES)
    with pytest.raises(DataError, match=r"lacks the column\(s\) level"):
        bench.label(bench.write(table.drop_columns(["level"])))
    with pytest.raises(DataError, match="column 'level' of 'candidates' has the type string"):
        bench.label(bench.write(table.set_column(4, "level", table.column("level").cast(pa.string()))))


def test_files_that_are_missing_or_no_parquet_are_named(bench):
    with pytest.raises(DataError, match=r"none\.parquet: no such file"):
        bench.label(bench.folder / "none.parquet")
    (bench.folder / "text.parquet").write_text("user_id,sample")
    with pytest.raises(DataError, match=r"text\.parquet: cannot be read as Parquet"):
        bench.label(bench.folder / "text.parquet")
    with pytest.raises(DataError, match="no file: the table 'candidates' has no rows"):
        bench.label([])


def test_features_without_these_users_or_columns_are_named(bench):
    path = bench.write(ANN)
    with pytest.raises(DataError, match="no user with candidates is in split 'train'"):
        bench.label(path, features=bench.features(ann="test"))
    with pytest.raises(DataError, match=r"candidates\.parquet: cannot read user_id and split"):
        bench.label(path, features=path)


def test_a_failure_leaves_the_old_output_in_place(bench):
    before = bench.label(bench.write(ANN + BOB))
    with pytest.raises(DataError):
        bench.label(bench.write(changed(3, level=6)))
    after = tables.read(bench.folder / "pseudo_labels.parquet", tables.PSEUDO_LABELS).to_pylist()
    assert after == before
