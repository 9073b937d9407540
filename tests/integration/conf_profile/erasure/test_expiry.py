"""Lifecycle rules and sweeps on a real SeaweedFS; a stub where a server must refuse what SeaweedFS takes.

SeaweedFS 4.48 takes rules with a prefix, days, noncurrent versions and unfinished uploads, and gives them back as
they were; it refuses transitions. Whether it acts on them depends on its own workers, which no test waits for.
"""

import http.server
import json
import threading
import uuid
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

import pytest
from click.testing import CliRunner

from conf_profile.cli.main import cli
from conf_profile.erasure import expiry
from conf_profile.erasure.retention import EXPIRING_PREFIXES, RULED_PREFIXES, Retention
from conf_profile.errors import RegistryError
from conf_profile.storage import object_store, object_versions
from conf_profile.storage.local_s3 import local_s3
from conf_profile.storage.object_store import ObjectStore
from support.s3 import client_of

LATER = datetime.now(UTC) + timedelta(days=31)
MONTH = Retention(30)
THEIRS = {"ID": "theirs", "Filter": {"Prefix": "logs/"}, "Status": "Enabled", "Expiration": {"Days": 7}}
NO_RULES = b"<Error><Code>NoSuchLifecycleConfiguration</Code><Message>none</Message></Error>"


@pytest.fixture(scope="module")
def access(tmp_path_factory):
    with local_s3(tmp_path_factory.mktemp("s3")) as found:
        yield found


@pytest.fixture
def store(access):
    found = ObjectStore(client_of(access), f"bucket-{uuid.uuid4().hex[:12]}")
    found.ensure_bucket(create=True)
    return found


@pytest.fixture
def run(store, access):
    """The command, at this bucket; gives what it printed as JSON."""

    def invoke(*arguments):
        options = [f"--endpoint={access.endpoint}", f"--bucket={store.bucket}", "--json"]
        result = CliRunner().invoke(cli, ["retention", *arguments, *options], env=access.environment())
        if result.exception:
            raise result.exception
        return json.loads(result.stdout)

    return invoke


def ids(rules):
    return [rule["ID"] for rule in rules]


def keys(store):
    return set(store.sizes(""))


def test_rules_are_merged_read_back_and_taken_away_again(store):
    assert expiry.rules(store) == []
    store.client.put_bucket_lifecycle_configuration(Bucket=store.bucket, LifecycleConfiguration={"Rules": [THEIRS]})
    first = expiry.apply(store, ["data/", "answers/"], MONTH)
    assert first[0] == THEIRS
    assert ids(first) == ["theirs", "conf-profile-retention-data", "conf-profile-retention-answers"]
    assert expiry.apply(store, ["data/", "answers/"], MONTH) == first
    assert expiry.apply(store, ["data/"], Retention(7))[-1]["Expiration"] == {"Days": 7}
    assert expiry.apply(store, ["data/", "answers/"], Retention(0)) == [THEIRS]


def test_the_last_rule_goes_with_the_configuration(store):
    expiry.apply(store, ["data/"], MONTH)
    assert expiry.apply(store, ["data/"], Retention(0)) == [] == expiry.rules(store)


def test_the_command_applies_to_the_bucket_and_to_the_artefacts(run, store):
    other = ObjectStore(store.client, f"{store.bucket}-kfp")
    other.ensure_bucket(create=True)
    artefacts = f"--artefacts=s3://{other.bucket}/v2/artifacts"
    ours, theirs = run("apply", "--days=30", artefacts)
    assert [rule["Filter"]["Prefix"] for rule in ours["rules"]] == list(RULED_PREFIXES)
    assert [rule["Filter"]["Prefix"] for rule in theirs["rules"]] == ["v2/artifacts/"]
    assert run("show", artefacts) == [ours, theirs]
    assert [found["rules"] for found in run("apply", "--days=0", artefacts)] == [[], []]


UPLOAD = "0123456789abcdef" * 2
"""The hash in the name of an upload's folder."""


def fill(store, *names):
    for name in names:
        store.write_new(name, name.encode())


