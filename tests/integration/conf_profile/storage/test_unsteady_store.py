"""The object store and the registry through a real SeaweedFS that is away, busy, or loses its answers for a while."""

import os
import signal
import threading
import uuid

import pytest

from components.promotion import step as promotion
from conf_profile import transient
from conf_profile.config import StorageConfig
from conf_profile.errors import RegistryError
from conf_profile.registry.registry import Registry, connect
from conf_profile.storage import object_store, object_tree
from conf_profile.storage.local_s3 import local_s3, start
from conf_profile.storage.object_store import ObjectStore, digest_of
from support.s3 import client_of, model_folder, parts_under_way
from support.unsteady_proxy import BUSY, CUT, LOST, PASS, UNREACHED, UnsteadyProxy, at_retry

BUCKET = "conf-profile"
MEBIBYTE = 1 << 20
# S3 wants parts of 5 MiB at least.
BIG = os.urandom(11 * MEBIBYTE)
BIG_KEY = "shared/big"


@pytest.fixture(scope="module")
def access(tmp_path_factory):
    with local_s3(tmp_path_factory.mktemp("s3")) as found:
        connect(StorageConfig(), found)
        yield found


@pytest.fixture(scope="module")
def steady(access):
    made = client_of(access)
    made.put_object(Bucket=BUCKET, Key=BIG_KEY, Body=BIG)
    return made


@pytest.fixture(scope="module")
def big_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("big") / "big"
    path.write_bytes(BIG)
    return path


@pytest.fixture(scope="module")
def running(access):
    proxy = UnsteadyProxy(access.endpoint)
    yield proxy
    proxy.shut()


@pytest.fixture
def proxy(running):
    running.open()
    running.fail()
    running.seen.clear()
    return running


@pytest.fixture(autouse=True)
def quickly(monkeypatch):
    monkeypatch.setenv(transient.RETRY_SECONDS, "60")
    monkeypatch.setattr(transient, "FIRST_PAUSE", 0.01)
    monkeypatch.setattr(transient, "LONGEST_PAUSE", 0.05)
    monkeypatch.setattr(object_store, "MULTIPART_THRESHOLD", 10 * MEBIBYTE)
    monkeypatch.setattr(object_store, "PART_BYTES", 5 * MEBIBYTE)


def client(proxy, access, attempts=1):
    """Its own retries would hide ours; where `attempts` are more it has some."""
    keys = access.access_key, access.secret_key
    return object_store.s3_client(proxy.url, access.region, *keys, attempts=attempts)


@pytest.fixture(scope="module")
def single(running, access):
    return client(running, access)


@pytest.fixture
def store(proxy, single):
    return ObjectStore(single, BUCKET)


@pytest.fixture
def prefix():
    return uuid.uuid4().hex


class Scene:
    """A store with a small object under a prefix of its own, and files to write."""

    def __init__(self, store, steady, prefix, folder, big_file):
        self.store, self.prefix, self.folder, self.big_file = store, prefix, folder, big_file
        self.small, self.new = f"{prefix}/old/small", f"{prefix}/new"
        self.etag = steady.put_object(Bucket=BUCKET, Key=self.small, Body=b"small")["ETag"]
        self.file = folder / "file"
        self.file.write_bytes(b"of a file")

    def fetched(self, key, size):
        self.store.download(key, self.folder / "got", size)
        return (self.folder / "got").read_bytes()


@pytest.fixture
def scene(store, steady, prefix, tmp_path, big_file):
    return Scene(store, steady, prefix, tmp_path, big_file)


OPERATIONS = {
    "look": (lambda at: at.store.ensure_bucket(create=False), None),
    "create": (lambda at: at.store._create_bucket(), None),
    "read": (lambda at: at.store.read(at.small).body, b"small"),
    "read nothing": (lambda at: at.store.read(f"{at.prefix}/none"), None),
    "digest": (lambda at: at.store.digest(BIG_KEY), digest_of(BIG)),
    "download": (lambda at: at.fetched(at.small, 5), b"small"),
    "download parts": (lambda at: at.fetched(BIG_KEY, len(BIG)) == BIG, True),
    "etag": (lambda at: at.store.etag(at.small) == at.etag, True),
    "size": (lambda at: at.store.size(at.small), 5),
    "sizes": (lambda at: list(at.store.sizes(at.prefix).values()), [5]),
    "folders": (lambda at: at.store.folders(f"{at.prefix}/"), ["old"]),
    "write bytes": (lambda at: at.store.write_new(at.new, b"new"), True),
    "write a file": (lambda at: at.store.write_new(at.new, at.file), True),
    "write parts": (lambda at: at.store.write_new(at.new, at.big_file), True),
    "lose to another": (lambda at: at.store.write_new(at.small, b"other"), False),
    "replace": (lambda at: at.store.replace(at.small, b"newer", at.etag), True),
    "drop parts": (lambda at: at.store.abort_uploads(at.prefix), None),
    "delete": (lambda at: object_tree.clear(at.store, at.small), None),
}


