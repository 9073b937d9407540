"""Event logs of every form become the same data set, and what was read, left out and changed is counted."""

import gzip
import json
from datetime import UTC, date, datetime

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from click.testing import CliRunner
from filelock import FileLock

from conf_profile.cli.main import cli
from conf_profile.ingest.ingest import ingest
from conf_profile.ingest.plan import make_plan, read_mapping
from support.paths import ROOT

ROWS = [
    ("7", "2025-01-02T10:00:00Z", "search", "چای سبز"),
    ("7", "2025-01-01T10:00:00Z", "watch", "Dumbo, 1941"),
    ("7", "2025-01-03T10:00:00Z", "watch", "می‌خواهم"),
    ("008", "2025-01-02T09:00:00+01:00", "watch", "👨‍👩‍👧"),
]
EXPECTED = [
    {"user_id": "008", "event_timestamp": datetime(2025, 1, 2, 8, tzinfo=UTC), "watch": ["👨‍👩‍👧"], "search": []},
    {
        "user_id": "7", "event_timestamp": datetime(2025, 1, 3, 10, tzinfo=UTC), "watch": ["Dumbo, 1941", "می‌خواهم"],
        "search": ["چای سبز"],
    },
]  # fmt: skip
COLUMNS = ("uid", "ts", "kind", "title")


def run(out, *events, **values):
    """Ingests with the columns of ROWS; (report, rows of behaviour, rows of demographics)."""
    columns = {"user": "uid", "time": "ts", "text": "title", "kind": "kind", "consent_for_all": True}
    given = {name: value for name, value in (columns | values).items() if value is not None}
    report = ingest(make_plan({"events": list(map(str, events)), **given}, out))
    return report, *(pq.read_table(out / f"{name}.parquet").to_pylist() for name in ("behaviour", "demographics"))


def frame():
    return pd.DataFrame(ROWS, columns=COLUMNS)


def write_csv(path, delimiter=",", opener=open, rows=ROWS):
    quoted = [",".join(COLUMNS), *(",".join(f'"{cell}"' for cell in row) for row in rows)]
    with opener(path, "wt", encoding="utf-8-sig") as file:
        file.write(
            "\r\n".join(quoted if delimiter == "," else [line.replace('","', f'"{delimiter}"') for line in quoted])
        )
    if delimiter != ",":
        path.write_text(path.read_text("utf-8").replace("uid,ts,kind,title", delimiter.join(COLUMNS)), "utf-8")


def write_json(path, opener=open):
    with opener(path, "wt", encoding="utf-8") as file:
        file.writelines(json.dumps(dict(zip(COLUMNS, row, strict=True))) + "\n" for row in ROWS)


def write_partitions(folder):
    """As Spark does: folders by kind, and files beside that are no data."""
    for kind, rows in frame().groupby("kind"):
        (folder / f"kind={kind}").mkdir(parents=True)
        rows.drop(columns="kind").to_parquet(folder / f"kind={kind}" / "part-0.parquet")
    (folder / "_SUCCESS").write_text("")
    (folder / "kind=watch" / ".part-0.parquet.crc").write_text("x")


FORMS = {
    "events.csv": write_csv,
    "events.tsv": lambda path: write_csv(path, "\t"),
    "semicolons.csv": lambda path: write_csv(path, ";"),
    "events.csv.gz": lambda path: write_csv(path, opener=gzip.open),
    "events.jsonl": write_json,
    "events.ndjson.gz": lambda path: write_json(path, gzip.open),
    "events.json": lambda path: path.write_text(json.dumps(frame().to_dict("records"))),
    "events.parquet": lambda path: frame().to_parquet(path),
    "no_suffix": lambda path: frame().to_parquet(path),
    "partitions": write_partitions,
}


@pytest.mark.parametrize("name", FORMS)
def test_every_form_gives_the_same_data_set(tmp_path, name):
    FORMS[name](tmp_path / name)
    report, behaviour, demographics = run(tmp_path / "out", tmp_path / name)
    assert behaviour == EXPECTED
    assert [(row["user_id"], row["consent"]) for row in demographics] == [("008", True), ("7", True)]
    assert (report.rows, report.texts, report.dropped, report.changed, report.warnings) == (4, 4, [], [], [])
    assert yaml.safe_load((tmp_path / "out" / "task.yaml").read_text())["features"] == {
        "watch": {"type": "list", "label": "watch"}, "search": {"type": "list", "label": "search"},
    }  # fmt: skip
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "behaviour.parquet", "demographics.parquet", "ingest.json", "task.yaml",
    ]  # fmt: skip