def test_a_sweep_deletes_what_has_expired_and_nothing_else(store):
    kept = {"models/m/weights", "other/data/x", "truth/labels.parquet", "data/mine/behaviour.parquet"}
    behaviour, labels = f"data/retained-30d-1-{UPLOAD}/behaviour.parquet", f"truth/{UPLOAD}/labels.parquet"
    fill(store, behaviour, labels, "answers/m/file/0-a", *kept)
    store.client.create_multipart_upload(Bucket=store.bucket, Key=f"data/retained-30d-1-{UPLOAD}/big")
    assert [one.objects for one in expiry.sweep(store, EXPIRING_PREFIXES, MONTH, datetime.now(UTC))] == [0, 0, 0, 0]
    counted = expiry.sweep(store, EXPIRING_PREFIXES, MONTH, LATER, dry_run=True)
    assert [(one.objects, one.unfinished_uploads) for one in counted] == [(1, 1), (1, 0), (1, 0), (0, 0)]
    assert len(keys(store)) == 7
    assert expiry.sweep(store, EXPIRING_PREFIXES, MONTH, LATER) == counted
    assert keys(store) == kept
    assert not list(object_versions.unfinished_uploads(store, "data/"))
    assert expiry.sweep(store, EXPIRING_PREFIXES, Retention(0), LATER) == []


def test_a_sweep_of_a_versioned_bucket_leaves_no_older_version(store):
    enable_versions(store)
    fill(store, f"data/{UPLOAD}/x", f"data/{UPLOAD}/y", "models/x")
    store.replace(f"data/{UPLOAD}/x", b"again", store.etag(f"data/{UPLOAD}/x"))
    store.delete(f"data/{UPLOAD}/y")
    (swept,) = expiry.sweep(store, ["data/"], MONTH, LATER)
    assert swept.objects == 4, "two versions of x, one of y and the mark of its deletion"
    assert list(object_versions.list_all(store, "data/")) == []
    assert keys(store) == {"models/x"}


def enable_versions(store):
    store.client.put_bucket_versioning(Bucket=store.bucket, VersioningConfiguration={"Status": "Enabled"})


def test_the_command_sweeps_by_age(run, store):
    fill(store, f"data/{UPLOAD}/x", "pipelines/run/table")
    swept = run("sweep", "--days=1", f"--artefacts=s3://{store.bucket}/pipelines")
    assert [one["prefix"] for one in swept] == [*EXPIRING_PREFIXES, "pipelines/"]
    assert {one["objects"] for one in swept} == {0}
    assert len(keys(store)) == 2


# ---- servers that SeaweedFS is not


@contextmanager
def refusing(put, get=(404, NO_RULES)):
    """An S3 server that gives these answers, (status, body), to writing and to reading the rules."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_PUT(self):
            self.rfile.read(int(self.headers["Content-Length"]))
            self.answer(*put)

        def do_GET(self):
            self.answer(*get)

        def answer(self, status, body):
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        client = object_store.s3_client(f"http://127.0.0.1:{server.server_port}", "us-east-1", "key", "secret", 1)
        yield ObjectStore(client, "bucket")
        server.shutdown()


def refusal(status, name):
    return status, f"<Error><Code>{name}</Code><Message>no</Message></Error>".encode()


@pytest.mark.parametrize(
    ("put", "message"),
    [
        (refusal(501, "NotImplemented"), r"has no lifecycle rules \(NotImplemented\); .*retention\.cronJob\.enabled"),
        (refusal(405, "MethodNotAllowed"), r"has no lifecycle rules .*`conf-profile retention sweep"),
        (refusal(403, "AccessDenied"), r"s3:PutLifecycleConfiguration"),
        ((200, b""), r"does not give back conf-profile-retention-data; .*retention\.cronJob\.enabled"),
    ],
)
def test_a_store_without_rules_is_told_with_the_remedy(put, message):
    with refusing(put) as store, pytest.raises(RegistryError, match=message):
        expiry.apply(store, ["data/"], MONTH)


def test_a_store_that_cannot_even_be_asked():
    with refusing((200, b""), refusal(501, "NotImplemented")) as store, pytest.raises(RegistryError, match="cronJob"):
        expiry.rules(store)
