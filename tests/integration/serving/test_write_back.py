"""Accepted tags into the real Feast: sqlite, and Redis where it is installed; as rows, and through the transformer."""

import asyncio
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pandas as pd
import pytest
import redis
import yaml

from conf_profile import tables
from conf_profile.config import FeaturesConfig, PromptConfig
from conf_profile.consensus import confidence
from conf_profile.consensus.confidence import Calibration, Partition
from conf_profile.data.inferred import InferredProfile, InferredTag
from conf_profile.dialogue import task as tasks
from conf_profile.errors import ServingError
from conf_profile.features import DEFAULT_FEATURES
from feature_repo import erasure, inferred
from feature_repo import store as feature_store
from feature_repo.definitions import INFERRED, SERVICE
from serving import settings
from serving.local import processes
from serving.model.bundle import Bundle
from serving.settings import PredictorSettings, Settings, WriteBackSettings
from serving.telemetry.drift import DriftMonitor
from serving.telemetry.metrics import WRITTEN_PROFILES
from serving.transformer import write_back
from serving.transformer.features import OnlineFeatures
from serving.transformer.predictor_client import PredictorClient
from serving.transformer.transformer import ProfileTransformer
from serving.transformer.versions import ServedVersion
from support.s3 import wait_until
from support.teacher_server import completion, serve

AS_OF = datetime(2025, 6, 1, 12, tzinfo=UTC)
NOW = datetime(2025, 7, 1, 12, tzinfo=UTC)
TAGS = tasks.parse({"attributes": {"gender": ["female", "male"]}})
EVEN = Calibration("greedy", {"gender": Partition((0.2, 0.4, 0.6, 0.8))})
FEMALE = InferredTag("gender", "female", 4)
PEOPLE = {"ada": True, "bob": True, "eve": False}
"""Who there is, and whether they have consented."""


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder, empty = tmp_path_factory.mktemp("data"), dict.fromkeys(("self_age", "self_gender", "signature", "region"))
    behaviour = [
        {"user_id": name, "event_timestamp": AS_OF, "watch": [f"{name} watches"], "search": [], "submit": []}
        for name in PEOPLE
    ]
    sign_ups = [
        {"user_id": name, "event_timestamp": AS_OF, **empty, "consent": consent} for name, consent in PEOPLE.items()
    ]
    paths = folder / "behaviour.parquet", folder / "demographics.parquet"
    tables.write(paths[0], tables.from_rows(behaviour, tables.BEHAVIOUR), tables.BEHAVIOUR)
    tables.write(paths[1], tables.from_rows(sign_ups, tables.DEMOGRAPHICS), tables.DEMOGRAPHICS)
    return paths


@pytest.fixture
def store(files, tmp_path):
    return opened(files, tmp_path / "features", FeaturesConfig())


def opened(files, folder, config):
    made = feature_store.open_store(folder, *files, config)
    feature_store.materialise(made, AS_OF)
    return made


def said(user, *tags, version="v1", at=NOW):
    return InferredProfile(user, tags, version, at)


def offline(store):
    return tables.read(inferred.inferred_file(store), tables.INFERRED).to_pylist()


def versions(store):
    return [(row["user_id"], row["model_version"]) for row in offline(store)]


# ---- the view


def test_what_is_written_is_read_online_and_joined_offline(store):
    written = inferred.write_inferred(store, [said("ada", FEMALE), said("bob")])
    assert written == inferred.WriteCounts(2, 0, 0)
    assert inferred.read_inferred(store, ["bob", "nobody", "ada"]) == [said("bob"), None, said("ada", FEMALE)]
    asked = pd.DataFrame({"user_id": ["ada", "nobody"], "event_timestamp": [NOW + timedelta(days=1)] * 2})
    joined = store.get_historical_features(asked, [f"{INFERRED}:tags", f"{INFERRED}:levels"]).to_df()
    row = joined[joined.user_id == "ada"].iloc[0]
    assert (list(row["tags"]), list(row["levels"])) == (["female"], [4])
    before = pd.DataFrame({"user_id": ["ada", "bob"], "event_timestamp": [NOW - timedelta(seconds=1)] * 2})
    assert not len(store.get_historical_features(before, [f"{INFERRED}:tags"]).to_df()), "known before it was inferred"


