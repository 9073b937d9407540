"""Erasing one user from a bucket and from KFP's artefacts: nothing of theirs is left, and nobody else loses a row.

Real SeaweedFS. The proof does not trust the code under test: every version of every object is read to its last byte,
tables decoded.
"""

import io
import json
from datetime import UTC, datetime

import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from conf_profile import parquet_rows, tables
from conf_profile.cli import places
from conf_profile.cli.main import cli
from conf_profile.erasure import record as erasure_record
from conf_profile.erasure import store as erasure_store
from conf_profile.errors import ConfProfileError, RegistryConflictError
from conf_profile.registry import registry
from conf_profile.storage import object_store, object_versions
from conf_profile.storage.local_s3 import local_s3
from conf_profile.storage.object_store import ObjectStore
from conf_profile.teachers import remote_answers
from conf_profile.teachers.answers import AnswerStore
from conf_profile.teachers.protocol import Completion
from support.s3 import client_of, model_folder, storage

ADA, BOB, EVE = "user-ada", "user-bob", "user-eve"
AS_OF = datetime(2025, 6, 1, 12, tzinfo=UTC)
PROMPT = ({"role": "user", "content": "watch: chess"},)
EMPTY = {"self_age": None, "self_gender": None, "signature": None, "region": None}
ROOT = "pipelines/training/run-1"


@pytest.fixture(scope="module")
def access(tmp_path_factory):
    with local_s3(tmp_path_factory.mktemp("s3")) as found:
        yield found


@pytest.fixture(autouse=True)
def environment(access, monkeypatch):
    for name, value in access.environment().items():
        monkeypatch.setenv(name, value)


@pytest.fixture(scope="module")
def bucket(access):
    """One for all tests: SeaweedFS takes seconds to make room for another."""
    found = ObjectStore(client_of(access), "profiles")
    found.ensure_bucket(create=True)
    return found


@pytest.fixture
def store(bucket):
    yield bucket
    object_versions.delete(bucket, list(object_versions.list_all(bucket, "")))


def behaviour(user):
    return {"user_id": user, "event_timestamp": AS_OF, "watch": [f"{user} watches"], "search": [], "submit": []}


def features(user, split):
    return {**behaviour(user), **EMPTY, "split": split}


def put_table(store, key, table, *rows):
    buffer = io.BytesIO()
    pq.write_table(tables.from_rows(rows, table), buffer)
    store.write_new(key, buffer.getvalue())


def keep_answers(store, *users):
    place = f"s3://{store.bucket}/answers/conf-profile"
    with (
        remote_answers.folder_of(place, "a teacher", "shard-0", "shard-*") as folder,
        AnswerStore(folder, "a teacher", "shard-0") as kept,
    ):
        for user in users:
            kept.keep(PROMPT, Completion(user, len(kept), f"about {user}"))
        kept.keep_spent("job", len(users) + kept.read_spent("job"))


@pytest.fixture
def filled(store):
    return fill(store)


BOTH, OTHERS = f"retained-30d-1-{'a' * 32}", f"retained-30d-1-{'b' * 32}"
"""Folders of uploads."""


def fill(store):
    """What two data sets and a run on a cluster leave in a bucket: ada in one data set, bob and eve in both."""
    label = {"attribute": "age", "tag": "25+"}
    for name, users in ((BOTH, (ADA, BOB, EVE)), (OTHERS, (BOB, EVE))):
        put_table(store, f"data/{name}/behaviour.parquet", tables.BEHAVIOUR, *map(behaviour, users))
        store.write_new(f"data/{name}/taxonomy.yaml", b"attributes: {age: ['18-24', '25+']}")
        put_table(store, f"truth/{name}/labels.parquet", tables.LABELS, *({"user_id": user} | label for user in users))
    keep_answers(store, ADA, BOB)
    keep_answers(store, ADA, EVE)
    rows = [features(user, split) for user, split in ((ADA, "train"), (BOB, "train"), (EVE, "test"))]
    put_table(store, f"{ROOT}/features/1/features", tables.FEATURES, *rows)
    kept = [{"user_id": user, "confidence": 0.9, "kept": True} for user in (ADA, ADA, BOB)]
    put_table(store, f"{ROOT}/filtering/2/filtered", tables.FILTERED, *kept)
    store.write_new(f"{ROOT}/evaluation/3/metrics", b'{"f1": 0.5}')
    store.write_new(f"{ROOT}/sft/4/student/model.safetensors", b"weights")
    store.client.create_multipart_upload(Bucket=store.bucket, Key=f"{ROOT}/sft/5/big")
    return store


