"""`python -m serving.storage` against a real SeaweedFS: what a pod gets, and what it is told when it gets nothing."""

import json
import os
import socket
import subprocess
import sys
import uuid

import pytest

from conf_profile.config import StorageConfig
from conf_profile.registry import download as registry_download
from conf_profile.registry.registry import connect
from conf_profile.storage import object_store
from conf_profile.storage.local_s3 import local_s3
from serving import storage
from support.s3 import client_of, model_folder, python

BUCKET = "conf-profile"
BIG = 40 << 20
# Stops after each answer of the server that is named, so that it can be killed in the middle for certain.
FETCHER = """
import os, sys
from pathlib import Path
from conf_profile.registry.registry import Registry
from conf_profile.storage import object_store

def tell(parsed, **_):
    if "ContentRange" in parsed:
        # In one piece: several threads come here at once.
        os.write(1, b"part\\n")
        sys.stdin.read()

keys = os.environ["AWS_ACCESS_KEY_ID"], os.environ["AWS_SECRET_ACCESS_KEY"]
client = object_store.s3_client(os.environ["AWS_ENDPOINT_URL"], "us-east-1", *keys)
client.meta.events.register("after-call.s3.GetObject", tell)
Registry("conf-profile", sys.argv[2], client).fill(None, Path(sys.argv[1]))
"""


@pytest.fixture(scope="module")
def access(tmp_path_factory):
    with local_s3(tmp_path_factory.mktemp("s3")) as found:
        yield found


@pytest.fixture(autouse=True)
def environment(access, monkeypatch):
    for name, value in access.environment().items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def models(access):
    return connect(StorageConfig(model=f"model-{uuid.uuid4().hex}"), access)


@pytest.fixture
def publish(models, tmp_path):
    """A champion with these weights."""

    def publish(weights=b"weights", **files):
        folder = model_folder(tmp_path / f"model-{uuid.uuid4().hex}", weights)
        for name, content in files.items():
            (folder / name).write_bytes(content)
        version = models.publish(folder, generated={"task.yaml": b"attributes: {}"})
        models.promote(version.name, {})
        return version

    return publish


@pytest.fixture
def run(models, tmp_path, capsys):
    """Runs the program; gives its status, what it said on standard error, and the termination log."""

    def run(uri=None, *flags):
        log = tmp_path / "termination-log"
        log.write_text("")
        target = str(tmp_path / "pod")
        status = storage.main([uri or models.uri(), target, f"--termination-log={log}", *flags])
        return status, capsys.readouterr(), log.read_text()

    return run


