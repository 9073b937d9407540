"""What cannot be right ends in a message with the place and the remedy, and nothing is half-written."""

import gzip
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from click.testing import CliRunner

from conf_profile.cli.main import cli
from conf_profile.errors import ConfigError, ConfProfileError, DataError
from conf_profile.ingest.ingest import ingest
from conf_profile.ingest.plan import make_plan, read_mapping

HEADER = "uid,ts,kind,title\n"
GOOD = HEADER + "7,2025-01-01T00:00:00Z,watch,a\n8,2025-01-01T00:00:00Z,search,b\n"


def run(folder, *events, **values):
    columns = {"user": "uid", "time": "ts", "text": "title", "kind": "kind", "consent_for_all": True}
    given = {name: value for name, value in (columns | values).items() if value is not None}
    return ingest(make_plan({"events": [str(folder / event) for event in events], **given}, folder / "out"))


def refuse(folder, message, *events, error=DataError, **values):
    with pytest.raises(error, match=message) as refusal:
        run(folder, *events, **values)
    assert not [path.name for path in folder.iterdir() if "out" in path.name]
    return str(refusal.value)


def write_table(path, **columns):
    size = len(next(iter(columns.values())))
    plain = {"uid": ["7"] * size, "ts": ["2025-01-01T00:00:00Z"] * size, "kind": ["a"] * size, "title": ["b"] * size}
    pq.write_table(pa.table(plain | columns), path)


TEXTS = {
    # the file's text, what the message says after its place
    "uid,ts,title\n7,2025-01-01,a\n": r"e\.csv: lacks the column\(s\) kind; it has uid, ts, title",
    "uid,ts,kinds,name\n7,2025-01-01,a,b\n": r"lacks the column\(s\) title, kind; it has .*; did you mean kinds\?",
    "UID,ts,kind,title\n7,2025-01-01,a,b\n": r"lacks the column\(s\) uid; it has UID, .*; did you mean UID\?",
    "uid,ts,kind,title,uid\n7,2025-01-01,a,b,8\n": r"e\.csv: two columns are called 'uid'; rename one",
    GOOD + "9,2025-01-01T00:00:00Z,watch,a, b\n": r"e\.csv: line 4 has 5 fields, the header has 4; quote texts",
    GOOD + "9,2025-01-01T00:00:00Z\n": r"e\.csv: line 4 has 2 fields, the header has 4",
    GOOD + '9,2025-01-01T00:00:00Z,watch,"a\n': r"e\.csv: line 4 has a quote that is not closed",
    HEADER: r"no event can be used: the files have no row$",
    HEADER + "7,03/14/2025,a,b\n": r"that can be read: 1 .*; name the right columns .*another form than ISO: --time-f",
    HEADER + "1.0,2025-01-01,a,b\n7.5,2025-01-01,a,b\n": r"every id is a number, but '7\.5' is no whole one; name the",
    HEADER + "7,soon,a,b\n7,2025-01-01,a,b\n": r"50% of the texts cannot be used: texts without a time that can be "
    r"read: 1 \(first: .*e\.csv: row 0\); put them right.*--time-format\), or allow as many with --max-dropped 0.51",
    HEADER + "7,2099-01-01,a,b\n7,2025-01-01,a,b\n": r"50% of the texts cannot be used: texts in the future: 1",
    HEADER + " ,2025-01-01,a,b\nnan,2025-01-01,a,b\n": r"no event can be used: texts without a user id: 2",
    HEADER + "7,2025-01-01,a,\n7,2025-01-01,a,\u200c\n": r"no event can be used: blank texts: 2 \(first: .*row 0",
    HEADER + "7,20250101,a,b\n": r"no event can be used: texts without a time that can be read: 1",
    HEADER + "7,1735689600,a,b\n7,1735689600000,a,b\n": r"are 1 times in seconds since 1970, 1 times in milli",
    HEADER + "".join(f"7,2025-01-01,k{n},b\n" for n in range(51)): r"name 51 kinds of events, more than 50; each would",
    HEADER + "7,2025-01-01,A b,x\n7,2025-01-01,a-b,y\n": r"'A b' and 'a-b' would both be the feature 'a_b'",
    HEADER + "7,2025-01-01,consent,x\n": r"'consent' would be the feature 'consent', which is a column",
}  # fmt: skip


