"""Features through the real Feast: point-in-time offline, the same online, in sqlite and in Redis."""

import json
import shutil
import socket
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import redis
from dask.base import normalize_token
from tenacity import retry, retry_if_exception_type, stop_after_delay, wait_fixed

from components.features import step
from conf_profile import tables
from conf_profile.config import FeaturesConfig
from conf_profile.data import splits
from conf_profile.dialogue import task as tasks
from conf_profile.dialogue.prompts import UserFeatures
from conf_profile.errors import DataError
from feature_repo import store as feature_store

AS_OF = datetime(2025, 6, 1, 12, tzinfo=UTC)
CONFIG = FeaturesConfig()
MICROSECOND = timedelta(microseconds=1)


def behaviour(user_id, when, watch=(), search=(), submit=()):
    return {
        "user_id": user_id, "event_timestamp": when,
        "watch": list(watch), "search": list(search), "submit": list(submit),
    }  # fmt: skip


def sign_up(user_id, when=AS_OF - timedelta(days=9), consent=True, **given):
    empty = {"self_age": None, "self_gender": None, "signature": None, "region": None}
    return {"user_id": user_id, "event_timestamp": when, **empty, **given, "consent": consent}


BEHAVIOUR = [
    behaviour("latest", AS_OF - timedelta(days=3), ["first"]),
    behaviour("latest", AS_OF - timedelta(days=1), ["first", "second"], ["tea"], ["a poem; in <b>"]),
    behaviour("latest", AS_OF - timedelta(days=2), ["out of order in the file"]),
    behaviour("edge", AS_OF, ["at the moment itself"]),
    behaviour("edge", AS_OF + MICROSECOND, ["LEAK"]),
    behaviour("future-only", AS_OF + timedelta(days=1), ["LEAK"]),
    behaviour("empty-lists", AS_OF - timedelta(days=400)),
    behaviour("withdrawn", AS_OF - timedelta(days=1), ["withdrawn"]),
    behaviour("withdraws-later", AS_OF - timedelta(days=1), ["still there"]),
    behaviour("consents-later", AS_OF - timedelta(days=1), ["not yet"]),
    behaviour("consents-again", AS_OF - timedelta(days=1), ["back"]),
    behaviour("refused", AS_OF - timedelta(days=1), ["refused"]),
    behaviour("no-sign-up", AS_OF - timedelta(days=1), ["never asked"]),
]
DEMOGRAPHICS = [
    sign_up("latest", self_age="old", signature="LEAK", when=AS_OF - timedelta(days=30)),
    sign_up("latest", self_age="25", self_gender="f", region="north"),
    sign_up("edge"),
    sign_up("future-only", region="south"),
    sign_up("only-sign-up", signature="hello"),
    sign_up("empty-lists"),
    sign_up("withdrawn", when=AS_OF - timedelta(days=30)),
    sign_up("withdrawn", when=AS_OF - timedelta(days=1), consent=False),
    sign_up("withdraws-later"),
    sign_up("withdraws-later", when=AS_OF + timedelta(days=1), consent=False),
    sign_up("consents-later", when=AS_OF + timedelta(days=1)),
    sign_up("consents-again", when=AS_OF - timedelta(days=30)),
    sign_up("consents-again", when=AS_OF - timedelta(days=20), consent=False),
    sign_up("consents-again"),
    sign_up("refused", consent=False),
]
WITH_CONSENT = [
    "consents-again",
    "edge",
    "empty-lists",
    "future-only",
    "latest",
    "only-sign-up",
    "withdraws-later",
]
WITHOUT_CONSENT = ["consents-later", "no-sign-up", "refused", "withdrawn"]


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("data")
    paths = folder / "behaviour.parquet", folder / "demographics.parquet"
    tables.write(paths[0], tables.from_rows(BEHAVIOUR, tables.BEHAVIOUR), tables.BEHAVIOUR)
    tables.write(paths[1], tables.from_rows(DEMOGRAPHICS, tables.DEMOGRAPHICS), tables.DEMOGRAPHICS)
    return paths


@pytest.fixture(scope="module")
def store(files, tmp_path_factory):
    opened = feature_store.open_store(tmp_path_factory.mktemp("feast"), *files, CONFIG)
    feature_store.materialise(opened, AS_OF)
    return opened