def test_a_row_may_be_a_user_and_moment(tmp_path):
    rows = [{"uid": 7, "ts": "2025-01-01", "title": ["a", "b"]}, {"uid": 7, "ts": "2025-01-02", "title": []},
            {"uid": 7, "ts": "2025-01-02", "title": ["c", None, " "]}]  # fmt: skip
    pd.DataFrame(rows).to_parquet(tmp_path / "e.parquet")
    (tmp_path / "e.jsonl").write_text("\n".join(map(json.dumps, rows)))
    for name in ("e.parquet", "e.jsonl"):
        report, (row,), _ = run(tmp_path / name.replace(".", "_"), tmp_path / name, kind=None)
        assert (row["title"], report.rows, report.texts) == (["a", "b", "c"], 3, 6)
        assert [(note.what, note.count) for note in report.dropped] == [("blank texts", 3)]


def test_a_text_may_hold_several(tmp_path):
    (tmp_path / "e.csv").write_text("uid,ts,title\n7,2025-01-01,tea; jazz;; tea \n")
    _, (row,), _ = run(tmp_path / "out", tmp_path / "e.csv", kind=None, separator=";")
    assert row["title"] == ["tea", "jazz", "tea"]


def test_each_of_several_columns_is_a_kind(tmp_path):
    (tmp_path / "e.csv").write_text("uid,ts,seen,query\n7,2025-01-01,a,\n7,2025-01-02,,b\n")
    report, (row,), _ = run(tmp_path / "out", tmp_path / "e.csv", text=["seen", "query"], kind=None)
    assert (row["seen"], row["query"], report.rows, report.texts) == (["a"], ["b"], 2, 4)


def test_columns_that_nobody_reads_may_be_called_anything(tmp_path):
    (tmp_path / "a.csv").write_text("uid,,UID,x,x,it's,ts,title\n7,,q,,,,2025-01-01,a\n")
    frame().assign(x=[[1]] * 4).to_parquet(tmp_path / "b.parquet")
    frame().assign(x="1")[["x", *COLUMNS]].to_parquet(tmp_path / "c.parquet")
    report, behaviour, _ = run(tmp_path / "out", tmp_path / "[abc].*", kind=None)
    assert (report.files, behaviour[1]["user_id"], behaviour[1]["title"][0]) == (3, "7", "a")


def test_rows_of_one_moment_keep_their_order(tmp_path):
    lines = [f"7,2025-01-01,t{number}" for number in range(500)]
    for part in (0, 1):
        (tmp_path / f"e{part}.csv").write_text("uid,ts,title\n" + "\n".join(lines[part * 250 : part * 250 + 250]))
    _, (row,), _ = run(tmp_path / "out", tmp_path / "e*.csv", kind=None, keyphrases=400)
    assert row["title"] == [f"t{number}" for number in range(100, 500)]


MOMENT = datetime(2025, 1, 2, 3, 4, 5, 678000, tzinfo=UTC)
SECONDS = 1735787045.678
ZONELESS = "times without a zone, taken as UTC"
DAYS = "days, taken as midnight UTC"
TIMES = [
    (pa.array([MOMENT]), None),
    (pa.array([MOMENT], pa.timestamp("ms", "Asia/Tehran")), None),
    (pa.array([MOMENT.replace(tzinfo=None)]), ZONELESS),
    (pa.array([MOMENT.replace(tzinfo=None)], pa.timestamp("ns")), ZONELESS),
    (pa.array([date(2025, 1, 2)]), DAYS),
    (pa.array([SECONDS]), "times in seconds since 1970"),
    (pa.array([int(SECONDS * 1e3)]), "times in milliseconds since 1970"),
    (pa.array([int(SECONDS * 1e3) * 1000]), "times in microseconds since 1970"),
    (pa.array([int(SECONDS * 1e3) * 1000_000]), "times in nanoseconds since 1970"),
    (pa.array([str(SECONDS)]), "times in seconds since 1970"),
    (pa.array(["2025-01-02T03:04:05.678Z"]), None),
    (pa.array(["2025-01-02 06:34:05.678+03:30"]), None),
    (pa.array(["2025-01-02 06:34:05.678 Asia/Tehran"]), None),
    (pa.array(["2025-01-02 03:04:05.678"]), ZONELESS),
    (pa.array(["2025-01-02"]), DAYS),
]