@pytest.mark.parametrize("text", TEXTS, ids=range(len(TEXTS)))
def test_a_file_that_cannot_be_right(tmp_path, text):
    (tmp_path / "e.csv").write_text(text, encoding="utf-8")
    refuse(tmp_path, TEXTS[text], "e.csv")


COLUMNS = [
    (
        {"uid": [7.0, 7.5]},
        r"e\.parquet: row 1: the column 'uid' has the number 7.5, which is no whole number.*as integers",
    ),
    ({"uid": [7.0, 2.0**53]}, r"e\.parquet: row 1: .*too large to be exact"),
    ({"uid": [[7], [8]]}, r"the column 'uid' has the type BIGINT\[\]; ids are texts or whole numbers"),
    ({"uid": [True, False]}, r"the column 'uid' has the type BOOLEAN; ids"),
    ({"title": [1, 2]}, r"the column 'title' has the type BIGINT; keyphrases are texts, or lists of texts: join"),
    ({"title": [[1], [2]]}, r"the column 'title' has the type BIGINT\[\]; keyphrases"),
    ({"title": [{"a": 1}, {"a": 2}]}, r"the column 'title' has the type STRUCT.*; keyphrases"),
    ({"kind": [[["a"]], [["b"]]]}, r"the column 'kind' has the type .*; kinds are texts"),
    ({"ts": [True, True]}, r"the column 'ts' has the type BOOLEAN; times are timestamps, days, ISO texts or numbers"),
    ({"ts": [np.nan, np.nan]}, r"no event can be used: texts without a time that can be read: 2"),
    (
        {"title": ["a", "x" * (2 << 20)]},
        r"e\.parquet: row 1: a text of more than 1 MiB, one of 1; a keyphrase is short",
    ),
]


@pytest.mark.parametrize(("columns", "message"), COLUMNS, ids=range(len(COLUMNS)))
def test_a_column_that_cannot_be_right(tmp_path, columns, message):
    write_table(tmp_path / "e.parquet", **columns)
    refuse(tmp_path, message, "e.parquet")


def test_a_column_that_is_missing_in_one_of_many_files(tmp_path):
    for number in range(3):
        write_table(tmp_path / f"e{number}.parquet", uid=["7"])
    pq.write_table(pq.read_table(tmp_path / "e1.parquet").drop_columns(["title"]), tmp_path / "e1.parquet")
    refuse(tmp_path, r"e1\.parquet: lacks the column\(s\) title; it has uid, ts, kind", "e*.parquet")


def test_types_that_clash_between_files(tmp_path):
    write_table(tmp_path / "a.parquet", uid=["7"])
    write_table(tmp_path / "b.parquet", uid=[7], title=[["x"]])
    message = refuse(tmp_path, "write it alike in every file", "*.parquet")
    assert "b.parquet: the column 'uid' has the type BIGINT, " in message and "a.parquet has VARCHAR" in message
    assert len(message.splitlines()) == 2  # text and list of texts, too


def test_numbers_with_and_without_a_point_do_not_clash(tmp_path):
    write_table(tmp_path / "a.parquet", uid=[7])
    write_table(tmp_path / "b.parquet", uid=[7.0, np.nan] + [8.0] * 20)
    report = run(tmp_path, "*.parquet")
    assert (report.users, report.dropped[0].count) == (2, 1)


def test_a_file_that_is_cut_off(tmp_path):
    write_table(tmp_path / "e.parquet", uid=["7"])
    (tmp_path / "e.parquet").write_bytes((tmp_path / "e.parquet").read_bytes()[:200])
    refuse(tmp_path, r"e\.parquet: cannot be read: .*; write the file again, or leave it out", "e.parquet")


def test_json_that_is_none(tmp_path):
    (tmp_path / "e.jsonl").write_text('{"uid": 7, "ts": "2025-01-01", "kind": "a", "title": "b"}\n{"uid": 8,\n')
    refuse(tmp_path, r"e\.jsonl: line \d cannot be read as JSON: .*; write one object a line", "e.jsonl")


def test_json_with_objects_for_texts(tmp_path):
    (tmp_path / "e.jsonl").write_text(json.dumps({"uid": 7, "ts": "2025-01-01", "kind": "a", "title": {"de": "b"}}))
    refuse(tmp_path, r"the column 'title' has the type STRUCT", "e.jsonl")


