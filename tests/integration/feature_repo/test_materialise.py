"""The jobs of a feature repository: rows come online once and in time, from files and from S3; users go for good."""

from datetime import UTC, datetime, timedelta

import boto3
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from conf_profile import tables
from conf_profile.data import exact
from conf_profile.errors import DataError
from conf_profile.storage import object_store
from conf_profile.storage.local_s3 import local_s3
from feature_repo import erase, jobs, materialise
from feature_repo import store as feature_store
from support.certificates import make_authority, make_certificate
from support.s3_stub import Habits, s3_stub

NOW = datetime.now(UTC).replace(microsecond=0)
LATE = timedelta(hours=24)
OLD = timedelta(days=900)
"""Feast's own incremental materialisation begins a year ago."""


def write_tables(folder, rows):
    """`rows`: user -> (age of the row, what the user watched)."""
    behaviour = [
        {"user_id": user, "event_timestamp": NOW - age, "watch": [watched], "search": [], "submit": []}
        for user, (age, watched) in rows.items()
    ]
    nothing = dict.fromkeys(("self_age", "self_gender", "signature", "region"))
    demographics = [
        {"user_id": user, "event_timestamp": NOW - age, **nothing, "consent": True} for user, (age, _) in rows.items()
    ]
    folder.mkdir(exist_ok=True)
    tables.write(folder / "behaviour.parquet", tables.from_rows(behaviour, tables.BEHAVIOUR), tables.BEHAVIOUR)
    tables.write(
        folder / "demographics.parquet", tables.from_rows(demographics, tables.DEMOGRAPHICS), tables.DEMOGRAPHICS
    )


def write_repository(folder, registry):
    folder.mkdir()
    settings = {
        "project": "conf_profile",
        "provider": "local",
        "registry": {"registry_type": "file", "path": registry, "cache_ttl_seconds": 0},
        "offline_store": {"type": "file"},
        "online_store": {"type": "sqlite", "path": str(folder / "online.db")},
        "entity_key_serialization_version": 3,
    }
    (folder / "feature_store.yaml").write_text(yaml.safe_dump(settings))
    return folder


@pytest.fixture(autouse=True)
def own_session(monkeypatch):
    """Feast asks boto3's default session, which keeps the keys that the process first had."""
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)


@pytest.fixture
def repository(tmp_path, monkeypatch):
    for name in ("behaviour", "demographics"):
        monkeypatch.setenv(f"CONF_PROFILE_{name.upper()}", str(tmp_path / "tables" / f"{name}.parquet"))
    return write_repository(tmp_path / "features", str(tmp_path / "features" / "registry.db"))


def bring(repository, now=NOW, full=False):
    """As a job does, at a moment of the test's choice."""
    with jobs.repository(repository) as store:
        materialise.register(store)
        intervals = materialise.plan(store, now, LATE, full)
        materialise.run(store, intervals)
    return intervals


def test_feasts_registry_is_kept_at_a_store_that_knows_no_trailing_checksums(repository, tmp_path, monkeypatch):
    write_tables(tmp_path / "tables", {"u1": (timedelta(hours=1), "chess")})
    authority = make_authority(tmp_path / "authority")
    with s3_stub(Habits(knows_trailers=False, refuses_unencrypted=True), make_certificate(authority)) as stub:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", stub.url)
        monkeypatch.setenv("AWS_CA_BUNDLE", str(authority.path))
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
        # What the job sets itself is taken back with the rest.
        monkeypatch.setenv("AWS_REQUEST_CHECKSUM_CALCULATION", "")
        monkeypatch.delenv("AWS_REQUEST_CHECKSUM_CALCULATION")
        settings = yaml.safe_load((repository / "feature_store.yaml").read_text())
        encrypted = {"s3_additional_kwargs": {"ServerSideEncryption": "AES256"}}
        settings["registry"] |= {"path": "s3://bucket/feast/registry.db", **encrypted}
        (repository / "feature_store.yaml").write_text(yaml.safe_dump(settings))
        with jobs.repository(repository) as store:
            materialise.register(store)
        assert b"behaviour" in stub.buckets["bucket"]["feast/registry.db"]


def watched(repository, *users):
    known = feature_store.read_online(feature_store.connect(repository), users)
    return [user and user.features.texts("watch")[0] for user in known]


def test_the_first_time_everything_comes_online(repository, tmp_path):
    write_tables(tmp_path / "tables", {"old": (OLD, "tea"), "new": (timedelta(hours=1), "jazz")})
    intervals = bring(repository)
    assert {interval.start for interval in intervals} == {feature_store.EPOCH}
    assert watched(repository, "old", "new", "nobody") == ["tea", "jazz", None]