@pytest.fixture(scope="module")
def offline(store):
    table = feature_store.training_features(store, WITHOUT_CONSENT + WITH_CONSENT, AS_OF)
    return {row["user_id"]: row for row in table.to_pylist()}


def test_the_latest_row_at_the_moment_wins(offline) -> None:
    row = offline["latest"]
    assert (row["watch"], row["search"], row["submit"]) == (["first", "second"], ["tea"], ["a poem; in <b>"])
    assert (row["self_age"], row["self_gender"], row["region"], row["signature"]) == (
        "25",
        "f",
        "north",
        None,
    )


def test_no_row_after_the_moment_leaks(offline) -> None:
    assert offline["edge"]["watch"] == ["at the moment itself"]
    assert "LEAK" not in repr(offline)


def test_a_user_without_history_keeps_the_sign_up_form(offline) -> None:
    assert offline["future-only"]["region"] == "south"
    assert offline["future-only"]["watch"] is None
    assert offline["only-sign-up"]["signature"] == "hello"


def test_an_old_row_of_empty_lists_is_a_row(offline) -> None:
    assert offline["empty-lists"]["watch"] == []


def test_consent_is_the_latest_at_the_moment(store) -> None:
    everybody = WITHOUT_CONSENT + WITH_CONSENT
    assert feature_store.consenting_users(store, everybody, AS_OF) == WITH_CONSENT


def test_the_order_of_the_users_is_kept_and_strangers_are_empty(store) -> None:
    asked = ["withdrawn", "nobody", "edge", "latest"]
    table = feature_store.training_features(store, asked, AS_OF.isoformat())
    assert table.column("user_id").to_pylist() == asked
    assert set(table.to_pylist()[1].values()) == {"nobody", None}


def test_no_users(store) -> None:
    assert len(feature_store.training_features(store, [], AS_OF)) == 0
    assert feature_store.online_features(store, []) == []


def test_asking_twice_for_one_user_is_an_error(store) -> None:
    with pytest.raises(DataError, match="user 'edge' is asked for twice"):
        feature_store.training_features(store, ["edge", "edge"], AS_OF)


def test_a_moment_without_a_zone_is_an_error(store) -> None:
    with pytest.raises(DataError, match=r"as_of: .* has no zone"):
        feature_store.training_features(store, ["edge"], "2025-06-01T12:00:00")


def as_user_features(row) -> UserFeatures:
    return UserFeatures(**{key: value for key, value in row.items() if key != "consent"})


def test_online_equals_offline(store, offline) -> None:
    asked = ["nobody", *reversed(WITH_CONSENT), *WITHOUT_CONSENT]
    expected = [None, *(as_user_features(offline[user]) for user in reversed(WITH_CONSENT)), *[None] * 4]
    assert feature_store.online_features(store, asked) == expected


def test_the_online_store_says_why_there_are_no_features(store) -> None:
    known = feature_store.read_online(store, ["refused", "no-sign-up", "nobody", "edge"])
    assert [user and user.consent for user in known] == [False, None, None, True]
    assert known[2] is None and known[1].features.texts("watch") == ("never asked",)


def test_one_user_asked_for_twice_online(store) -> None:
    first, second = feature_store.online_features(store, ["edge", "edge"])
    assert first == second and first.texts("watch") == ("at the moment itself",)


def test_serving_opens_the_store_that_training_made(store) -> None:
    again = feature_store.connect(Path(store.repo_path))
    assert feature_store.online_features(again, ["edge"]) == feature_store.online_features(store, ["edge"])


def test_a_folder_without_a_store(tmp_path) -> None:
    with pytest.raises(DataError, match=r"has no feature_store\.yaml"):
        feature_store.connect(tmp_path)


def test_a_missing_file_is_named(files, tmp_path) -> None:
    with pytest.raises(DataError, match=r"gone\.parquet: no such file"):
        feature_store.open_store(tmp_path, files[0], tmp_path / "gone.parquet", CONFIG)


def test_no_connection_leaves_the_machine(files, tmp_path, monkeypatch) -> None:
    def refuse(self, address):
        raise AssertionError(f"connected to {address}")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    opened = feature_store.open_store(tmp_path, *files, CONFIG)
    feature_store.materialise(opened, AS_OF)
    assert len(feature_store.training_features(opened, ["edge"], AS_OF)) == 1
    assert feature_store.online_features(opened, ["edge"]) != [None]