def erase(store, user, *options):
    """The command; gives its exception, rows removed and left by store, and the versions."""
    result = CliRunner().invoke(cli, ["erase", user, "--cluster", f"--bucket={store.bucket}", "--json", *options])
    if result.exception and not isinstance(result.exception, ConfProfileError):
        raise result.exception
    shown = json.loads(result.stdout) if result.stdout.startswith("{") else {"stores": [], "versions": []}
    return result.exception, {one["store"]: (one["removed"], one["left"]) for one in shown["stores"]}, shown["versions"]


def contents(store):
    """(key, text of the whole object, tables decoded) of everything that is stored, older versions too."""
    for found in object_versions.list_all(store, ""):
        if not found.is_marker:
            which = {} if found.version in (None, "null") else {"VersionId": found.version}
            body = store.client.get_object(Bucket=store.bucket, Key=found.key, **which)["Body"].read()
            decoded = pq.read_table(io.BytesIO(body)).to_pylist() if body.startswith(b"PAR1") else ""
            yield found.key, f"{body!r} {decoded}"


def holding(store, user):
    return {key for key, text in contents(store) if user in text}


def rows_of(store, key, user):
    return [row for row in pq.read_table(io.BytesIO(store.read(key).body)).to_pylist() if row["user_id"] == user]


def another_bucket(access, name):
    found = ObjectStore(client_of(access), name)
    found.ensure_bucket(create=True)
    return found


def test_every_store_loses_the_user_and_no_other(filled):
    assert len(holding(filled, ADA)) == 6
    shared = (f"{ROOT}/features/1/features", f"{ROOT}/filtering/2/filtered")
    others = {key: rows_of(filled, key, BOB) for key in shared}
    weights = filled.etag(f"{ROOT}/sft/4/student/model.safetensors")
    error, rows, _ = erase(filled, ADA)
    assert error is None
    assert rows == {
        "uploads: data/": (1, 0),
        "uploads: truth/": (1, 0),
        "kept answers": (2, 0),
        f"artefacts: s3://{filled.bucket}/pipelines/": (3, 0),
        f"your own s3://{filled.bucket}/tables/ (not touched)": (0, 0),
        "unfinished uploads": (1, 0),
    }
    assert holding(filled, ADA) == set()
    assert {key: rows_of(filled, key, BOB) for key in others} == others
    assert filled.etag(f"{ROOT}/sft/4/student/model.safetensors") == weights
    assert {key.split("/")[1] for key in filled.sizes("") if key.startswith(("data/", "truth/"))} == {OTHERS}
    assert len(filled.sizes(f"data/{OTHERS}/")) == 2


def test_a_versioned_bucket_keeps_no_older_version(access):
    filled = another_bucket(access, "versioned")
    filled.client.put_bucket_versioning(Bucket=filled.bucket, VersioningConfiguration={"Status": "Enabled"})
    fill(filled)
    key = f"{ROOT}/old/6/features"
    put_table(filled, key, tables.FEATURES, features(ADA, "test"))
    filled.delete(key)
    error, rows, _ = erase(filled, ADA)
    assert error is None
    assert rows[f"older versions, artefacts: s3://{filled.bucket}/pipelines/"] == (4, 0)
    assert rows["older versions, uploads: data/"] == (1, 0)
    assert holding(filled, ADA) == set()
    assert rows_of(filled, f"{ROOT}/features/1/features", BOB)


def test_what_was_paid_and_the_answers_of_others_stay(filled):
    erase(filled, ADA)
    place = f"s3://{filled.bucket}/answers/conf-profile"

    def kept():
        with (
            remote_answers.folder_of(place, "a teacher", "shard-0", "shard-*") as folder,
            AnswerStore(folder, "a teacher", "shard-0") as found,
        ):
            return found.read_spent("job"), [found.text(user, PROMPT, sample) for user, sample in ((BOB, 1), (EVE, 3))]

    assert kept() == (4, [f"about {BOB}", f"about {EVE}"])
    keep_answers(filled, "user-new")
    assert kept()[0] == 5, "what comes after an erasure must be read after it"