def test_the_same_written_again_leaves_one_row(store):
    later = NOW + timedelta(hours=1)
    inferred.write_inferred(store, [said("ada", FEMALE)])
    for again in ([said("ada", FEMALE)], [said("ada", FEMALE, at=later)], [said("ada", at=NOW - timedelta(days=1))]):
        assert inferred.write_inferred(store, again) == inferred.WriteCounts(0, 1, 0)
    assert len(offline(store)) == 1
    inferred.write_inferred(store, [said("ada", FEMALE, version="v2", at=later)])
    assert versions(store) == [("ada", "v1"), ("ada", "v2")]
    inferred.write_inferred(store, [said("ada", FEMALE, at=later + timedelta(hours=1))])
    assert inferred.read_inferred(store, ["ada"])[0].model_version == "v1", "a rollback is news, too"


def test_of_several_profiles_of_a_user_the_latest_is_written(store):
    batch = [said("ada", FEMALE, at=NOW + timedelta(seconds=1)), said("ada")]
    assert inferred.write_inferred(store, batch) == inferred.WriteCounts(1, 0, 0)
    assert inferred.read_inferred(store, ["ada"])[0].tags == (FEMALE,)


def test_a_kill_between_offline_and_online_is_put_right_by_the_next_call(store, monkeypatch):
    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(type(store), "write_to_online_store", killed)
        with pytest.raises(KeyboardInterrupt):
            inferred.write_inferred(store, [said("ada", FEMALE)])
    assert inferred.read_inferred(store, ["ada"]) == [None]
    assert inferred.write_inferred(store, [said("ada", FEMALE)]).written == 1
    assert len(offline(store)) == 1 and inferred.read_inferred(store, ["ada"]) == [said("ada", FEMALE)]


def test_nobody_without_consent_is_written_or_read(store):
    given = [said(name, FEMALE) for name in ("ada", "eve", "nobody")]
    assert inferred.write_inferred(store, given) == inferred.WriteCounts(1, 0, 2)
    assert versions(store) == [("ada", "v1")]
    withdraw(store, "ada")
    assert inferred.read_inferred(store, ["ada"]) == [None]
    assert inferred.write_inferred(store, [said("ada", at=NOW + timedelta(days=1))]).without_consent == 1


def withdraw(store, user):
    row = {"self_age": None, "self_gender": None, "signature": None, "region": None, "consent": False}
    frame = pd.DataFrame([{"user_id": user, "event_timestamp": AS_OF + timedelta(days=1), **row}])
    store.write_to_online_store("demographics", frame)


def test_no_model_of_ours_reads_its_own_answers(store):
    before = feature_store.read_online(store, list(PEOPLE))
    inferred.write_inferred(store, [said("ada", FEMALE)])
    views = {projection.name for projection in store.get_feature_service(SERVICE).feature_view_projections}
    assert views == {"behaviour", "demographics"}
    assert feature_store.read_online(store, list(PEOPLE)) == before
    row = feature_store.training_features(store, ["ada"], NOW + timedelta(days=1))
    assert set(row.column_names) == {"user_id", "consent", *DEFAULT_FEATURES.names}


def test_bringing_features_online_leaves_the_tags_alone(store):
    inferred.write_inferred(store, [said("ada", FEMALE, at=AS_OF - timedelta(days=9))])
    store.write_to_online_store(INFERRED, inferred.to_table([said("ada", version="v2")]).to_pandas())
    feature_store.materialise(store, AS_OF)
    assert inferred.read_inferred(store, ["ada"])[0].model_version == "v2"


# ---- erasing somebody


def test_a_user_is_erased_and_the_others_stay(store):
    inferred.write_inferred(store, [said("ada", FEMALE), said("bob", FEMALE)])
    assert b"ada watches" in online_file(store).read_bytes()
    assert erasure.erase_online(store, "ada") == 12
    assert erasure.erase_inferred(store, "ada") == 1
    assert (erasure.count_online(store, "ada"), erasure.count_inferred(store, "ada")) == (0, 0)
    assert b"ada watches" not in online_file(store).read_bytes(), "deleted, but still in the file"
    assert feature_store.read_online(store, ["ada"]) == [None]
    assert inferred.read_inferred(store, ["ada", "bob"]) == [None, said("bob", FEMALE)]
    assert erasure.erase_online(store, "ada") == 0
    assert inferred.write_inferred(store, [said("ada", FEMALE)]).without_consent == 1, "came back"


def online_file(store):
    return Path(store.repo_path) / "online.db"