@pytest.mark.parametrize(("times", "change"), TIMES, ids=lambda value: str(value)[:60])
def test_a_time_of_any_form_is_what_it_means(tmp_path, times, change):
    table = pa.table({"uid": ["7"], "ts": times, "title": ["a"]})
    for flavour, spark in (("plain", {}), ("spark", {"use_deprecated_int96_timestamps": True, "flavor": "spark"})):
        if spark and not pa.types.is_timestamp(times.type):
            continue
        pq.write_table(table, tmp_path / f"{flavour}.parquet", **spark)
        report, (row,), _ = run(tmp_path / flavour, tmp_path / f"{flavour}.parquet", kind=None)
        assert row["event_timestamp"] == (MOMENT.replace(hour=0, minute=0, second=0, microsecond=0)
                                          if change == DAYS else MOMENT)  # fmt: skip
        told = change or (ZONELESS if spark else None)
        assert [(note.what, note.count) for note in report.changed] == ([(told, 1)] if told else [])


def test_a_time_of_another_form_is_given(tmp_path):
    (tmp_path / "e.csv").write_text("uid,ts,title\n7,02.01.2025 03:04,a\n")
    _, (row,), _ = run(tmp_path / "out", tmp_path / "e.csv", kind=None, time_format="%d.%m.%Y %H:%M")
    assert row["event_timestamp"] == datetime(2025, 1, 2, 3, 4, tzinfo=UTC)


IDS = [
    (pa.array([7]), ["7"], None),
    (pa.array([7.0]), ["7"], "ids of events written as whole numbers, 1.0 as '1'"),
    (pa.array(["007"]), ["007"], None),
    (pa.array([" 7 "]), ["7"], None),
    (pa.array(["7.0"]), ["7"], "ids of events written as whole numbers, 1.0 as '1'"),
    (pa.array(["v1.0", "1.0"]), ["1.0", "v1.0"], None),
    (pa.array(["a"]).dictionary_encode(), ["a"], None),
    (pa.array(["a"], pa.large_string()), ["a"], None),
    (pa.array(["a"], pa.string_view()), ["a"], None),
    (pa.array([b"a"]), ["a"], None),
    (pa.array([7], pa.decimal128(20, 0)), ["7"], None),
]


@pytest.mark.parametrize(("ids", "written", "change"), IDS, ids=lambda value: str(value)[:60])
def test_an_id_of_any_type_is_a_text(tmp_path, ids, written, change):
    table = pa.table({"uid": ids, "ts": ["2025-01-01T00:00:00Z"] * len(ids), "title": ["a"] * len(ids)})
    pq.write_table(table, tmp_path / "e.parquet")
    report, behaviour, _ = run(tmp_path / "out", tmp_path / "e.parquet", kind=None)
    assert [row["user_id"] for row in behaviour] == written
    assert [note.what for note in report.changed] == ([change] if change else [])


@pytest.mark.parametrize(
    ("period", "moments"), [("last", [4]), ("daily", [1, 2, 4]), ("weekly", [4]), ("monthly", [4])]
)
def test_snapshots_hold_what_was_known_by_then(tmp_path, period, moments):
    days = "\n".join(f"7,2025-01-0{day}T10:00:00Z,t{day}" for day in (4, 1, 2))
    (tmp_path / "e.csv").write_text("uid,ts,title\n" + days)
    _, behaviour, _ = run(tmp_path / "out", tmp_path / "e.csv", kind=None, snapshot=period, keyphrases=2)
    assert [row["event_timestamp"].day for row in behaviour] == moments
    assert behaviour[-1]["title"] == ["t2", "t4"]


def test_events_after_the_moment_are_left_out(tmp_path):
    write_csv(tmp_path / "e.csv")
    report, behaviour, _ = run(tmp_path / "out", tmp_path / "e.csv", as_of="2025-01-02T09:30:00Z")
    assert [(row["user_id"], row["watch"]) for row in behaviour] == [("008", ["👨‍👩‍👧"]), ("7", ["Dumbo, 1941"])]
    assert [(note.what, note.count) for note in report.dropped] == [("texts in the future", 2)]


USERS = """id,since,plan,age,mail,newsletter,ok
7,2024-01-01,pro,30,a@x.org,true,yes
8,2024-01-02,free,,b@x.org,false,
9,2024-01-03,pro,41,c@x.org,,no
10,2024-01-04,free,30,d@x.org,true,YES
"""


def write_users(folder):
    (folder / "users.csv").write_text(USERS)
    rows = "\n".join(f"{user},2025-01-0{user},a" for user in (7, 8, 9))
    (folder / "e.csv").write_text("uid,ts,title\n" + rows + "\n11,2025-01-01,b")
    return {"path": str(folder / "users.csv"), "user": "id", "consent": "ok"}


