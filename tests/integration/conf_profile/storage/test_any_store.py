"""The object store and the registry at servers of many habits: a stub to each of a table, and a real one by TLS."""

import json
import threading

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from conf_profile.cli.main import cli
from conf_profile.config import StorageConfig
from conf_profile.errors import RegistryError
from conf_profile.ingest import sources
from conf_profile.registry import registry
from conf_profile.registry.registry import Registry
from conf_profile.storage import conditional_writes, encryption, object_address, object_errors, object_store
from conf_profile.storage.local_s3 import local_s3
from conf_profile.storage.object_store import ObjectStore
from feature_repo import s3_files
from support.certificates import make_authority, make_certificate, tls_in_front_of
from support.s3 import client_of, model_folder
from support.s3_stub import Habits, role_stub, s3_stub

BUCKET = "bucket"
PART_BYTES, REAL_PART_BYTES = 64 << 10, 5 << 20
"""Real servers take no smaller ones, but for the last."""
CHECKSUMS = "AWS_REQUEST_CHECKSUM_CALCULATION"
AWS_VARIABLES = (
    "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL_STS", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN", "AWS_REGION", "AWS_DEFAULT_REGION", "AWS_PROFILE", "AWS_CA_BUNDLE", "AWS_ROLE_ARN",
    "AWS_WEB_IDENTITY_TOKEN_FILE", CHECKSUMS, object_address.ENDPOINT_VARIABLE, encryption.VARIABLE,
)  # fmt: skip


@pytest.fixture(autouse=True)
def environment(monkeypatch, tmp_path):
    """Keys and nothing else of AWS's; the parts of a large object are small, and no store has been asked yet."""
    for name in AWS_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, str(tmp_path / name))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setattr(object_store, "MULTIPART_THRESHOLD", PART_BYTES)
    monkeypatch.setattr(object_store, "PART_BYTES", PART_BYTES)
    conditional_writes.forget()
    return monkeypatch


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return make_authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def certificate(authority):
    return make_certificate(authority)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """With weights of three parts at a stub."""
    return model_folder(tmp_path_factory.mktemp("model") / "files", b"w" * (2 * PART_BYTES + 1))


def config(url, **changes):
    return StorageConfig(**{"endpoint": url, "bucket": BUCKET, **changes})


def promote(settings, model):
    models = registry.connect(settings)
    champion = models.promote(models.publish(model).name, {})
    assert models.champion() == champion
    return models


# ---- a real server behind TLS


@pytest.fixture(scope="module")
def secured(tmp_path_factory, certificate):
    """SeaweedFS behind a certificate of the test's authority: keys, and an https:// address."""
    with local_s3(tmp_path_factory.mktemp("s3")) as access:
        client_of(access).create_bucket(Bucket=BUCKET)
        with tls_in_front_of(access.endpoint.removeprefix("http://"), certificate) as url:
            yield access, url


@pytest.mark.parametrize("checksums", ["", "when_required"])
def test_a_model_is_published_promoted_and_read_by_tls_of_ones_own_authority(
    secured, authority, environment, tmp_path, checksums
):
    access, url = secured
    model = model_folder(tmp_path / "model", b"w" * (REAL_PART_BYTES + 1))
    environment.setattr(object_store, "MULTIPART_THRESHOLD", REAL_PART_BYTES)
    environment.setattr(object_store, "PART_BYTES", REAL_PART_BYTES)
    environment.setenv("AWS_ACCESS_KEY_ID", access.access_key)
    environment.setenv("AWS_SECRET_ACCESS_KEY", access.secret_key)
    environment.setenv("AWS_CA_BUNDLE", str(authority.path))
    environment.setenv(CHECKSUMS, checksums or "when_supported")
    models = promote(config(url, model=f"by-tls{checksums.replace('_', '-')}"), model)
    models.download(None, tmp_path / "served")
    assert (tmp_path / "served" / "model.safetensors").read_bytes() == (model / "model.safetensors").read_bytes()
    assert [key for key in ObjectStore(client_of(access), BUCKET).sizes("models/") if "probe" in key] == []


def test_events_and_feasts_tables_are_read_by_tls_of_ones_own_authority(secured, authority, environment, tmp_path):
    access, url = secured
    written = pa.table({"user": ["u1", "u2"]})
    pq.write_table(written, tmp_path / "events.parquet")
    client_of(access).put_object(
        Bucket=BUCKET, Key="tables/events.parquet", Body=(tmp_path / "events.parquet").read_bytes()
    )
    for name, value in {**access.environment(), "AWS_ENDPOINT_URL": url, "AWS_CA_BUNDLE": str(authority.path)}.items():
        environment.setenv(name, value)
    found = sources.find_files(f"s3://{BUCKET}/tables").files
    with sources.fetch_files(found, tmp_path) as paths:
        assert [pq.read_table(path) for path in paths] == [written]
    assert pq.read_table(f"{BUCKET}/tables/events.parquet", filesystem=s3_files.PyarrowS3()) == written


