"""True labels in the forms in which people have them become `labels.parquet`, and what cannot be right is refused."""

import re

import pandas as pd
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from conf_profile import tables
from conf_profile.cli.main import cli
from conf_profile.errors import ConfigError, DataError
from conf_profile.ingest.ingest import ingest
from conf_profile.ingest.plan import make_plan, read_mapping

TASK = """\
attributes:
  家庭: [独居, 有孩子]
  age: ["1", "2, or more"]
"""
EXPECTED = [
    {"user_id": "007", "attribute": "age", "tag": "2, or more"},
    {"user_id": "007", "attribute": "家庭", "tag": "独居"},
    {"user_id": "8", "attribute": "age", "tag": "1"},
]
WIDE = 'uid,name,家庭,age\n007,Ann,独居,"2, or more"\n8,Bob,,1\n ,Eve,独居,1\n'
LONG = 'uid,attribute,tag\n8,age,1\n8,家庭, \n007,家庭, 独居\n007,age,"2, or more"\n007,age,"2, or more"\n'


@pytest.fixture
def place(tmp_path):
    (tmp_path / "e.csv").write_text("uid,ts,title\n007,2025-01-01,a\n8,2025-01-01,b\n9,2025-01-02,c\n")
    (tmp_path / "task.yaml").write_text(TASK, encoding="utf-8")
    return tmp_path


def run(place, text, **values):
    (place / "l.csv").write_text(text, encoding="utf-8")
    given = {
        "events": [str(place / "e.csv")], "user": "uid", "time": "ts", "text": "title", "consent_for_all": True,
        "task": str(place / "task.yaml"), "labels": str(place / "l.csv"),
    }  # fmt: skip
    return ingest(make_plan(given | values, place / "out"))


def refuse(place, message, text, error=DataError, **values):
    with pytest.raises(error, match=message):
        run(place, text, **values)
    assert not [path.name for path in place.iterdir() if "out" in path.name]


@pytest.mark.parametrize("labels", [WIDE, LONG])
def test_a_column_an_attribute_or_a_row_an_attribute(place, labels):
    report = run(place, labels)
    found = tables.read(place / "out" / "labels.parquet", tables.LABELS)
    assert sorted(found.to_pylist(), key=lambda row: (row["user_id"], row["attribute"])) == EXPECTED
    assert (report.labels, report.labelled_users) == (3, 2)
    assert "labels   3 labels of 2 users" in list(report.lines())


def test_integer_ids_and_tags_of_a_table(place):
    pd.DataFrame({"id": [8.0, 9.0], "age": [1, 1]}).to_parquet(place / "l.parquet")
    report = run(place, "", labels={"path": str(place / "l.parquet"), "user": "id"})
    assert pq.read_table(place / "out" / "labels.parquet").to_pylist() == [
        {"user_id": "8", "attribute": "age", "tag": "1"},
        {"user_id": "9", "attribute": "age", "tag": "1"},
    ]
    assert ("ids of labels written as whole numbers, 1.0 as '1'", 2) in [(n.what, n.count) for n in report.changed]


def test_labelled_users_without_events_are_counted(place):
    report = run(place, "uid,age\n8,1\n77,1\n")
    assert any(re.search(r"1 of 2 users in .*l\.csv have no event", warning) for warning in report.warnings)


BROKEN = {
    "uid,attribute,tag\n8,age,1\n8,age,3\n007,age,3\n": r"l\.csv: row 1 and 1 more: age has the tag '3', which is not "
    r"in the taxonomy; it has 1, 2, or more",
    "uid,attribute,tag\n8,height,1\n": r"row 0: attribute 'height' is not in the taxonomy; it has 家庭, age",
    'uid,age\n8,1\n8,"2, or more"\n': r"l\.csv: user '8' has the tags '1' and '2, or more' of age; keep the true one",
    "uid,height\n8,1\n": r"l\.csv: has uid, height; expected a column for each attribute of the task \(家庭, age\), or "
    r"the columns attribute and tag",
    "id,age\n8,1\n": r"l\.csv: lacks the column\(s\) uid; it has id, age",
    "uid,age\n8,\n": r"l\.csv: no row has a tag; leave --labels out, and the run is unjudged",
    "uid,age\nx8,1\n": r"l\.csv: none of its 1 users has an event; its ids look like 'x8': name the right column with",
}


@pytest.mark.parametrize("labels", BROKEN)
def test_what_cannot_be_right_is_refused_with_its_place(place, labels):
    refuse(place, BROKEN[labels], labels)


def test_ids_that_are_no_whole_numbers_are_refused(place):
    pd.DataFrame({"uid": [8.0, 9.5], "age": ["1", "1"]}).to_parquet(place / "l.parquet")
    refuse(place, r"l\.parquet: the column 'uid' has the number 9\.5", "", labels=str(place / "l.parquet"))


def test_labels_need_a_task_with_attributes(place):
    refuse(place, r"l\.csv: labels are tags of a task's attributes; name the task", WIDE, ConfigError, task=None)
    (place / "empty.yaml").write_text("instruction: You infer.\n")
    refuse(place, r"empty\.yaml: has no attributes", WIDE, task=str(place / "empty.yaml"))


def test_the_truth_among_the_fields_is_no_feature(place):
    """Nor does the message offer another name without saying what that would mean."""
    (place / "u.csv").write_text("uid,age\n007,1\n8,1\n9,1\n")
    refuse(place, r"the truth is no feature: leave it out with --name 'age='", WIDE, users=str(place / "u.csv"))


def test_a_mapping_names_them_relative_to_itself(place):
    (place / "l.csv").write_text(WIDE, encoding="utf-8")
    (place / "mapping.yaml").write_text(
        "events: [e.csv]\nuser: uid\ntime: ts\ntext: title\nconsent_for_all: true\ntask: task.yaml\nlabels: l.csv\n"
    )
    assert ingest(make_plan(read_mapping(place / "mapping.yaml"), place / "out")).labels == 3


def test_an_id_of_labels_without_labels_is_refused(place):
    result = CliRunner().invoke(cli, ["ingest", f"--events={place}", "--labels-id=x", f"--out={place / 'out'}"])
    assert result.exit_code == 2 and "--labels-id is a column of --labels, which is missing" in result.output


def test_a_column_with_a_slip_in_its_name_is_told(place):
    report = run(place, "uid,age,家\n8,1,独居\n")
    (warning,) = report.warnings
    assert warning.endswith("l.csv: no column is called 家庭, so there are no labels of it; other columns there: 家")