def test_what_users_share_becomes_features_and_the_rest_only_if_it_is_named(tmp_path):
    users = write_users(tmp_path)
    report, _, demographics = run(tmp_path / "out", tmp_path / "e.csv", kind=None, users=users, consent_for_all=False)
    moment = datetime(2025, 1, 1, tzinfo=UTC)
    assert demographics[:2] == [
        {
            "user_id": "10",
            "event_timestamp": moment,
            "plan": "free",
            "age": 30.0,
            "newsletter": "true",
            "consent": True,
        },
        {"user_id": "7", "event_timestamp": moment, "plan": "pro", "age": 30.0, "newsletter": "true", "consent": True},
    ]
    assert [(row["user_id"], row["age"], row["consent"]) for row in demographics[2:]] == [
        ("8", None, False),
        ("9", 41, False),
    ]
    assert [line.split(": ")[1] for line in report.warnings] == [
        "the column 'since' is left out", "the column 'mail' is left out",
    ]  # fmt: skip
    assert (report.users, report.users_in_both, report.users_with_consent) == (4, 3, 2)
    assert [(note.what, note.count) for note in report.changed][-1] == ("blank cells of consent, taken as no", 1)
    features = yaml.safe_load((tmp_path / "out" / "task.yaml").read_text())["features"]
    assert {name: feature["type"] for name, feature in features.items()} == {
        "title": "list", "plan": "category", "age": "number", "newsletter": "category",
    }  # fmt: skip


def test_fields_that_are_named_are_taken_and_may_be_named_otherwise(tmp_path):
    users = write_users(tmp_path) | {"fields": ["mail", "plan"], "time": "since"}
    _, _, demographics = run(
        tmp_path / "out", tmp_path / "e.csv", kind=None, users=users, consent_for_all=None, names={"plan": "contract"}
    )
    assert demographics[0] == {
        "user_id": "10", "event_timestamp": datetime(2024, 1, 4, tzinfo=UTC), "mail": "d@x.org", "contract": "free",
        "consent": True,
    }  # fmt: skip


def test_consent_for_all_is_of_everybody_with_an_event_too(tmp_path):
    users = {key: value for key, value in write_users(tmp_path).items() if key != "consent"}
    _, _, demographics = run(tmp_path / "out", tmp_path / "e.csv", kind=None, users=users)
    assert {row["user_id"]: row["consent"] for row in demographics} == dict.fromkeys(["10", "11", "7", "8", "9"], True)


def test_a_mapping_says_the_same_and_more(tmp_path):
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "watch.csv").write_text("uid,ts,title\n7,2025-01-01,a\n")
    (tmp_path / "logs" / "search.csv").write_text("who,ts,query\n7,2025-01-02,b\n")
    mapping = {
        "events": [{"path": "logs/watch.csv", "feature": "watched"},
                   {"path": "logs/search.csv", "user": "who", "text": "query", "feature": "searched"}],
        "user": "uid", "time": "ts", "text": "title", "consent_for_all": True,
    }  # fmt: skip
    (tmp_path / "mapping.yaml").write_text(yaml.safe_dump(mapping))
    ingest(make_plan(read_mapping(tmp_path / "mapping.yaml"), tmp_path / "out"))
    (row,) = pq.read_table(tmp_path / "out" / "behaviour.parquet").to_pylist()
    assert (row["watched"], row["searched"]) == (["a"], ["b"])