@pytest.mark.parametrize("name", ["look", "read", "download parts", "write a file", "write parts"])
def test_refused_connections_are_waited_for(name, scene, proxy):
    operation, expected = OPERATIONS[name]
    proxy.shut()
    with at_retry(2, proxy.open):
        assert operation(scene) == expected


@pytest.mark.parametrize("name", OPERATIONS)
def test_three_of_four_requests_may_fail(name, scene, proxy):
    operation, expected = OPERATIONS[name]
    proxy.repeat(LOST, BUSY, UNREACHED, PASS)
    assert operation(scene) == expected
    assert len(proxy.seen) >= 4


@pytest.mark.parametrize("name", ["read", "digest", "download", "download parts", "sizes", "folders"])
def test_cut_bodies_are_read_again_from_the_beginning(name, scene, proxy):
    operation, expected = OPERATIONS[name]
    # Broken bodies are read again at once, too.
    proxy.fail(CUT, CUT, CUT)
    assert operation(scene) == expected


def test_what_was_written_while_answers_were_lost_is_whole(scene, proxy, steady):
    proxy.repeat(LOST, PASS)
    assert scene.store.write_new(scene.new, scene.big_file)
    assert steady.get_object(Bucket=BUCKET, Key=scene.new)["Body"].read() == BIG
    scene.store.abort_uploads(scene.prefix)
    assert parts_under_way(steady, BUCKET, scene.prefix) == 0


@pytest.mark.parametrize("attempts", [1, 4], ids=["our retries", "the client's retries"])
@pytest.mark.parametrize("budget", ["60", ""], ids=["budget", "none"])
def test_a_write_whose_reply_was_lost_has_won(proxy, access, steady, prefix, monkeypatch, attempts, budget):
    monkeypatch.setenv(transient.RETRY_SECONDS, budget)
    store, key = ObjectStore(client(proxy, access, attempts), BUCKET), f"{prefix}/new"
    proxy.fail(LOST, method="PUT")
    if budget or attempts > 1:
        assert store.write_new(key, b"ours")
    else:
        with pytest.raises(RegistryError, match="does not answer"):
            store.write_new(key, b"ours")
    assert steady.get_object(Bucket=BUCKET, Key=key)["Body"].read() == b"ours"


def test_of_a_listing_only_the_lost_page_is_asked_for_again(proxy, access, steady, prefix):
    names = [f"{prefix}/{number}/x" for number in range(5)]
    for name in names:
        steady.put_object(Bucket=BUCKET, Key=name, Body=b"x")
    in_pairs = client(proxy, access)
    in_pairs.meta.events.register("provide-client-params.s3.ListObjectsV2", lambda params, **_: params | {"MaxKeys": 2})
    proxy.repeat(PASS, LOST)
    store = ObjectStore(in_pairs, BUCKET)
    assert list(store.sizes(prefix)) == names
    # Three pages, the second and the third once more.
    assert [outcome for *_, outcome in proxy.seen] == [PASS, LOST, PASS, LOST, PASS]
    assert store.folders(f"{prefix}/") == ["0", "1", "2", "3", "4"]


def test_another_writers_object_is_a_conflict_after_a_retry_too(scene, proxy):
    proxy.fail(BUSY, method="PUT")
    assert not scene.store.write_new(scene.small, b"other")
    proxy.fail(UNREACHED, method="PUT")
    assert not scene.store.replace(scene.small, b"other", '"another"')
    # Without a retry the object is another writer's even if it holds the same.
    assert not scene.store.write_new(scene.small, b"small")


def test_another_writers_object_ends_an_upload_in_parts(scene, proxy, steady):
    proxy.fail(BUSY, BUSY, method="P")
    assert not scene.store.write_new(scene.small, scene.big_file)
    assert parts_under_way(steady, BUCKET, scene.small) == 0


def test_what_does_not_pass_is_told_at_once(proxy, access, single, prefix, caplog):
    wrong = object_store.s3_client(proxy.url, access.region, access.access_key, "wrong", attempts=1)
    with pytest.raises(RegistryError, match="AWS_SECRET_ACCESS_KEY"):
        ObjectStore(wrong, BUCKET).read(prefix)
    with pytest.raises(RegistryError, match="does not exist"):
        ObjectStore(single, f"no-{prefix}").ensure_bucket(create=False)
    assert len(proxy.seen) == 2 and not caplog.records