def test_somebody_unknown_is_erased_without_a_trace(filled):
    before = {key: filled.etag(key) for key in filled.sizes("")}
    error, rows, versions = erase(filled, "nobody")
    del rows["unfinished uploads"]
    assert (error, set(rows.values()), versions) == (None, {(0, 0)}, [])
    assert {key: filled.etag(key) for key in before} == before


def test_your_own_tables_are_yours(filled):
    put_table(filled, "tables/behaviour.parquet", tables.BEHAVIOUR, behaviour(ADA), behaviour(BOB))
    put_table(filled, "truth/labels.parquet", tables.LABELS, {"user_id": ADA, "attribute": "age", "tag": "25+"})
    put_table(filled, "data/mine/behaviour.parquet", tables.BEHAVIOUR, behaviour(ADA), behaviour(BOB))
    error, rows, _ = erase(filled, ADA)
    assert "3 row(s) are left" in str(error) and "--data-too" in str(error)
    assert rows[f"your own s3://{filled.bucket}/tables/ (not touched)"] == (0, 1)
    assert rows["uploads: truth/"] == rows["uploads: data/"] == (1, 1), "a table beside the uploads is nobody's upload"
    assert holding(filled, ADA) == {"tables/behaviour.parquet", "truth/labels.parquet", "data/mine/behaviour.parquet"}
    error, rows, _ = erase(filled, ADA, "--data-too")
    assert (error, rows[f"your own s3://{filled.bucket}/tables/"], rows["uploads: truth/"]) == (None, (1, 0), (1, 0))
    assert holding(filled, ADA) == set()
    assert rows_of(filled, "tables/behaviour.parquet", BOB) and "truth/labels.parquet" in filled.sizes("truth/")
    assert rows_of(filled, "data/mine/behaviour.parquet", BOB)


def test_artefacts_that_are_elsewhere_must_be_named(filled):
    for key in filled.sizes(f"{ROOT.split('/')[0]}/"):
        filled.delete(key)
    error, _, _ = erase(filled, ADA)
    assert "pipelines/: nothing lies there; KFP keeps the runs' artefacts elsewhere" in str(error)
    error, _, _ = erase(filled, ADA, "--allow-empty", f"--data-uri=s3://{filled.bucket}/tabels")
    assert error is None, "the place that has expired and the slip are both right, says the option"


def test_an_address_with_a_slip_proves_nothing(filled):
    error, _, _ = erase(filled, ADA, f"--data-uri=s3://{filled.bucket}/tabels")
    assert "tabels/: nothing lies there; correct --data-uri" in str(error)
    assert holding(filled, ADA), "nothing was touched"
    error, _, _ = erase(filled, " ")
    assert "USER is blank" in str(error)


def test_artefacts_in_another_bucket(filled, access):
    kfp = another_bucket(access, "mlpipeline")
    put_table(kfp, "v2/artifacts/training/run/features", tables.FEATURES, features(ADA, "train"), features(BOB, "test"))
    put_table(kfp, "v2/elsewhere/features", tables.FEATURES, features(ADA, "train"))
    address = f"s3://{kfp.bucket}/v2/artifacts?endpoint={access.endpoint}"
    _, rows, _ = erase(filled, ADA, f"--artefacts={address}")
    assert rows[f"artefacts: s3://{kfp.bucket}/v2/artifacts/"] == (1, 0)
    assert holding(kfp, ADA) == {"v2/elsewhere/features"}


def test_keys_of_the_artefacts_store_are_its_own(filled, monkeypatch):
    monkeypatch.setenv(places.ACCESS_KEY, "somebody")
    monkeypatch.setenv(places.SECRET_KEY, "else")
    error, rows, _ = erase(filled, ADA, f"--artefacts=s3://{filled.bucket}/{ROOT}")
    assert "the server does not know the access key" in str(error) and rows == {}
    assert len(holding(filled, ADA)) == 6, "nothing is erased before all places are known to open"