def test_other_encodings_of_the_same_table_read_the_same(files, offline, tmp_path) -> None:
    """Files written by others: large strings, dictionaries, nanoseconds, another zone, several row groups."""
    given = pq.read_table(files[0])
    strings, lists = pa.large_string(), pa.large_list(pa.large_string())
    berlin = given.column("event_timestamp").cast(pa.timestamp("ns", tz="Europe/Berlin"))
    other = pa.table(
        {
            "user_id": given.column("user_id").cast(strings).dictionary_encode(),
            "event_timestamp": berlin,
            **{name: given.column(name).cast(lists) for name in ("watch", "search", "submit")},
        }
    )
    path = tmp_path / "behaviour.parquet"
    pq.write_table(other, path, row_group_size=3)
    opened = feature_store.open_store(tmp_path / "feast", path, files[1], CONFIG)
    read = feature_store.training_features(opened, list(offline), AS_OF)
    assert read.to_pylist() == list(offline.values())
    feature_store.materialise(opened, AS_OF)
    assert feature_store.online_features(opened, ["latest"]) == [as_user_features(offline["latest"])]


def run_step(files, folder, as_of=str(AS_OF)):
    outputs = folder / "features.parquet", folder / "report.json"
    tasks.builtin("profile").save(folder / "task.yaml")
    step.run(*files, folder / "task.yaml", *outputs, folder / "workspace", as_of, CONFIG)
    return tables.read(outputs[0], tables.FEATURES), json.loads(outputs[1].read_text())


def test_the_step(files, tmp_path) -> None:
    features, report = run_step(files, tmp_path)
    assert features.column("user_id").to_pylist() == WITH_CONSENT
    assert features.column("split").to_pylist() == splits.split_of(WITH_CONSENT, CONFIG).tolist()
    assert (report["users"], report["dropped_without_consent"], report["without_history"]) == (7, 4, 3)
    assert sum(report["splits"].values()) == 7
    rows = {row["user_id"]: row for row in features.to_pylist()}
    assert rows["future-only"]["watch"] == rows["only-sign-up"]["watch"] == rows["empty-lists"]["watch"] == []
    for leaked in ("LEAK", "withdrawn", "refused", "not yet", "never asked"):
        assert leaked not in repr(rows)


def test_the_step_at_another_moment(files, tmp_path) -> None:
    features, report = run_step(files, tmp_path, (AS_OF + timedelta(days=2)).isoformat())
    rows = {row["user_id"]: row for row in features.to_pylist()}
    assert "withdraws-later" not in rows
    assert rows["consents-later"]["watch"] == ["not yet"]
    assert rows["edge"]["watch"] == ["LEAK"]
    assert report["dropped_without_consent"] == 4


def test_the_step_when_nobody_consented(files, tmp_path) -> None:
    with pytest.raises(DataError, match=r"none of 11 users had given consent by 2020-01-01"):
        run_step(files, tmp_path, "2020-01-01T00:00:00+00:00")
    assert not (tmp_path / "features.parquet").exists()


def test_a_read_does_not_hash_the_contents_of_frames(store) -> None:
    frame = pd.DataFrame({"watch": [["tea"] * 1000] * 1000})
    assert len(repr(normalize_token(frame))) < 100


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture
def redis_address(tmp_path):
    binary = shutil.which("redis-server")
    if binary is None:
        pytest.skip("redis-server is not installed (Debian: apt-get install redis-server)")
    port = free_port()
    command = [binary, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(tmp_path)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        wait_until_ready(port)
        yield f"127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()


@retry(
    retry=retry_if_exception_type(redis.ConnectionError),
    stop=stop_after_delay(30),
    wait=wait_fixed(0.05),
    reraise=True,
)
def wait_until_ready(port: int) -> None:
    with redis.Redis(port=port) as client:
        client.ping()


def test_redis_serves_what_sqlite_serves(files, store, redis_address, tmp_path) -> None:
    config = FeaturesConfig(online_store="redis", redis_url=redis_address)
    opened = feature_store.open_store(tmp_path, *files, config)
    feature_store.materialise(opened, AS_OF)
    asked = ["nobody", *WITH_CONSENT, *WITHOUT_CONSENT]
    assert feature_store.read_online(opened, asked) == feature_store.read_online(store, asked)
    assert not (tmp_path / "online.db").exists()
