"""The registry against a real SeaweedFS: immutability, verification, compare-and-swap, and failures."""

import json
import os
import signal
import socket
import threading
import uuid
from concurrent.futures import ThreadPoolExecutor

import pytest

from conf_profile.config import StorageConfig
from conf_profile.errors import RegistryConflictError, RegistryError
from conf_profile.registry import registry
from conf_profile.registry.registry import connect
from conf_profile.storage.local_s3 import S3Access, credentials, local_s3, start
from support.s3 import client_of, model_folder, parts_under_way, python, storage

BUCKET = "conf-profile"
READER = S3Access("", "READER", "reads-only")
BIG = 100 << 20
# Says so and waits after each part that the server has stored, so that it can be killed in the middle for certain.
PUBLISHER = """
import os, sys
from pathlib import Path
from conf_profile.storage import object_store
from conf_profile.registry.registry import Registry

def tell(**_):
    print("part", flush=True)
    sys.stdin.read()

keys = os.environ["AWS_ACCESS_KEY_ID"], os.environ["AWS_SECRET_ACCESS_KEY"]
client = object_store.s3_client(os.environ["AWS_ENDPOINT_URL"], "us-east-1", *keys)
client.meta.events.register("after-call.s3.UploadPart", tell)
Registry("conf-profile", sys.argv[2], client).publish(Path(sys.argv[1]))
"""


@pytest.fixture(scope="module")
def access(tmp_path_factory):
    folder = tmp_path_factory.mktemp("s3")
    credentials(folder)
    add_reader(folder / "s3.json")
    with local_s3(folder) as found:
        yield found


def add_reader(path):
    identities = json.loads(path.read_text())
    pair = {"accessKey": READER.access_key, "secretKey": READER.secret_key}
    identities["identities"].append({"name": "reader", "credentials": [pair], "actions": ["Read", "List"]})
    path.write_text(json.dumps(identities))


@pytest.fixture
def models(access):
    """An empty registry with a model name of its own."""
    return connect(storage(access, f"model-{uuid.uuid4().hex}"), access)


@pytest.fixture(scope="module")
def big_model(tmp_path_factory):
    return model_folder(tmp_path_factory.mktemp("big") / "model", os.urandom(BIG))


def publish(models, tmp_path, weights):
    return models.publish(model_folder(tmp_path / weights, weights.encode()), manifest_extra={"metrics": {"f1": 0.5}})


def keys(access, prefix):
    return [
        entry["Key"] for entry in client_of(access).list_objects_v2(Bucket=BUCKET, Prefix=prefix).get("Contents", ())
    ]


def test_publish_promote_download_gives_the_same_files(models, tmp_path):
    version = publish(models, tmp_path, "one")
    champion = models.promote(version.name, {"f1": 0.5}, expected=None)
    assert (champion.version, champion.metrics, champion.previous) == (version.name, {"f1": 0.5}, None)
    assert models.download(None, tmp_path / "served") == version
    files = {p.relative_to(tmp_path / "served").as_posix() for p in (tmp_path / "served").rglob("*") if p.is_file()}
    assert files == {"model.safetensors", "config.json", "tokenizer/tokenizer.json", "manifest.json"}
    assert (tmp_path / "served" / "model.safetensors").read_bytes() == b"one"


def test_the_same_content_is_published_once(models, tmp_path):
    version = publish(models, tmp_path, "one")
    assert models.publish(tmp_path / "one") == version
    assert models.list_versions() == [version]


def test_a_version_never_changes(models, tmp_path):
    models.publish(model_folder(tmp_path / "one", b"one"), version="v1")
    with pytest.raises(RegistryConflictError, match="never changes"):
        models.publish(model_folder(tmp_path / "two", b"two"), version="v1")
    models.download("v1", tmp_path / "served")
    assert (tmp_path / "served" / "model.safetensors").read_bytes() == b"one"


@pytest.mark.parametrize("stray", ["model.safetensors", "stranger.txt"])
def test_other_content_under_an_unfinished_version_is_a_conflict(models, access, tmp_path, stray):
    key = f"models/{models.model}/versions/v1/{stray}"
    client_of(access).put_object(Bucket=BUCKET, Key=key, Body=b"from somebody else")
    with pytest.raises(RegistryConflictError, match=stray):
        models.publish(model_folder(tmp_path / "one"), version="v1")
    assert models.list_versions() == []


