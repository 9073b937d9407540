"""Which versions a user has trained, from a real registry in the run's folder."""

import json

import pytest
from click.testing import CliRunner

from conf_profile import tables
from conf_profile.cli.main import cli
from conf_profile.config import StorageConfig
from conf_profile.files import write_text
from conf_profile.registry import registry
from conf_profile.storage.local_s3 import local_s3
from support.s3 import model_folder

EMPTY = {"self_age": None, "self_gender": None, "signature": None, "region": None}


@pytest.fixture
def run(tmp_path):
    storage = StorageConfig(bucket="somewhere-else", model="other")
    with local_s3(tmp_path / "s3") as access:
        target = registry.connect(storage, access)
        for weights in (b"first", b"second"):
            version = target.publish(model_folder(tmp_path / weights.decode(), weights))
            target.promote(version.name, {})
    rows = [
        {"user_id": user, "split": split, "watch": [], "search": [], "submit": [], **EMPTY}
        for user, split in (("ada", "second_stage"), ("eve", "test"))
    ]
    tables.write(tmp_path / "artefacts" / "features", tables.from_rows(rows, tables.FEATURES), tables.FEATURES)
    arguments = {
        **dict.fromkeys(("behaviour_uri", "demographics_uri", "labels_uri", "ceiling_uri"), str(tmp_path / "none")),
        "answers_folder": str(tmp_path / "answers"),
        "storage_config": storage.for_step(),
        "run_config": '{"data": {"name": "world"}}',
    }
    write_text(tmp_path / "workspace" / "arguments.json", json.dumps(arguments))
    return tmp_path


def versions_of(run, user):
    env = dict.fromkeys(("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"))
    command = ["erase", user, f"--run={run}", "--json"]
    return json.loads(CliRunner().invoke(cli, command, env=env, catch_exceptions=False).stdout)["versions"]


def test_the_versions_of_somebody_who_trained_and_of_somebody_who_did_not(run):
    assert versions_of(run, "eve") == []
    first, second = versions_of(run, "ada")
    assert (first["champion"], second["champion"]) == (False, True)
    assert first["splits"] == second["splits"] == ["second_stage"]
    assert first["promoted_at"] <= second["promoted_at"]
    assert versions_of(run, "ada") == [first, second], "forgotten with the rows"
