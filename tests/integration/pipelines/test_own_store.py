"""`run` and `serve` on one machine keep models in their own folder, whatever keys of Amazon lie about."""

import socketserver
import threading

import pytest

from conf_profile.cli.models import Storage, open_registry
from conf_profile.config import RunConfig, StorageConfig
from conf_profile.errors import ConfigError, RegistryError
from conf_profile.registry import registry
from conf_profile.storage import encryption
from conf_profile.storage.object_address import ENDPOINT_VARIABLE
from pipelines.commands import run as run_command
from support.s3 import model_folder


@pytest.fixture
def outside(monkeypatch, tmp_path):
    """Everything with which Amazon is reached, and the requests that leave this machine: there must be none."""
    for name in ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", ENDPOINT_VARIABLE, "NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "config").write_text("[profile work]\nregion = eu-central-1\n")
    (tmp_path / "credentials").write_text("[work]\naws_access_key_id = theirs\naws_secret_access_key = theirs\n")
    there = {
        "AWS_ACCESS_KEY_ID": "AKIATHEIRS",
        "AWS_SECRET_ACCESS_KEY": "theirs",
        "AWS_SESSION_TOKEN": "theirs",
        "AWS_REGION": "eu-central-1",
        "AWS_PROFILE": "work",
        "AWS_CONFIG_FILE": str(tmp_path / "config"),
        "AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "credentials"),
        encryption.VARIABLE: "sse-kms",
    }
    for name, value in there.items():
        monkeypatch.setenv(name, value)
    left = []

    class Door(socketserver.StreamRequestHandler):
        def handle(self):
            left.append(self.rfile.readline())

    with socketserver.TCPServer(("127.0.0.1", 0), Door) as proxy:
        threading.Thread(target=proxy.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        for name in ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.server_address[1]}")
        yield left
        proxy.shutdown()


def test_run_and_serve_use_their_own_server_with_amazons_keys_about(outside, tmp_path):
    run, config = tmp_path / "run", RunConfig()
    with run_command._storage(config, run):
        models = registry.connect(config.storage)
        promoted = models.promote(models.publish(model_folder(tmp_path / "model")).name, {})
    with open_registry(Storage(None, None, None, run)) as served:
        assert served.require_champion() == promoted
    assert (run / "s3" / "data").is_dir() and outside == []


def test_a_command_without_a_store_asks_nobody(outside):
    with (
        pytest.raises(RegistryError, match=r"--endpoint \(aws for Amazon's own S3\)"),
        open_registry(Storage(*[None] * 4)),
    ):
        raise AssertionError("there is no store")
    with pytest.raises(RegistryError, match="no S3 endpoint"):
        registry.connect(StorageConfig())
    assert outside == []


def test_what_is_asked_of_amazon_would_be_seen(outside):
    with pytest.raises(RegistryError):
        registry.connect(StorageConfig(endpoint="aws", bucket="theirs"))
    assert outside and all(b"s3.eu-central-1.amazonaws.com" in line for line in outside)


def test_an_encryption_for_the_runs_own_folder_is_refused(outside, tmp_path):
    config = RunConfig(storage=StorageConfig(encryption="sse-s3"))
    with (
        pytest.raises(ConfigError, match=r"storage\.encryption is for a store of yours"),
        run_command._storage(config, tmp_path / "run"),
    ):
        raise AssertionError("no server is started")
    assert not (tmp_path / "run" / "s3").exists()