def test_before_the_first_promotion_there_is_no_champion(models, tmp_path):
    publish(models, tmp_path, "one")
    assert models.champion() is None
    with pytest.raises(RegistryError, match="no champion yet, run the pipeline"):
        models.download(None, tmp_path / "served")
    with pytest.raises(RegistryError, match="no such version"):
        models.promote("v9", {})


def test_a_tampered_file_is_found_on_download_and_nothing_appears(models, access, tmp_path):
    version = publish(models, tmp_path, "one")
    key = f"models/{models.model}/versions/{version.name}/model.safetensors"
    client_of(access).put_object(Bucket=BUCKET, Key=key, Body=b"eno")
    with pytest.raises(RegistryError, match=r"model\.safetensors has the SHA-256"):
        models.download(version.name, tmp_path / "served" / "model")
    assert list((tmp_path / "served").iterdir()) == []


def test_a_tampered_manifest_is_not_what_was_promoted(models, access, tmp_path):
    version = publish(models, tmp_path, "one")
    models.promote(version.name, {})
    key = f"models/{models.model}/versions/{version.name}/manifest.json"
    client_of(access).put_object(Bucket=BUCKET, Key=key, Body=client_body(access, key) + b"\n")
    with pytest.raises(RegistryError, match="not the one that was promoted"):
        models.show()


def client_body(access, key):
    return client_of(access).get_object(Bucket=BUCKET, Key=key)["Body"].read()


def test_download_fills_an_empty_folder_but_no_other(models, tmp_path):
    version = publish(models, tmp_path, "one")
    (tmp_path / "empty").mkdir()
    models.download(version.name, tmp_path / "empty")
    with pytest.raises(RegistryError, match="exists already"):
        models.download(version.name, tmp_path / "empty")


def test_rollback_moves_the_pointer_back_and_forth(models, tmp_path):
    one, two, three = (publish(models, tmp_path, name) for name in ("one", "two", "three"))
    models.promote(one.name, {})
    with pytest.raises(RegistryError, match="no predecessor"):
        models.rollback()
    models.promote(two.name, {})
    back = models.rollback()
    assert (back.version, back.previous, back.metrics) == (one.name, two.name, {"f1": 0.5})
    assert models.rollback().version == two.name
    assert models.rollback(three.name).version == three.name
    with pytest.raises(RegistryError, match="the champion already"):
        models.rollback(three.name)


def test_rollback_refuses_a_version_with_a_missing_file(models, access, tmp_path):
    one, two = (publish(models, tmp_path, name) for name in ("one", "two"))
    models.promote(one.name, {})
    models.promote(two.name, {})
    key = f"models/{models.model}/versions/{one.name}/config.json"
    client_of(access).delete_object(Bucket=BUCKET, Key=key)
    with pytest.raises(RegistryError, match=r"config\.json is missing"):
        models.rollback()
    assert models.require_champion().version == two.name


def test_of_many_promotions_at_once_exactly_one_wins(models, tmp_path):
    first = models.promote(publish(models, tmp_path, "first").name, {})
    candidates = [publish(models, tmp_path, f"candidate{n}") for n in range(6)]
    barrier = threading.Barrier(len(candidates))

    def promote(version):
        barrier.wait()
        try:
            return models.promote(version.name, {}, expected=first.etag).version
        except RegistryConflictError as error:
            return error

    with ThreadPoolExecutor(len(candidates)) as pool:
        results = list(pool.map(promote, candidates))
    winners = [result for result in results if isinstance(result, str)]
    assert winners == [models.require_champion().version]
    assert models.require_champion().previous == first.version
    losers = [str(result) for result in results if isinstance(result, RegistryConflictError)]
    assert len(losers) == 5
    assert all(f"another promotion came first, the champion is now {winners[0]}" in text for text in losers)


def test_of_two_first_promotions_one_wins(models, tmp_path):
    one, two = (publish(models, tmp_path, name) for name in ("one", "two"))
    models.promote(one.name, {}, expected=None)
    with pytest.raises(RegistryConflictError, match="came first"):
        models.promote(two.name, {}, expected=None)
    assert models.promote(one.name, {}, expected=None) == models.require_champion()