@pytest.mark.parametrize(("encoding", "said"), [("latin-1", "line 2 is not UTF-8"), ("utf-16", "is not UTF-8 text")])
def test_text_that_is_not_utf_8(tmp_path, encoding, said):
    (tmp_path / "e.csv").write_text("uid,ts,kind,title\n7,2025-01-01,a,café\n", encoding=encoding)
    refuse(tmp_path, rf"e\.csv: {said}; convert .*iconv", "e.csv")


CELL = "x" * 100_000_000


@pytest.mark.parametrize("cell", [CELL, f'"{CELL}"', f'"{CELL}'], ids=["plain", "quoted", "unclosed"])
@pytest.mark.parametrize("below", ["", GOOD.removeprefix(HEADER)], ids=["last", "between"])
def test_a_cell_of_a_hundred_megabytes(tmp_path, cell, below):
    (tmp_path / "e.csv").write_text(f"{GOOD}9,2025-01-01,a,{cell}\n{below}")
    assert len(refuse(tmp_path, r"e\.csv: the line at byte 1048576 is longer than 1 MB; look for", "e.csv")) < 300


def test_such_a_cell_in_other_formats(tmp_path):
    (tmp_path / "e.jsonl").write_text(f'{{"uid": 7, "ts": "2025-01-01", "kind": "a", "title": "{CELL}"}}\n')
    refuse(tmp_path, r"e\.jsonl: line with an object of more than 16 MB; look for the wrong file", "e.jsonl")
    (tmp_path / "e.csv.gz").write_bytes(gzip.compress(f"{GOOD}9,2025-01-01,a,{CELL}".encode(), 1))
    refuse(tmp_path, r"e\.csv\.gz: the line at byte 1048576 is longer than 1 MB", "e.csv.gz")
    columns = {"uid": ["7", "7"], "ts": ["2025-01-01"] * 2, "kind": ["a"] * 2, "title": ["b", CELL]}
    pq.write_table(pa.table(columns), tmp_path / "e.parquet", compression="none", use_dictionary=False)
    refuse(tmp_path, r"e\.parquet: row 1: a text of more than 1 MiB, one of 1; a keyphrase is short", "e.parquet")


@pytest.mark.parametrize("size", [1_500_000, 2_500_000])
def test_no_long_line_is_lost(tmp_path, size):
    """Where DuckDB's buffer ends in it, at 32 MB, a line of the second size would be."""
    row = f"7,2025-01-01,a,{'y' * 1000}\n"
    (tmp_path / "e.csv").write_text(
        HEADER + row * ((32_000_000 - size // 2) // len(row)) + f"9,2025-01-01,a,{'x' * size}"
    )
    refuse(tmp_path, r"e\.csv: (row \d+: a text of more than 1 MiB|the line at byte \d+ is longer than 1 MB)", "e.csv")


def test_long_texts_are_cut_between_characters(tmp_path):
    family = "👨‍👩‍👧"
    write_table(tmp_path / "e.parquet", title=[family * 1500])
    report = run(tmp_path, "e.parquet")
    (row,) = pq.read_table(tmp_path / "out" / "behaviour.parquet").to_pylist()
    assert row["a"] == [family * 1000]
    assert [(note.what, note.count) for note in report.changed] == [("texts cut to 1000 characters", 1)]


def test_a_few_bad_rows_are_counted_with_their_first_place(tmp_path):
    rows = "".join(f"{n % 7},2025-01-01T00:00:00Z,a,b\n" for n in range(96))
    (tmp_path / "e.csv").write_text(
        "uid,ts,kind,title\n" + rows + ",2025-01-01,a,b\n7,never,a,b\n7,2025-01-01,,b\n7,2025,a,\n"
    )
    report = run(tmp_path, "e.csv")
    place = tmp_path / "e.csv"
    assert [(note.what, note.count, note.first) for note in report.dropped] == [
        ("texts without a user id", 1, f"{place}: row 96"),
        ("texts without a time that can be read", 2, f"{place}: row 97"),
        ("texts without a kind", 1, f"{place}: row 98"),
    ]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"consent_for_all": None},
            "nobody's consent is known: name the column of --users .* or say with --consent-for-all",
        ),
        ({"users": {"path": "u.csv"}, "consent_for_all": None}, "nobody's consent is known"),
        ({"users": {"path": "u.csv", "consent": "ok"}}, "--consent ok and --consent-for-all contradict each other"),
        ({"user": None, "text": None}, "--user and --text not given; name the columns"),
        ({"text": ["a", "b"]}, "--kind and several --text contradict each other"),
        ({"text": "uid"}, "the column 'uid' is named twice"),
        ({"snapshot": "hourly"}, "snapshot: Input should be 'last'"),
        ({"keyphrases": 0}, "keyphrases: Input should be greater"),
        ({"as_of": "soon"}, "as_of: "),
    ],
)
def test_options_that_contradict_or_are_missing(tmp_path, values, message):
    (tmp_path / "e.csv").write_text(GOOD)
    refuse(tmp_path, message, "e.csv", error=ConfigError, **values)