def files(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_champion_is_there_whole_and_a_second_start_fetches_nothing(publish, run, models, tmp_path):
    version = publish(os.urandom(BIG))
    status, said, told = run()
    assert (status, said.err, told) == (0, "", "")
    assert f"{version.name} in" in said.out and "5 files" not in said.out.replace("4 files", "")
    found = files(tmp_path / "pod")
    assert set(found) == {*version.files, "manifest.json"}
    assert found["manifest.json"] == version.manifest
    assert {name: object_store.digest_of(body) for name, body in found.items() if name in version.files} == dict(
        version.files
    )
    status, said, _ = run(models.uri(version.name))
    assert status == 0 and "0 files, 0.0 MiB" in said.out and f"{len(version.files)} were there" in said.out


def test_as_a_program(publish, models, tmp_path):
    publish()
    command = [sys.executable, "-m", "serving.storage", models.uri(), str(tmp_path / "pod")]
    assert subprocess.run(command, timeout=60).returncode == 0
    failed = subprocess.run([*command[:3], models.uri("v9"), *command[4:]], capture_output=True, text=True, timeout=60)
    assert (failed.returncode, failed.stdout, failed.stderr.count("\n")) == (1, "", 1)
    assert "no such version" in failed.stderr


def test_a_pod_that_was_killed_goes_on_where_it_stopped(publish, run, models, access, tmp_path):
    version = publish(os.urandom(BIG))
    killed = python(FETCHER, str(tmp_path / "pod"), models.model, environment={**os.environ, **access.environment()})
    assert killed.stdout.readline() == "part\n"
    small = len(version.files) - 1
    while len([name for name in files(tmp_path / "pod") if name in version.files]) < small:
        assert killed.poll() is None
    killed.kill()
    killed.communicate()
    assert not (tmp_path / "pod" / "manifest.json").exists()
    status, said, _ = run()
    assert status == 0 and f"1 files, {BIG / 2**20:.1f} MiB" in said.out and f"{small} were there" in said.out
    assert set(files(tmp_path / "pod")) == {*version.files, "manifest.json"}


@pytest.mark.parametrize("left", [b"", b'{"files": {"a'])
@pytest.mark.parametrize("name", ["manifest.json", registry_download.INCOMING_MANIFEST])
def test_a_manifest_that_was_cut_by_a_full_disk_stands_in_nobodys_way(publish, run, tmp_path, name, left):
    version = publish()
    (tmp_path / "pod").mkdir()
    (tmp_path / "pod" / name).write_bytes(left)
    assert run()[0] == 0
    assert set(files(tmp_path / "pod")) == {*version.files, "manifest.json"}


def test_a_file_that_was_damaged_in_the_pod_is_fetched_again(publish, run, tmp_path):
    publish()
    run()
    (tmp_path / "pod" / "model.safetensors").write_bytes(b"WEIGHTS")
    status, said, _ = run()
    assert status == 0 and "1 files" in said.out
    assert (tmp_path / "pod" / "model.safetensors").read_bytes() == b"weights"


def test_another_version_leaves_nothing_of_the_first(publish, run, tmp_path):
    publish(b"one", shard=b"of the first")
    run()
    second = publish(b"two")
    assert run()[0] == 0
    assert set(files(tmp_path / "pod")) == {*second.files, "manifest.json"}
    assert (tmp_path / "pod" / "model.safetensors").read_bytes() == b"two"


def test_without_weights(publish, run, tmp_path):
    publish()
    assert run(None, "--without-weights")[0] == 0
    assert set(files(tmp_path / "pod")) == {
        "config.json", "manifest.json", "task.yaml", "tokenizer/tokenizer.json",
    }  # fmt: skip


def test_vllm_is_told_of_the_model(publish, run, tmp_path):
    profile = b'{"max_prompt_tokens": 48, "max_completion_tokens": 16}'
    version = publish(**{"config.json": b'{"dtype": "float32"}', "profile.json": profile})
    assert run(None, "--vllm-config=profiles")[0] == 0
    found = json.loads((tmp_path / "pod" / "vllm.yaml").read_text())
    assert found["served-model-name"] == ["profiles", version.name]
    assert (found["max-model-len"], found["dtype"]) == (64, "float32")


# ---- what is wrong


def refused(run, uri=None):
    """The one line, on standard error and in the termination log."""
    status, said, told = run(uri)
    assert status == 1 and said.out == ""
    assert said.err == told + "\n" and told.startswith("storage: ")
    return told


@pytest.mark.parametrize("size", [7, BIG])
def test_one_flipped_byte_is_refused_and_the_file_never_gets_its_name(publish, run, models, access, tmp_path, size):
    weights = os.urandom(size)
    version = publish(weights)
    key = f"models/{models.model}/versions/{version.name}/model.safetensors"
    flipped = weights[:-3] + bytes([weights[-3] ^ 1]) + weights[-2:]
    client_of(access).put_object(Bucket=BUCKET, Key=key, Body=flipped)
    told = refused(run)
    assert f"{version.name}: model.safetensors has the SHA-256" in told and "roll back" in told
    left = files(tmp_path / "pod")
    assert not {"model.safetensors", "manifest.json"} & set(left)
    assert flipped not in left.values()


@pytest.mark.parametrize("cut", [BIG - 1, BIG // 2, 5])
def test_a_file_that_was_cut_is_refused(publish, run, models, access, cut):
    weights = os.urandom(BIG)
    version = publish(weights)
    key = f"models/{models.model}/versions/{version.name}/model.safetensors"
    client_of(access).put_object(Bucket=BUCKET, Key=key, Body=weights[:cut])
    assert "model.safetensors has the SHA-256" in refused(run)


def test_a_file_that_is_gone_is_named(publish, run, models, access):
    version = publish(os.urandom(BIG))
    prefix = f"models/{models.model}/versions/{version.name}/"
    client_of(access).delete_object(Bucket=BUCKET, Key=prefix + "model.safetensors")
    assert "model.safetensors is missing" in refused(run)


def test_a_manifest_cannot_name_a_file_outside_the_folder(publish, run, models, access, tmp_path):
    version = publish()
    prefix = f"models/{models.model}/versions/{version.name}/"
    manifest = json.loads(version.manifest)
    manifest["files"]["../evil"] = manifest["files"]["config.json"]
    client_of(access).put_object(Bucket=BUCKET, Key=prefix + "manifest.json", Body=json.dumps(manifest).encode())
    assert "'../evil' is not allowed" in refused(run, models.uri(version.name))
    assert not (tmp_path / "evil").exists() and not (tmp_path / "pod").exists()


def test_before_the_first_promotion(run, models):
    assert f"{models.uri()}: no champion yet, run the pipeline: " in refused(run)


def test_a_pointer_to_a_version_that_is_gone(publish, run, models, access):
    publish(b"one")
    first = models.require_champion().version
    version = publish(b"two")
    prefix = f"models/{models.model}/versions/{version.name}/"
    client_of(access).delete_object(Bucket=BUCKET, Key=prefix + "manifest.json")
    told = refused(run)
    assert f"names {version.name}, which is not there" in told
    assert f"conf-profile models rollback {first}" in told


def test_a_bucket_that_does_not_exist_and_a_uri_that_is_none(run):
    assert "the bucket does not exist; create it" in refused(run, "champion://not-there/models/m")
    assert "expected champion://BUCKET/models/NAME" in refused(run, "s3://conf-profile/models/m")
    assert "bucket" in refused(run, "champion://Not A Bucket/models/m")


def test_a_wrong_secret_and_none(run, monkeypatch, tmp_path):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    assert "refuses the secret; correct AWS_SECRET_ACCESS_KEY" in refused(run)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "NOBODY")
    assert "does not know the access key; correct AWS_ACCESS_KEY_ID" in refused(run)
    for name in ("AWS_SECRET_ACCESS_KEY", "AWS_ACCESS_KEY_ID"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    assert "no keys; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY" in refused(run)
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    assert "no S3 endpoint" in refused(run)


def test_a_server_that_does_not_answer(run, monkeypatch):
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        endpoint = f"http://127.0.0.1:{nobody.getsockname()[1]}"
        monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
        assert f"{endpoint}: the server does not answer" in refused(run)


def test_a_full_or_closed_folder_is_named(publish, run, tmp_path):
    publish()
    (tmp_path / "pod").write_text("a file where the folder should be")
    assert f"{tmp_path / 'pod'}: cannot be written" in refused(run)