def test_when_the_budget_is_used_up_the_error_says_so(proxy, single, monkeypatch):
    monkeypatch.setenv(transient.RETRY_SECONDS, "0.2")
    store = ObjectStore(single, BUCKET)
    proxy.shut()
    with pytest.raises(RegistryError, match=r"does not answer.*; tried for \d s \(CONF_PROFILE_RETRY_SECONDS=0.2\)"):
        store.read("x")


def test_without_a_budget_an_outage_is_told_at_once(proxy, single, monkeypatch, caplog):
    monkeypatch.delenv(transient.RETRY_SECONDS)
    store = ObjectStore(single, BUCKET)
    proxy.fail(BUSY)
    with pytest.raises(RegistryError, match="SlowDown"):
        store.read("x")
    assert len(proxy.seen) == 1 and not caplog.records


def test_what_is_logged_names_no_keys(scene, proxy, access, caplog):
    proxy.fail(BUSY)
    scene.store.read(scene.small)
    line = caplog.records[0].getMessage()
    assert line.startswith(f"bucket '{BUCKET}' at {proxy.url}: cannot read {scene.small}: 503 SlowDown; next try in ")
    assert access.access_key not in caplog.text and access.secret_key not in caplog.text


# ---- the registry and the promotion


def test_a_promotion_through_a_store_that_fails_every_second_request(proxy, single, tmp_path):
    models = Registry(BUCKET, f"model-{uuid.uuid4().hex}", single)
    first = models.publish(model_folder(tmp_path / "one", b"one"))
    models.promote(first.name, {}, expected=None)
    proxy.repeat(LOST, PASS, BUSY, PASS, UNREACHED, PASS, CUT, PASS)
    second = models.publish(model_folder(tmp_path / "two", BIG))
    champion = models.promote(second.name, {"f1": 0.5})
    assert (champion.version, champion.previous, champion.metrics) == (second.name, first.name, {"f1": 0.5})
    assert models.download(None, tmp_path / "served") == second
    assert (tmp_path / "served" / "model.safetensors").read_bytes() == BIG
    assert [version.name for version in models.list_versions()] == [first.name, second.name]


@pytest.mark.parametrize("number", [1, 7, 8], ids=["first file", "manifest", "pointer"])
def test_the_step_promotes_although_the_store_goes_away_at_its_nth_write(
    number, proxy, access, single, tmp_path, monkeypatch
):
    name, writes, back = f"model-{uuid.uuid4().hex}", [], threading.Event()

    def behave(method, path):
        writes.extend([path] if method == "PUT" else [])
        return UNREACHED if len(writes) >= number and not back.is_set() else PASS

    monkeypatch.setattr(object_store, "s3_client", lambda *_, **__: single)
    (tmp_path / "evaluation.json").write_text('{"arms": {}}')
    (tmp_path / "gate.json").write_text('{"decision": "promote"}')
    proxy.behave = behave
    with at_retry(3, back.set):
        outcome = promotion.run(
            model_folder(tmp_path / "model"),
            tmp_path / "evaluation.json",
            tmp_path / "gate.json",
            "0" * 64,
            tmp_path / "outcome.json",
            StorageConfig(endpoint=proxy.url, model=name),
            "{}",
            "",
        )
    assert len(set(writes)) == 8
    assert Registry(BUCKET, name, single).require_champion().version == outcome["version"]


def test_a_promotion_goes_on_after_the_server_was_killed_and_started_again(tmp_path, big_file, monkeypatch):
    # How long a busy machine takes to start the server again is not what is tested.
    monkeypatch.setenv(transient.RETRY_SECONDS, "600")
    servers = [start(tmp_path / "s3")]
    unsteady = UnsteadyProxy(servers[0].access.endpoint)
    models = Registry(BUCKET, "m", client(unsteady, servers[0].access))
    connect(StorageConfig(), servers[0].access)
    folder = model_folder(tmp_path / "model", big_file.read_bytes())

    def behave(method, path):
        if "partNumber=2" in path and len(servers) == 1:
            os.kill(servers[0].pid, signal.SIGKILL)
            return UNREACHED
        return PASS

    def again():
        servers[0].stop()
        servers.append(start(tmp_path / "s3"))
        unsteady.upstream = servers[1].access.endpoint

    unsteady.behave = behave
    try:
        with at_retry(1, again):
            version = models.publish(folder)
            models.promote(version.name, {})
        assert models.download(None, tmp_path / "served") == version
    finally:
        unsteady.shut()
        servers[-1].stop()