# ---- habits of servers, a stub to each: (habits, environment, storage section)

PASSING = {
    "no trailing checksums": (Habits(knows_trailers=False), {}, {}),
    "no trailing checksums, and told so": (Habits(knows_trailers=False), {CHECKSUMS: "when_required"}, {}),
    "no checksum of a part": (Habits(knows_checksums=False), {}, {}),
    "no checksums at all": (Habits(knows_checksums=False, refuses_checksums=True), {CHECKSUMS: "when_required"}, {}),
    "no unencrypted upload, SSE-S3": (Habits(refuses_unencrypted=True), {}, {"encryption": "sse-s3"}),
    "no unencrypted upload, SSE-KMS": (Habits(refuses_unencrypted=True), {}, {"encryption": "sse-kms:arn:aws:kms:k"}),
    "no unencrypted upload, variable": (Habits(refuses_unencrypted=True), {encryption.VARIABLE: "sse-kms"}, {}),
    "no list of unfinished uploads": (Habits(lists_uploads=False), {}, {}),
    "no right to delete": (Habits(forbids_deleting=True), {}, {}),
}  # fmt: skip


@pytest.mark.parametrize("name", PASSING)
def test_a_model_is_promoted_at_a_server_with(name, model, environment, authority, certificate):
    habits, variables, section = PASSING[name]
    environment.setenv("AWS_CA_BUNDLE", str(authority.path))
    for variable, value in variables.items():
        environment.setenv(variable, value)
    with s3_stub(habits, certificate) as stub:
        promote(config(stub.url, **section), model)
        assert len(stub.buckets[BUCKET]["models/conf-profile/champion.json"]) > 0
        stored = {key.split("/")[-1]: body for key, body in stub.buckets[BUCKET].items() if "probe" not in key}
        assert stored["model.safetensors"] == (model / "model.safetensors").read_bytes()
        assert not stub.parts