def test_options_override_a_mapping(tmp_path):
    users = write_users(tmp_path)
    mapping = {
        "events": ["e.csv"],
        "user": "uid",
        "time": "ts",
        "text": "title",
        "users": {"path": "users.csv", "user": "id"},
    }
    (tmp_path / "m.yaml").write_text(yaml.safe_dump(mapping))
    arguments = ["--mapping", str(tmp_path / "m.yaml"), "--consent", users["consent"], "--field", "mail", "--as-of",
                 "2025-01-08", "--name", "title=seen", "--out", str(tmp_path / "out")]  # fmt: skip
    done = CliRunner().invoke(cli, ["ingest", *arguments], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    assert pq.read_schema(tmp_path / "out" / "demographics.parquet").names[2:] == ["mail", "consent"]
    assert pq.read_table(tmp_path / "out" / "behaviour.parquet").column("seen").to_pylist() == [["b"], ["a"], ["a"]]


def test_the_sample_of_the_examples_is_ingested(tmp_path):
    sample = ROOT / "examples" / "events"
    users = {"path": str(sample / "customers.csv"), "consent": "agreed"}
    report = ingest(
        make_plan(
            {"events": [str(sample / "events.csv")], "users": users, "user": "customer", "time": "at", "text": "title",
             "kind": "event", "task": str(sample / "task.yaml")}, tmp_path / "out",
        )
    )  # fmt: skip
    assert (report.users, report.dropped, report.changed, report.warnings) == (500, [], [], [])
    task = yaml.safe_load((tmp_path / "out" / "task.yaml").read_text())
    assert list(task["attributes"]) == ["household", "home"]
    assert list(task["features"])[3:] == ["language", "plan", "age"]
    assert set(task["features"]) >= {"viewed", "cart", "searched"}
    assert (sample / "events.csv").stat().st_size < 100_000


def test_the_command_line_says_what_it_did(tmp_path):
    write_csv(tmp_path / "e.csv", rows=[*ROWS, ("", "2025-01-01", "watch", "x")])
    users = "uid,agreed,plan\n7,true,pro\n008,false,pro\n"
    (tmp_path / "u.csv").write_text(users)
    arguments = ["ingest", "--events", str(tmp_path / "e.csv"), "--users", str(tmp_path / "u.csv"), "--user", "uid",
                 "--time", "ts", "--text", "title", "--kind", "kind", "--consent", "agreed", "--name", "watch=seen",
                 "--max-dropped", "0.5", "--out", str(tmp_path / "out")]  # fmt: skip
    done = CliRunner().invoke(cli, arguments, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    for line in (
        "read     2 files, 5 rows, 5 texts",
        f"dropped  texts without a user id: 1 (first: {tmp_path / 'e.csv'}: row 4)",
        "feature  seen (list) from 'watch': 3 values",
        "feature  plan (category) from 'plan': 2 values",
        "written  2 snapshots of 2 users with events (4 texts), 2 of whom are among the users; 1 user with consent",
    ):
        assert line in done.output
    written = json.loads((tmp_path / "out" / "ingest.json").read_text())
    assert written["dropped"] == [
        {"what": "texts without a user id", "count": 1, "first": f"{tmp_path / 'e.csv'}: row 4"}
    ]
    assert written["features"]["seen"] == {"type": "list", "from": ["watch"], "values": 3}


def test_what_a_killed_ingestion_has_left_goes_and_a_living_one_stays(tmp_path):
    write_csv(tmp_path / "events.csv")
    for name in ("killed", "living"):
        (tmp_path / f".out.{name}.tmp" / ".work").mkdir(parents=True)
        (tmp_path / f".out.{name}.tmp" / ".work" / "events.duckdb").write_bytes(b"x")
    with FileLock(tmp_path / ".out.living.tmp" / ".work" / "writer.lock"):
        run(tmp_path / "out", tmp_path / "events.csv")
    assert sorted(path.name for path in tmp_path.iterdir()) == [".out.living.tmp", "events.csv", "out"]
    assert not any(path.name.startswith(".") for path in (tmp_path / "out").iterdir())


def test_texts_that_no_list_has_room_for_are_counted(tmp_path):
    write_csv(tmp_path / "e.csv", rows=[("7", f"2025-01-0{day}", "watch", f"t{day}") for day in range(1, 6)])
    report, behaviour, _ = run(tmp_path / "out", tmp_path / "e.csv", keyphrases=2)
    assert behaviour[0]["watch"] == ["t4", "t5"]
    assert [(n.what, n.count) for n in report.dropped] == [("texts older than the 2 most recent of their list", 3)]


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
def test_moments_with_a_zone_are_no_moments_without_one(tmp_path, unit):
    """DuckDB has a type of its own for nanoseconds, which pandas writes."""
    stamps = pd.Series(pd.to_datetime(["2025-01-01 10:00"])).dt.tz_localize("America/New_York").dt.as_unit(unit)
    pd.DataFrame({"uid": ["7"], "ts": stamps, "kind": ["a"], "title": ["b"]}).to_parquet(tmp_path / "e.parquet")
    report, behaviour, _ = run(tmp_path / "out", tmp_path / "e.parquet")
    assert behaviour[0]["event_timestamp"] == datetime(2025, 1, 1, 15, tzinfo=UTC)
    assert report.changed == []


def test_two_kinds_in_one_feature_are_both_named(tmp_path):
    write_csv(tmp_path / "e.csv")
    report, _, _ = run(tmp_path / "out", tmp_path / "e.csv", names={"watch": "seen", "search": "seen"})
    assert "feature  seen (list) from 'watch' and 'search': 4 values" in list(report.lines())
