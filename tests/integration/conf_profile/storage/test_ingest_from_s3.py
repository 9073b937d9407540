"""Events in S3: folders with partitions, brought here in portions, with the same messages as for files."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from conf_profile.errors import DataError, RegistryError
from conf_profile.ingest import sources
from conf_profile.ingest.ingest import ingest
from conf_profile.ingest.plan import make_plan
from conf_profile.storage import object_store
from conf_profile.storage.local_s3 import local_s3

COLUMNS = {"user": "uid", "time": "ts", "text": "title", "kind": "kind"}


@pytest.fixture(scope="module")
def put(tmp_path_factory):
    """Puts a text or a table under a key of the bucket `lake`."""
    folder = tmp_path_factory.mktemp("s3")
    with pytest.MonkeyPatch.context() as environment, local_s3(folder / "s3") as access:
        for name, value in access.environment().items():
            environment.setenv(name, value)
        client = object_store.s3_client(access.endpoint, access.region, access.access_key, access.secret_key)
        client.create_bucket(Bucket="lake")

        def put(key, content):
            if isinstance(content, dict):
                pq.write_table(pa.table(content), folder / "t.parquet")
                content = (folder / "t.parquet").read_bytes()
            client.put_object(Bucket="lake", Key=key, Body=content)

        yield put


def run(out, place, **values):
    return ingest(make_plan({"events": [place], **COLUMNS, "consent_for_all": True, **values}, out))


@pytest.mark.parametrize("portion", [1, 2, 100])
def test_a_folder_with_partitions_comes_in_portions(put, tmp_path, monkeypatch, portion):
    monkeypatch.setattr(sources, "PORTION_FILES", portion)
    for number, kind in enumerate(("watch", "search", "watch")):
        put(
            f"logs/kind={kind}/day={number}/part.parquet",
            {"uid": [7], "ts": [f"2025-01-0{number + 1}"], "title": [f"t{number}"]},
        )
    put("logs/_SUCCESS", b"")
    put("logs-of-others/x.csv", b"nothing")
    report = run(tmp_path / "out", "s3://lake/logs")
    (row,) = pq.read_table(tmp_path / "out" / "behaviour.parquet").to_pylist()
    assert (row["user_id"], row["watch"], row["search"], report.files) == ("7", ["t0", "t2"], ["t1"], 3)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "behaviour.parquet", "demographics.parquet", "ingest.json", "task.yaml",
    ]  # fmt: skip


def test_users_and_messages_name_the_address(put, tmp_path):
    put("one/events.csv", b"uid,ts,kind,title\n7,2025-01-01,a,b\n,2025-01-01,a,b\n")
    put("one/users.csv", b"uid,ok\n7,maybe\n")
    with pytest.raises(DataError, match=r"first: s3://lake/one/events\.csv: row 1"):
        run(tmp_path / "out", "s3://lake/one/events.csv")
    users = {"path": "s3://lake/one/users.csv", "consent": "ok"}
    with pytest.raises(DataError, match=r"s3://lake/one/users\.csv: row 0: the column 'ok' says neither yes nor no"):
        run(tmp_path / "out", "s3://lake/one/events.csv", max_dropped=0.5, users=users, consent_for_all=False)
    assert list(tmp_path.iterdir()) == []


def test_places_with_nothing(put, tmp_path):
    with pytest.raises(DataError, match="s3://lake/nowhere: there is no such object, nor one below it"):
        run(tmp_path / "out", "s3://lake/nowhere")
    with pytest.raises(RegistryError, match="no-such-bucket"):
        run(tmp_path / "out", "s3://no-such-bucket/x")