def test_a_store_that_is_not_there_holds_nobody_and_is_not_made(store):
    online_file(store).unlink()
    again = feature_store.connect(Path(store.repo_path))
    assert erasure.count_online(again, "ada") == erasure.erase_online(again, "ada") == 0
    assert not online_file(store).exists()


@pytest.fixture
def redis_address(tmp_path):
    binary = shutil.which("redis-server")
    if binary is None:
        pytest.skip("redis-server is not installed (Debian: apt-get install redis-server)")
    port = processes.free_port()
    command = [binary, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(tmp_path)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        wait_until(lambda: answers(port), "Redis to answer")
        yield f"127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait()


def answers(port):
    try:
        with redis.Redis(port=port) as client:
            return client.ping()
    except redis.ConnectionError:
        return False


def test_redis_writes_reads_and_erases_the_same(files, redis_address, tmp_path):
    store = opened(files, tmp_path / "features", FeaturesConfig(online_store="redis", redis_url=redis_address))
    assert inferred.write_inferred(store, [said("ada", FEMALE), said("bob")]) == inferred.WriteCounts(2, 0, 0)
    assert inferred.write_inferred(store, [said("ada", FEMALE, at=NOW + timedelta(hours=1))]).nothing_new == 1
    assert inferred.read_inferred(store, ["ada", "bob", "eve"]) == [said("ada", FEMALE), said("bob"), None]
    assert erasure.erase_online(store, "ada") > 0
    assert erasure.count_online(store, "ada") == 0
    assert feature_store.read_online(store, ["ada"]) == [None]
    assert feature_store.read_online(store, ["bob"])[0].consent is True
    assert inferred.read_inferred(store, ["ada", "bob"]) == [None, said("bob")]


# ---- the writer of a server


@pytest.fixture
def repository(store):
    return Path(store.repo_path)


def writer(repository, **given):
    return write_back.WriteBack(repository, WriteBackSettings(enabled=True, **given))


def count(outcome):
    return WRITTEN_PROFILES.labels(outcome)._value.get()


def test_a_full_batch_is_written_at_once_and_the_rest_at_the_end(repository, store):
    running = writer(repository, batch_size=2, interval_seconds=600)
    running.offer(said("ada", FEMALE))
    running.offer(said("bob", FEMALE))
    wait_until(lambda: len(offline(store)) == 2, "the batch")
    running.offer(said("ada", at=NOW + timedelta(days=1)))
    running.close()
    assert len(offline(store)) == 3
    running.offer(said("bob"))
    assert len(offline(store)) == 3, "offered after the end"


def test_a_small_batch_is_written_when_its_time_is_over(repository, store):
    running = writer(repository, interval_seconds=0.05)
    running.offer(said("ada", FEMALE))
    wait_until(lambda: offline(store), "the interval")
    running.close()


def test_what_does_not_fit_is_dropped_and_counted_and_nobody_waits(repository, store):
    running, dropped, written = writer(repository, batch_size=1, max_waiting=3), count("dropped"), count("written")
    with inferred.lock_for_writing(store):  # Feast takes its time
        running.offer(said("ada", FEMALE))
        wait_until(lambda: not running._waiting, "the writer to take the first")
        many = [said("bob", version=f"v{number}") for number in range(10)]
        offers = threading.Thread(target=lambda: [running.offer(profile) for profile in many], daemon=True)
        offers.start()
        offers.join(30)
        assert not offers.is_alive(), "waits for Feast, which is given back below"
    running.close()
    assert (count("dropped") - dropped, count("written") - written) == (7, 4)


def test_a_batch_that_fails_is_counted_and_the_next_one_is_written(repository, store, caplog):
    running, failed = writer(repository, batch_size=1), count("failed")
    sqlite3.connect(online_file(store)).execute(
        f"ALTER TABLE conf_profile_{INFERRED} RENAME TO away"
    ).connection.close()
    running.offer(said("ada", FEMALE))
    wait_until(lambda: count("failed") > failed, "the failure")
    sqlite3.connect(online_file(store)).execute(
        f"ALTER TABLE away RENAME TO conf_profile_{INFERRED}"
    ).connection.close()
    running.offer(said("bob", FEMALE))
    running.close()
    assert versions(store) == [("bob", "v1")]
    assert "1 profiles were not written" in caplog.text and "ada" not in caplog.text


def test_write_back_without_a_store_is_refused_and_without_the_view_too(repository):
    assert write_back.start(Settings(model="m")) is None
    with pytest.raises(ServingError, match=r"needs features\.repository"):
        write_back.start(Settings(model="m", write_back=WriteBackSettings(enabled=True)))
    store = feature_store.connect(repository)
    store.delete_feature_view(INFERRED)
    with pytest.raises(ServingError, match="apply the definitions of feature_repo again"):
        writer(repository)


# ---- through the transformer


@pytest.fixture
def predictor():
    with serve() as running:
        text = "<rationale>x</rationale><gender>male<level>{}</level></gender>"
        running.behave = lambda number, call: completion(text.format(1 if "bob" in call.user_text else 4))
        yield running


def asked(repository, predictor, body, **given):
    """What is in the store after one request, and what the caller got."""
    connection = PredictorSettings(url=predictor.url.removesuffix("/v1"), max_attempts=1)
    configured = Settings(
        model="m",
        predictor=connection,
        features={"repository": repository},
        write_back=WriteBackSettings(**{"enabled": True, "interval_seconds": 600, **given}),
    )
    model = Bundle("v1", TAGS, EVEN, EVEN, PromptConfig(student_style="brief"), 48, {"gender": 3}, {})

    async def once():
        served = ServedVersion(model, PredictorClient(connection, model), configured, DriftMonitor(model))
        transformer = ProfileTransformer(served, OnlineFeatures(repository))
        answer, _ = await transformer(body, {})
        transformer.stop()
        return answer["predictions"]

    return asyncio.run(once())


def test_the_transformer_passes_on_what_it_accepted_of_people_of_the_store(repository, store, predictor):
    brought = {"user_id": "bob", "features": {"watch": ["x"], "consent": True}}
    asked(repository, predictor, {"instances": [{"user_id": "ada"}, {"user_id": "eve"}, brought, {"user_id": "zoe"}]})
    (row,) = offline(store)
    assert (row["user_id"], row["attributes"], row["tags"], row["levels"]) == ("ada", ["gender"], ["male"], [5])
    assert abs(row["event_timestamp"] - datetime.now(UTC)) < timedelta(minutes=1)
    assert len(predictor.calls) == 2


def test_a_lower_threshold_is_for_the_caller_alone(repository, store, predictor):
    body = {"instances": [{"user_id": "bob"}], "parameters": {"thresholds": {"gender": 1}}}
    (answer,) = asked(repository, predictor, body)
    assert answer["profile"]["gender"]["tag"] == "male"
    (row,) = offline(store)
    assert (row["user_id"], row["tags"]) == ("bob", []), "passed on although the model's own threshold is 3"


def test_it_is_off_by_default(repository, store, predictor):
    assert settings.parse({"model": "m"}, "test").write_back.enabled is False
    asked(repository, predictor, {"instances": [{"user_id": "ada"}]}, enabled=False)
    assert not offline(store)


def test_a_server_that_is_told_to_end_writes_what_waits(repository, store, predictor, tmp_path):
    TAGS.save(tmp_path / "task.yaml")
    confidence.save(EVEN, tmp_path / "calibration.json")
    (tmp_path / "profile.json").write_text('{"prompt": {"student_style": "brief"}, "max_completion_tokens": 48}')
    (tmp_path / "serving.yaml").write_text(
        yaml.safe_dump(
            {
                "model": str(tmp_path),
                "predictor": {"url": predictor.url.removesuffix("/v1")},
                "features": {"repository": str(repository)},
                "write_back": {"enabled": True, "interval_seconds": 600},
            }
        )
    )
    port = processes.free_port()
    program = [sys.executable, "-m", "serving", "--settings", str(tmp_path / "serving.yaml"), "--host", "127.0.0.1"]
    server = processes.start("serving", [*program, "--http_port", str(port)], {}, tmp_path / "log")
    try:
        server.wait_until(lambda: is_up(port), 60)
        body = {"instances": [{"user_id": "ada"}]}
        found = httpx.post(f"http://127.0.0.1:{port}/v1/models/conf-profile:predict", json=body, timeout=30)
        assert found.status_code == 200, found.text
        assert not offline(store)
        os.kill(server.guarded.pid, signal.SIGTERM)
        server.process.wait(30)
    finally:
        server.stop()
    assert [row["user_id"] for row in offline(store)] == ["ada"], server.last_words()


def is_up(port):
    try:
        return httpx.get(f"http://127.0.0.1:{port}/", timeout=2).status_code == 200
    except httpx.HTTPError:
        return False