REFUSED = {
    "no checksums at all": (Habits(refuses_checksums=True), f"{CHECKSUMS}=when_required"),
    "no unencrypted upload": (Habits(refuses_unencrypted=True), "needs storage.encryption"),
    "somebody else's bucket": (Habits(buckets_of_others=(BUCKET,)), "it may be another account's"),
    "keys that have expired": (Habits(accepts=lambda key: False), "the keys have expired; get new ones"),
    "ignores If-None-Match": (Habits(honours_if_none_match=False), "the store ignores If-None-Match"),
    "ignores If-Match": (Habits(honours_if_match=False), "the store ignores If-Match"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_nothing_is_published_at_a_server_with(name, model):
    habits, message = REFUSED[name]
    with s3_stub(habits) as stub:
        with pytest.raises(RegistryError, match=f"bucket '{BUCKET}' at {stub.url}.*{message}"):
            promote(config(stub.url), model)
        assert stub.buckets == {BUCKET: {}}


def test_a_bucket_of_another_account_that_only_the_making_of_it_finds_out():
    with s3_stub(Habits()) as stub:
        store = object_store.connect(BUCKET, stub.url)
        stub.habits.buckets_of_others = (BUCKET,)
        with pytest.raises(RegistryError, match=r"another account's; choose another name \(storage.bucket"):
            store._create_bucket()


# ---- the probe for conditional writes


def test_the_probe_is_made_once_a_process_and_leaves_nothing(model):
    with s3_stub(Habits()) as stub:
        models = promote(config(stub.url), model)
        probes = [method for method, path, _ in stub.seen if "/probe-" in path]
        assert probes == ["PUT", "PUT", "PUT", "DELETE"]
        models.publish(model_folder_of(model, b"other"), version="other")
        models.promote("other", {})
        models.rollback()
        assert [method for method, path, _ in stub.seen if "/probe-" in path] == probes
        assert not [key for key in stub.buckets[BUCKET] if "probe" in key]


def model_folder_of(model, weights):
    return model_folder(model.parent / f"files-{weights.decode()}", weights)


def test_who_only_reads_needs_no_right_to_write(model, tmp_path):
    with s3_stub(Habits()) as stub:
        promote(config(stub.url), model)
        conditional_writes.forget()
        stub.habits.forbids_writing = True
        stub.seen.clear()
        models = registry.connect(config(stub.url), create_bucket=False)
        models.download(None, tmp_path / "served")
        # What is there already needs no writing either.
        models.promote(models.publish(model).name, {})
        assert set(stub.methods()) == {"GET"}


@pytest.mark.parametrize("change", ["promote", "rollback"])
def test_a_pointer_is_not_moved_at_a_store_that_ignores_conditions(change, model):
    with s3_stub(Habits()) as stub:
        models = promote(config(stub.url), model)
        models.publish(model_folder_of(model, change.encode()), version="second")
        if change == "rollback":
            models.promote("second", {})
        conditional_writes.forget()
        stub.habits.honours_if_none_match = False
        before = dict(stub.buckets[BUCKET])
        with pytest.raises(RegistryError, match="ignores If-None-Match"):
            models.promote("second", {}) if change == "promote" else models.rollback()
        assert stub.buckets[BUCKET] == before


# ---- certificates and addresses that do not fit

MISFITS = {
    "another authority's": ({}, "other", "is not trusted here .* AWS_CA_BUNDLE names"),
    "of another name": ({"names": ("s3.example.com",)}, "own", "is for another name .*use the name that it bears"),
    "expired": ({"valid_hours": -1}, "own", "is not trusted here .*expired"),
    "a file that is not there": ({}, "missing", "AWS_CA_BUNDLE names a file that cannot be read"),
    "a file without a certificate": ({}, "empty", "that AWS_CA_BUNDLE names holds no certificate"),
}


@pytest.mark.parametrize("name", MISFITS)
def test_a_certificate_that_does_not_fit_is_told_at_once_with_the_remedy(name, authority, environment, tmp_path):
    made, bundle, message = MISFITS[name]
    environment.setenv("CONF_PROFILE_RETRY_SECONDS", "600")
    bundles = {
        "own": lambda: authority.path,
        "other": lambda: make_authority(tmp_path / "other").path,
        "missing": lambda: tmp_path / "nowhere.pem",
        "empty": lambda: _write(tmp_path / "empty.pem", "nothing"),
    }
    environment.setenv("AWS_CA_BUNDLE", str(bundles[bundle]()))
    with s3_stub(Habits(), make_certificate(authority, **made)) as stub:
        with pytest.raises(RegistryError, match=f"cannot list .* at {stub.url}: .*{message}") as raised:
            registry.connect(config(stub.url))
        assert object_errors.transient_cause(raised.value) == "" and stub.seen == []


def _write(path, text):
    path.write_text(text)
    return path


def test_a_server_without_tls_is_told_as_such():
    with s3_stub(Habits()) as stub, pytest.raises(RegistryError, match="see whether its endpoint is http://"):
        registry.connect(config(stub.url.replace("http:", "https:")))


@pytest.mark.parametrize(("variable", "value"), [(CHECKSUMS, "sometimes"), ("AWS_PROFILE", "nobody")])
def test_settings_that_boto3_cannot_use_are_told(variable, value, environment):
    environment.setenv(variable, value)
    with pytest.raises(RegistryError, match=f"http://127.0.0.1:9 cannot be used: .*{value}.*; correct"):
        object_store.connect(BUCKET, "http://127.0.0.1:9")


# ---- keys that renew themselves


@pytest.fixture
def role(environment, tmp_path):
    """A role by web identity, whose keys are good for a few requests."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        environment.delenv(name)
    with role_stub() as found:
        environment.setenv("AWS_ENDPOINT_URL_STS", found.url)
        environment.setenv("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/steps")
        environment.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", str(_write(tmp_path / "token", "first")))
        yield found


def test_keys_of_a_role_are_renewed_in_the_middle_of_a_run(role, model, tmp_path):
    with s3_stub(Habits(accepts=role.accepts)) as stub:
        models = promote(config(stub.url, endpoint=stub.url), model)
        before = role.issued
        assert before > 6
        # Kubernetes renews the token, too.
        _write(tmp_path / "token", "second")
        models.download(None, tmp_path / "served")
        assert role.issued > before and {"first", "second"} == set(role.tokens)


def test_a_role_that_is_refused_is_not_taken_for_the_buckets_rights(role):
    role.refuses = True
    refused = pytest.raises(RegistryError, match=r"the role is refused .*check AWS_ROLE_ARN")
    with s3_stub(Habits(accepts=role.accepts)) as stub, refused:
        registry.connect(config(stub.url))


def test_a_token_that_is_not_there_is_told(role, environment, tmp_path):
    environment.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", str(tmp_path / "gone"))
    with s3_stub(Habits()) as stub, pytest.raises(RegistryError, match="AWS_WEB_IDENTITY_TOKEN_FILE names no file"):
        registry.connect(config(stub.url))


# ---- commands


def test_a_command_finds_the_store_by_aws_and_the_environment(model, environment):
    with s3_stub(Habits()) as stub:
        promote(config(stub.url), model)
        # Stands for Amazon's own: boto3 takes its endpoint from here as from everywhere else.
        environment.setenv("AWS_ENDPOINT_URL_S3", stub.url)
        listed = CliRunner().invoke(cli, ["models", "list", "--endpoint", "aws", "--bucket", BUCKET, "--json"])
        assert [found["champion"] for found in json.loads(listed.output)] == [True]


def test_threads_of_one_process_may_ask_together(model):
    with s3_stub(Habits()) as stub:
        models = registry.connect(config(stub.url))
        threads = [threading.Thread(target=models.require_conditional_writes) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert stub.buckets == {BUCKET: {}} and isinstance(models, Registry)