def test_then_what_is_new_or_late(repository, tmp_path):
    write_tables(tmp_path / "tables", {"old": (OLD, "tea")})
    bring(repository)
    rows = {
        "old": (OLD, "changed without a new time"),
        "late": (LATE / 2, "late"),
        "too late": (LATE * 2, "missed"),
        "new": (-timedelta(minutes=5), "new"),
    }
    write_tables(tmp_path / "tables", rows)
    intervals = bring(repository, NOW + timedelta(minutes=15))
    assert {interval.start for interval in intervals} == {NOW - LATE}
    assert watched(repository, *rows) == ["tea", "late", None, "new"]
    bring(repository, NOW + timedelta(minutes=30), full=True)
    assert watched(repository, "old", "too late") == ["changed without a new time", "missed"]


def test_a_call_that_was_killed_is_repeated(repository, tmp_path):
    from feast.feature_view import FeatureViewState

    write_tables(tmp_path / "tables", {"old": (OLD, "tea")})
    with jobs.repository(repository) as store:
        materialise.register(store)
        # What the registry says while a materialisation is under way, and for ever after a kill.
        view = store.get_feature_view("behaviour")
        view.state = FeatureViewState.MATERIALIZING
        store.registry.apply_feature_view(view, store.project, commit=True)
    assert bring(repository)[0].start == feature_store.EPOCH
    assert watched(repository, "old") == ["tea"]


def test_tables_that_are_not_named(repository):
    with (
        jobs.repository(repository) as store,
        pytest.raises(DataError, match="CONF_PROFILE_BEHAVIOUR, CONF_PROFILE_DEM"),
    ):
        materialise.register(store, {})


def test_tables_that_are_not_there(repository, capsys):
    with pytest.raises(SystemExit) as ended:
        materialise.main([f"--repository={repository}"])
    assert ended.value.code == 2
    message = capsys.readouterr().err
    assert message.startswith("materialise: ") and "behaviour.parquet" in message and message.count("\n") == 1


def test_tables_that_feast_would_misread(repository, tmp_path, capsys):
    write_tables(tmp_path / "tables", {"7": (OLD, "tea")})
    path = tmp_path / "tables" / "behaviour.parquet"
    table = pq.read_table(path)
    numbers = table.set_column(0, "user_id", table.column("user_id").cast(pa.int64()))
    pq.write_table(numbers, path)
    with pytest.raises(SystemExit):
        materialise.main([f"--repository={repository}"])
    message = capsys.readouterr().err
    assert f"{path}: the column 'user_id' has the type int64, not string; write it in the exact form" in message
    exact.write_exact(path, tables.BEHAVIOUR, path)
    materialise.main([f"--repository={repository}"])
    assert watched(repository, "7") == ["tea"]


def test_registry_and_tables_in_s3(tmp_path, monkeypatch):
    with local_s3(tmp_path / "s3") as access:
        for name, value in access.environment().items():
            monkeypatch.setenv(name, value)
        for name in ("behaviour", "demographics"):
            monkeypatch.setenv(f"CONF_PROFILE_{name.upper()}", f"s3://lake/tables/{name}.parquet")
        client = object_store.s3_client(access.endpoint, access.region, access.access_key, access.secret_key)
        client.create_bucket(Bucket="lake")
        repository = write_repository(tmp_path / "features", "s3://lake/feast/registry.db")
        materialise.main([f"--repository={repository}", "--register-only"])
        assert watched(repository, "old") == [None]
        write_tables(tmp_path / "tables", {"old": (OLD, "tea")})
        for file in (tmp_path / "tables").iterdir():
            client.upload_file(str(file), "lake", f"tables/{file.name}")
        materialise.main([f"--repository={repository}"])
        assert watched(repository, "old") == ["tea"]
        # Another pod has nothing but feature_store.yaml, and knows where the last one ended.
        with jobs.repository(repository) as store:
            assert all(feature_store.read_materialised_until(store, view) for view in feature_store.MATERIALISED_VIEWS)


def test_users_of_a_file_are_erased_and_not_named(repository, tmp_path, capsys):
    write_tables(tmp_path / "tables", {name: (timedelta(hours=1), name) for name in ("ada", "bob", "cyd")})
    bring(repository)
    (tmp_path / "users").write_text("ada\n\n cyd \nada\n")
    capsys.readouterr()
    erase.main([f"--repository={repository}", f"--users={tmp_path / 'users'}"])
    assert watched(repository, "ada", "bob", "cyd") == [None, "bob", None]
    said = capsys.readouterr().out
    assert "user 2 of 2: features: online, sqlite: 8 removed, 0 left" in said
    assert "ada" not in said and "cyd" not in said


@pytest.mark.parametrize("text", [None, "\n \n"])
def test_an_erasure_without_users(repository, tmp_path, capsys, text):
    if text is not None:
        (tmp_path / "users").write_text(text)
    with pytest.raises(SystemExit) as ended:
        erase.main([f"--repository={repository}", f"--users={tmp_path / 'users'}"])
    assert ended.value.code == 2
    assert f"{tmp_path / 'users'}: " in capsys.readouterr().err