def test_without_events(tmp_path):
    with pytest.raises(ConfigError, match="no events: name files, folders or s3:// addresses with --events"):
        make_plan({"consent_for_all": True}, tmp_path / "out")


@pytest.mark.parametrize(
    ("name", "message"),
    [("nowhere", "there is no such file or folder"), ("empty.csv", "is empty"), ("picture.png", "is of no known kind"),
     ("folder", r"no file to read there; expected .parquet.*; of other kinds, or empty: .*folder/x\.png")],
)  # fmt: skip
def test_places_with_nothing_to_read(tmp_path, name, message):
    (tmp_path / "empty.csv").write_text("")
    (tmp_path / "picture.png").write_text("x")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "x.png").write_text("x")
    refuse(tmp_path, message, name)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (
            {"buy": "bought"},
            "--name 'buy': no event is of this kind, and no field is called so; there are search, watch",
        ),
        ({"watch": None, "search": None}, "every kind of event is left out by --name"),
        ({"watch": "search"}, "'search' and 'watch' would both be|'watch' and 'search' would both be"),
    ],
)
def test_names_for_nothing(tmp_path, names, message):
    (tmp_path / "e.csv").write_text(GOOD)
    refuse(tmp_path, message, "e.csv", names=names)


def test_a_feature_like_an_attribute(tmp_path):
    (tmp_path / "e.csv").write_text(GOOD)
    (tmp_path / "task.yaml").write_text("attributes: {watch: [a, b]}")
    refuse(
        tmp_path,
        r"'watch' would be the feature 'watch', which is an attribute of",
        "e.csv",
        task=str(tmp_path / "task.yaml"),
    )


USERS = [
    ("uid,ok\nx7,yes\nx8,no\n", r"u\.csv: none of its 2 users has an event.*like '7', ids there like 'x7'; name"),
    ("uid,ok\n7,ann@example.com\n8,no\n", r"u\.csv: row 0: the column 'ok' says neither yes nor no; write true"),
    ("uid,ok,plan\n7,yes,a\n7,yes,b\n", r"u\.csv: user '7' has 2 different rows; name the column with .*--users-time"),
    ("uid,ok\n7.0,yes\nabc,no\n", r"u\.csv: user '7.0' is '7' in the events, with another \.0; write ids alike in"),
    ("uid,ok\n007,yes\n8,no\n", r"u\.csv: user '007' is '7' in the events, with other zeros before it; write ids"),
    ("uid,ok\n,yes\n7,no\n", r"u\.csv: 1 of 2 rows have no id, the first is .*u\.csv: row 0"),
    ("uid,ok\n", r"u\.csv: 0 of 0 rows have no id, the first is none: there are no rows"),
    ("uid\n7\n", r"u\.csv: lacks the column\(s\) ok"),
    ("uid,ok,watch\n7,yes,a\n8,yes,a\n", r"'watch' and 'watch' would both be the feature 'watch'"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "message"), USERS, ids=range(len(USERS)))
def test_users_that_cannot_be_right(tmp_path, text, message):
    (tmp_path / "e.csv").write_text(GOOD)
    (tmp_path / "u.csv").write_text(text)
    users = {"path": str(tmp_path / "u.csv"), "consent": "ok"}
    refuse(tmp_path, message, "e.csv", users=users, consent_for_all=None)