def test_a_wrong_secret_an_unknown_key_and_missing_rights_are_told_apart(models, access, tmp_path):
    folder = model_folder(tmp_path / "one")
    config = storage(access, models.model)
    with pytest.raises(RegistryError, match="AWS_SECRET_ACCESS_KEY"):
        connect(config, S3Access(access.endpoint, access.access_key, "wrong"))
    with pytest.raises(RegistryError, match="AWS_ACCESS_KEY_ID"):
        connect(config, S3Access(access.endpoint, "NOBODY", "wrong"))
    reader = connect(config, S3Access(access.endpoint, READER.access_key, READER.secret_key))
    with pytest.raises(RegistryError, match="access denied"):
        reader.publish(folder)
    assert keys(access, f"models/{models.model}/") == []


def test_a_missing_bucket_is_named_or_made(access):
    config = storage(access, "m", bucket="made-on-demand")
    with pytest.raises(RegistryError, match=r"'made-on-demand'.*does not exist"):
        connect(config, access, create_bucket=False)
    assert connect(config, access).list_versions() == []
    assert connect(config, access, create_bucket=False).list_versions() == []


def test_an_endpoint_where_nobody_listens(monkeypatch):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        endpoint = f"http://127.0.0.1:{unused.getsockname()[1]}"
        with pytest.raises(RegistryError, match=f"{endpoint}: the server does not answer"):
            connect(StorageConfig(), S3Access(endpoint, "a", "b"))


def test_without_an_endpoint_or_keys_the_error_says_what_to_set(access, monkeypatch, tmp_path):
    for name in ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(RegistryError, match="AWS_ENDPOINT_URL"):
        connect(StorageConfig())
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    with pytest.raises(RegistryError, match="no keys; set AWS_ACCESS_KEY_ID"):
        connect(storage(access, "m"))


def test_a_publisher_killed_in_the_middle_leaves_no_version_and_goes_on(models, access, big_model):
    prefix, client = f"models/{models.model}/", client_of(access)
    killed = python(PUBLISHER, str(big_model), models.model, environment={**os.environ, **access.environment()})
    # Several threads may write before one of them ends its line.
    assert killed.stdout.readline().startswith("part")
    killed.kill()
    killed.communicate()
    assert parts_under_way(client, BUCKET, prefix) > 0
    assert models.list_versions() == []
    (unfinished,) = {key.split("/")[3] for key in keys(access, prefix)}
    version = models.publish(big_model)
    assert version.name == unfinished
    assert version.bytes > BIG
    assert parts_under_way(client, BUCKET, prefix) == 0


def test_a_server_killed_during_the_upload_and_started_again(tmp_path, big_model):
    server = start(tmp_path / "s3")
    connect(StorageConfig(), server.access)  # makes the bucket
    client, stored, dead = client_of(server.access), threading.Event(), threading.Event()

    def hold(**_):
        stored.set()
        dead.wait(60)

    client.meta.events.register("after-call.s3.UploadPart", hold)
    with ThreadPoolExecutor(1) as pool:
        upload = pool.submit(registry.Registry(BUCKET, "conf-profile", client).publish, big_model)
        assert stored.wait(60)
        os.kill(server.pid, signal.SIGKILL)
        dead.set()
        with pytest.raises(RegistryError, match="the server does not answer"):
            upload.result()
    server.stop()
    with local_s3(tmp_path / "s3") as access:
        models = connect(StorageConfig(), access)
        assert models.list_versions() == []
        kept = keys(access, "models/")
        version = models.publish(big_model)
        assert {key.split("/")[3] for key in kept} == {version.name}
        models.promote(version.name, {})
        assert models.download(None, tmp_path / "served") == version


def test_an_upload_that_never_ends_is_not_a_version_for_anybody(models, access):
    client = client_of(access)
    key = f"models/{models.model}/versions/v1/model.safetensors"
    client.create_multipart_upload(Bucket=BUCKET, Key=key)
    client.put_object(Bucket=BUCKET, Key=f"models/{models.model}/versions/v1/config.json", Body=b"{}")
    assert models.list_versions() == []
    with pytest.raises(RegistryError, match="no such version"):
        models.show("v1")


def test_the_uri_of_a_model_reads_back(models):
    assert registry.parse_uri(models.uri("v1")) == registry.ModelURI(BUCKET, models.model, "v1")