def test_the_versions_that_may_have_been_trained_and_the_record(filled, access, tmp_path):
    target = registry.connect(storage(access, "conf-profile", filled.bucket), access)
    version = target.publish(model_folder(tmp_path / "model"))
    target.promote(version.name, {})
    assert erase(filled, EVE)[2] == [], "test users train nothing"
    versions = erase(filled, ADA)[2]
    assert [(one["version"], one["splits"], one["champion"]) for one in versions] == [(version.name, ["train"], True)]
    assert erase(filled, ADA)[2] == versions, "forgotten with the rows"
    record = filled.read("erasures/conf-profile.jsonl").body
    assert ADA.encode() not in record
    with erasure_record.open_record_in_store(filled, "conf-profile") as folder:
        assert erasure_record.is_erased(folder, ADA) and not erasure_record.is_erased(folder, BOB)


# ---- what may go wrong


def test_rows_that_are_left_are_status_2_and_no_erasure(filled, monkeypatch):
    monkeypatch.setattr(parquet_rows, "remove", lambda path, user: 0)
    error, _, _ = erase(filled, ADA)
    assert "3 row(s) are left" in str(error)
    with erasure_record.open_record_in_store(filled, "conf-profile") as folder:
        assert not erasure_record.is_erased(folder, ADA)


def test_an_object_that_is_replaced_meanwhile_is_read_again(filled, monkeypatch):
    key = f"{ROOT}/features/1/features"
    again, replace = filled.read(key).body + b"", ObjectStore.replace
    raced = []

    def race(store, name, source, etag):
        if name == key and not raced:
            raced.append(name)
            buffer = io.BytesIO()
            pq.write_table(pq.read_table(io.BytesIO(again)).slice(0, 2), buffer)
            replace(store, name, buffer.getvalue(), etag)
        return replace(store, name, source, etag)

    monkeypatch.setattr(ObjectStore, "replace", race)
    error, _, _ = erase(filled, ADA)
    assert (error, raced, holding(filled, ADA)) == (None, [key], set())
    assert len(rows_of(filled, key, BOB)) == 1 and not rows_of(filled, key, EVE), "the writer's rows, less ada's"


def test_a_large_table_is_replaced_in_parts_and_never_over_a_writer(store, tmp_path, monkeypatch):
    monkeypatch.setattr(object_store, "MULTIPART_THRESHOLD", 1)
    path = tmp_path / "table"
    path.write_bytes(b"second")
    store.write_new("data/x", b"first")
    etag = store.etag("data/x")
    assert store.replace("data/x", path, etag) is True
    assert store.replace("data/x", path, etag) is False
    assert store.read("data/x").body == b"second" and not store.client.list_multipart_uploads(Bucket=store.bucket).get(
        "Uploads"
    )


def test_a_writer_that_never_ends_is_told(filled, monkeypatch):
    monkeypatch.setattr(ObjectStore, "replace", lambda *_: False)
    with pytest.raises(RegistryConflictError, match="wait until no run is under way"):
        for one in erasure_store.stores(filled, [erasure_store.Place(filled, "pipelines/")], [], data_too=False):
            one.remove(ADA)


def test_a_damaged_table_is_named(filled):
    filled.write_new(f"{ROOT}/labelling/7/pseudo_labels", b"PAR1 user-ada and no end")
    error, _, _ = erase(filled, ADA)
    assert f"s3://{filled.bucket}/{ROOT}/labelling/7/pseudo_labels: cannot be read as Parquet" in str(error)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--artefacts=minio://mlpipeline/v2"], "is not an S3 address"),
        (["--artefacts=s3://{bucket}"], "an empty prefix is the whole bucket"),
        (["--artefacts=s3://{bucket}/models/x"], "lies in models/"),
        (["--artefacts=s3://no-such-bucket/v2"], "the bucket does not exist"),
        (["--run=somewhere"], "leave --run and --also out"),
    ],
)
def test_bad_places(store, options, message):
    error, _, _ = erase(store, ADA, *(option.format(bucket=store.bucket) for option in options))
    assert message in str(error)