def test_ids_that_pandas_has_given_a_point_in_one_table_are_those_of_the_other(tmp_path):
    (tmp_path / "e.csv").write_text(GOOD)
    (tmp_path / "u.csv").write_text("uid,ok\n7.0,yes\n8.0,no\n")
    report = run(tmp_path, "e.csv", users={"path": str(tmp_path / "u.csv"), "consent": "ok"}, consent_for_all=None)
    assert report.users_in_both == 2
    assert [str(note) for note in report.changed] == ["ids of users written as whole numbers, 1.0 as '1': 2"]


def test_equal_rows_of_a_user_are_one(tmp_path):
    (tmp_path / "e.csv").write_text(GOOD)
    (tmp_path / "u.csv").write_text("uid,ok\n7,yes\n7,yes\n")
    run(tmp_path, "e.csv", users={"path": str(tmp_path / "u.csv"), "consent": "ok"}, consent_for_all=None)
    assert len(pq.read_table(tmp_path / "out" / "demographics.parquet")) == 1


def test_a_folder_that_is_not_empty_is_not_touched(tmp_path):
    (tmp_path / "e.csv").write_text(GOOD)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("x")
    with pytest.raises(DataError, match=r"out: is not empty; name a new folder with --out, or delete this one first"):
        run(tmp_path, "e.csv")
    (tmp_path / "out" / "mine").unlink()
    run(tmp_path, "e.csv")  # an empty one is taken
    assert (tmp_path / "out" / "behaviour.parquet").is_file()


def test_a_file_in_the_place_of_the_folder(tmp_path):
    (tmp_path / "e.csv").write_text(GOOD)
    (tmp_path / "out").write_text("x")
    with pytest.raises(DataError, match=r"out: is a file; name a new folder"):
        run(tmp_path, "e.csv")
    assert (tmp_path / "out").read_text() == "x"


def test_a_parent_that_is_a_file(tmp_path):
    (tmp_path / "e.csv").write_text(GOOD)
    with pytest.raises(DataError, match=r"cannot be read or written: Not a directory"):
        ingest(make_plan({"events": [str(tmp_path / "e.csv")], "user": "uid", "time": "ts", "text": "title",
                          "consent_for_all": True}, tmp_path / "e.csv" / "out"))  # fmt: skip


@pytest.mark.parametrize(
    ("text", "message"),
    [("event: x", "event: there is no such key"), ("{", "not valid YAML"), ("events: {path: x}", "events: "),
     ("events: [{user: x}]", "path: Field required")],
)  # fmt: skip
def test_a_mapping_that_is_none(tmp_path, text, message):
    (tmp_path / "m.yaml").write_text(text)
    with pytest.raises(ConfigError, match=rf"m\.yaml: .*{message}"):
        read_mapping(tmp_path / "m.yaml")


def test_memory_that_is_no_size(tmp_path):
    (tmp_path / "e.csv").write_text(GOOD)
    arguments = ["ingest", "--events", str(tmp_path / "e.csv"), "--user", "uid", "--time", "ts", "--text", "title",
                 "--consent-for-all", "--out", str(tmp_path / "out")]  # fmt: skip
    for memory in ("lots", "1MB"):
        done = CliRunner().invoke(cli, [*arguments, "--memory", memory])
        assert isinstance(done.exception, ConfProfileError) and "--memory" in str(done.exception)
    done = CliRunner().invoke(cli, [*arguments, "--name", "watch"])
    assert done.exit_code == 2 and "write WORD=NAME" in done.output
    done = CliRunner().invoke(cli, [*arguments, "--field", "plan"])
    assert done.exit_code == 2 and "columns of --users, which is missing" in done.output


def test_what_is_written_is_read_by_whoever_reads_tasks(tmp_path):
    (tmp_path / "e.csv").write_text(GOOD)
    (tmp_path / "given.yaml").write_text("attributes: {age: [a, b]}")
    run(tmp_path, "e.csv", task=str(tmp_path / "given.yaml"))
    assert list(yaml.safe_load((tmp_path / "out" / "task.yaml").read_text())) == ["attributes", "features"]


