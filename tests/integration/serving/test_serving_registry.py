"""A transformer whose model comes from the registry: S3 that is away at its start or later, and a damaged file."""

import subprocess
import sys
import uuid
from contextlib import ExitStack

import pytest

from conf_profile.config import StorageConfig
from conf_profile.registry.registry import connect
from conf_profile.storage.local_s3 import local_s3
from serving.local import processes
from support.s3 import client_of, wait_until
from support.serving_process import Predictor, Transformer, brought, model_folder, transformer

BUCKET = "conf-profile"


@pytest.fixture
def predictor():
    running = Predictor()
    running.start()
    yield running
    running.kill()


@pytest.fixture
def s3(tmp_path, monkeypatch):
    """A running SeaweedFS that the environment names."""
    with local_s3(tmp_path / "s3") as access:
        for name, value in access.environment().items():
            monkeypatch.setenv(name, value)
        yield access


@pytest.fixture
def champion(s3, tmp_path):
    """The registry's model, its champion's version, and where its files stand."""
    models = connect(StorageConfig(model=f"model-{uuid.uuid4().hex}"), s3)
    folder = model_folder(tmp_path / "published")
    (folder / "model.safetensors").write_bytes(b"weights")
    version = models.publish(folder).name
    models.promote(version, {})
    return models, version


def last_words(folder, predictor, model):
    """What a transformer says that does not start."""
    made = Transformer(folder, predictor.url, model=model)
    try:
        assert made.child.process.wait(120) == 2
        return made.child.last_words()
    finally:
        made.stop()


def test_without_s3_it_does_not_start_and_says_where_it_looked(predictor, champion, monkeypatch, tmp_path):
    nowhere = f"http://127.0.0.1:{processes.free_port()}"
    monkeypatch.setenv("AWS_ENDPOINT_URL", nowhere)
    words = last_words(tmp_path / "transformer", predictor, champion[0].uri())
    assert nowhere in words and "Traceback" not in words


def test_a_damaged_file_is_refused_by_its_hash(predictor, champion, s3, tmp_path):
    models, version = champion
    key = f"models/{models.model}/versions/{version}/calibration.json"
    client = client_of(s3)
    content = client.get_object(Bucket=BUCKET, Key=key)["Body"].read()
    client.put_object(Bucket=BUCKET, Key=key, Body=content.replace(b"0.2", b"0.3"))
    words = last_words(tmp_path / "transformer", predictor, models.uri())
    assert f"{version}: calibration.json has the SHA-256" in words and "Traceback" not in words
    for uri in (models.uri(), models.uri(version)):
        command = [sys.executable, "-m", "conf_profile", "serve", uri, f"--work={tmp_path / 'serving'}"]
        serve = subprocess.run(command, capture_output=True, text=True, timeout=120)
        assert serve.returncode == 2
        assert f"{models.uri(version)}: calibration.json has the SHA-256" in serve.stderr


def test_s3_that_goes_away_later_is_not_missed(predictor, tmp_path, monkeypatch):
    with ExitStack() as kept:
        with local_s3(tmp_path / "s3") as access:
            for name, value in access.environment().items():
                monkeypatch.setenv(name, value)
            models = connect(StorageConfig(model="people"), access)
            models.promote(models.publish(model_folder(tmp_path / "published")).name, {})
            settings = {"model": models.uri(), "predictor": {"by_version": False}}
            made = kept.enter_context(transformer(tmp_path / "transformer", predictor.url, **settings))
        assert made.ask(brought()).status_code == 200
        predictor.kill()
        assert made.ask(brought()).status_code == 503
        predictor.start()
        wait_until(lambda: made.ask(brought()).status_code == 200, "the predictor to be asked again")