def test_ids_that_differ_by_zeros_or_capitals_are_others_where_a_table_needs_the_difference(tmp_path):
    (tmp_path / "e.csv").write_text(HEADER + "7,2025-01-01,a,b\n07,2025-01-01,a,b\n8,2025-01-01,a,b\n")
    (tmp_path / "u.csv").write_text("uid\n007\n8\n")
    assert run(tmp_path, "e.csv", users=str(tmp_path / "u.csv")).users_in_both == 1


def test_ids_in_other_capitals_are_refused(tmp_path):
    (tmp_path / "e.csv").write_text(HEADER + "ab-1,2025-01-01,a,b\n")
    (tmp_path / "u.csv").write_text("uid\nAB-1\n")
    refuse(tmp_path, r"user 'AB-1' is 'ab-1' in the events, with other capital letters", "e.csv",
           users=str(tmp_path / "u.csv"))  # fmt: skip


def test_users_all_of_whom_are_in_the_future(tmp_path):
    (tmp_path / "e.csv").write_text(GOOD)
    (tmp_path / "u.csv").write_text("uid,since\n7,2999-01-01\n8,2999-01-01\n")
    refuse(tmp_path, r"u\.csv: all 2 rows are in the future; correct the column of --users-time", "e.csv",
           users={"path": str(tmp_path / "u.csv"), "time": "since"})  # fmt: skip


def test_a_file_that_is_named_twice_would_count_twice(tmp_path):
    (tmp_path / "e.csv").write_text(GOOD)
    refuse(tmp_path, r"e\.csv: is named twice with the same columns", "e.csv", "e.csv")


def test_a_kind_and_a_field_of_one_name_have_a_remedy_that_helps(tmp_path):
    (tmp_path / "e.csv").write_text(GOOD)
    (tmp_path / "u.csv").write_text("uid,watch\n7,a\n8,a\n")
    refuse(tmp_path, r"both be the feature 'watch'; rename the column, or choose others with --field", "e.csv",
           users=str(tmp_path / "u.csv"))  # fmt: skip
    report = run(tmp_path, "e.csv", users={"path": str(tmp_path / "u.csv"), "fields": []})
    assert list(report.features) == ["search", "watch"]


def test_what_is_nested_is_told_so(tmp_path):
    rows = [{"uid": "7", "ts": "2025-01-01", "kind": "a", "title": {"text": "b"}}]
    (tmp_path / "e.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    refuse(tmp_path, r"lacks the column\(s\) title\.text; title\.text is part of another column; write it as a col",
           "e.jsonl", text="title.text")  # fmt: skip
    write_table(tmp_path / "e.parquet", title=[{"text": "b"}])
    refuse(tmp_path, r"'title' has the type STRUCT.*; flatten it into columns of its own first", "e.parquet")


def test_lists_that_were_written_as_texts_are_a_warning(tmp_path):
    (tmp_path / "e.csv").write_text(HEADER + "7,2025-01-01,a,\"['b' 'c']\"\n7,2025-01-02,a,d\n")
    assert run(tmp_path, "e.csv").warnings == [
        "1 texts look like whole lists ('[...]'), each of which is one keyphrase now; write lists as Parquet or JSON "
        "lines, or split them with --separator"
    ]


def test_a_disk_that_is_full_is_not_the_files_fault(tmp_path):
    import duckdb

    from conf_profile.ingest.database import explain_errors

    said = 'IO Error: Could not write file "x/.work/events.duckdb": File too large'
    full = pytest.raises(DataError, match=r"the disk of --out is full, or limited: .*; give --out on a larger one")
    with full, explain_errors([("e.csv", "e.csv")]):
        raise duckdb.IOException(said)


def test_an_interruption_is_one(tmp_path):
    """DuckDB makes another error of Ctrl-C while it works."""
    from conf_profile.ingest.database import explain_errors

    with pytest.raises(KeyboardInterrupt), explain_errors():
        raise RuntimeError("Query interrupted")
    with pytest.raises(RuntimeError, match="something else"), explain_errors():
        raise RuntimeError("something else")


def test_a_mapping_names_the_key_that_is_wrong(tmp_path):
    (tmp_path / "m.yaml").write_text("events: [{path: e.csv, txt: query}]\nusers: {path: u.csv, fields: plan}\n")
    with pytest.raises(
        ConfigError, match=r"m\.yaml: events\.0\.txt: there is no such key; users\.fields: Input should"
    ):
        read_mapping(tmp_path / "m.yaml")
