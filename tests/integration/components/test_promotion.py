"""The promotion step, its KFP component and `conf-profile models`, against a real SeaweedFS."""

import json
import socket
import uuid

import pytest
from click.testing import CliRunner
from huggingface_hub import ModelCard
from kfp import dsl, local

from components.promotion.component import promotion
from components.promotion.step import file_hash, run
from conf_profile.cli.models import models as models_command
from conf_profile.config import RunConfig, StorageConfig, resolve
from conf_profile.errors import ConfigError, DataError, RegistryConflictError, RegistryError
from conf_profile.registry.registry import connect
from conf_profile.storage import configuration_file
from conf_profile.storage.local_s3 import local_s3
from support.s3 import client_of, model_folder, storage

ABC = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
EVALUATION = {
    "dataset": "world",
    "candidate": "sft_grpo",
    "arms": {"sft_grpo": {"precision": 0.45, "recall": 0.41, "f1": 0.43, "f1_ci": [0.4, 0.46]}},
    "thresholds": {"age": 4},
}
PROMOTE = {"decision": "promote", "reasons": ["passed: better than base"]}
REJECT = {"decision": "reject", "reasons": ["FAILED: F1 fell"]}


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory):
    return tmp_path_factory.mktemp("run")


@pytest.fixture(scope="module")
def access(run_folder):
    with local_s3(run_folder / "s3") as found:
        yield found


@pytest.fixture(autouse=True)
def environment(access, monkeypatch):
    """Where a step's own process finds the server."""
    for name, value in access.environment().items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def config():
    return StorageConfig(model=f"model-{uuid.uuid4().hex}")


@pytest.fixture
def promote(tmp_path, config):
    """Runs the step on a model with these weights."""

    def promote(weights=b"weights", gate=PROMOTE, expected="", run_config=None, config=config, evaluation=EVALUATION):
        folder = tmp_path / weights.decode()
        if not folder.exists():
            model_folder(folder, weights)
        (tmp_path / "evaluation.json").write_text(json.dumps(evaluation))
        (tmp_path / "gate.json").write_text(json.dumps(gate))
        run_json = RunConfig().model_dump_json() if run_config is None else run_config
        paths = (folder, tmp_path / "evaluation.json", tmp_path / "gate.json")
        return run(*paths, "ab" * 32, tmp_path / "outcome.json", config, run_json, expected)

    return promote


def test_a_model_that_passed_becomes_the_champion(promote, config, tmp_path):
    outcome = promote()
    assert json.loads((tmp_path / "outcome.json").read_text()) == outcome
    registry = connect(config)
    version = registry.download(None, tmp_path / "served")
    assert outcome == {
        "promoted": True,
        "version": version.name,
        "uri": f"champion://conf-profile/models/{config.model}@{version.name}",
        "files": 6,
        "bytes": version.bytes,
    }
    assert json.loads((tmp_path / "served" / "thresholds.json").read_text()) == {"age": 4}
    assert ModelCard.load(tmp_path / "served" / "README.md").data.license == "apache-2.0"
    assert version.extra["reference_sha256"] == "ab" * 32
    assert registry.require_champion().metrics == {
        "arm": "sft_grpo", "precision": 0.45, "recall": 0.41, "f1": 0.43, "f1_ci": [0.4, 0.46],
    }  # fmt: skip


def test_smoke_profiles_are_kept_with_the_version_and_apart_from_the_evaluation(promote, config, access):
    measured = {**EVALUATION, "smoke": {"profiles": [{"features": {"watch": ["a"]}, "answers": {}}]}}
    promote(evaluation=measured)
    registry = connect(config)
    version = registry.show()
    assert json.loads(registry.read(version, "smoke.json")) == measured["smoke"]
    assert json.loads(registry.read(version, "evaluation.json")) == EVALUATION
    key = f"models/{config.model}/versions/{version.name}/smoke.json"
    client_of(access).put_object(Bucket=config.bucket, Key=key, Body=b"{}")
    with pytest.raises(RegistryError, match=r"smoke\.json is missing or damaged"):
        registry.read(version, "smoke.json")


UNJUDGED = {
    "judged": False,
    "candidate": "sft_grpo",
    "answers": {"sft_grpo": {"per_attribute": {}}},
    "smoke": {
        "profiles": [
            {"features": {"watch": ["a"]}, "answers": {n: {"tag": "x", "level": 3} for n in ("age", "gender")}}
        ]
    },
}
ALLOWED = {**PROMOTE, "judged": False, "thresholds": {"age": 4, "gender": None}}


def test_an_unjudged_model_that_was_allowed_is_marked_in_all_that_is_published(promote, config, tmp_path):
    promote(b"judged")
    outcome = promote(b"unjudged", ALLOWED, "any", evaluation=UNJUDGED)
    registry = connect(config)
    version = registry.download(None, tmp_path / "served")
    assert version.name == outcome["version"] and not version.judged
    assert registry.require_champion().metrics == {"arm": "sft_grpo", "judged": False}
    served = {name: json.loads((tmp_path / "served" / name).read_text()) for name in ("thresholds.json", "smoke.json")}
    assert served["thresholds.json"] == {"age": 4, "gender": None}
    # A rollout compares what is served: a tag that is never accepted is never shown.
    assert served["smoke.json"]["profiles"][0]["answers"] == {"age": {"tag": "x", "level": 3}}
    measured = json.loads((tmp_path / "served" / "evaluation.json").read_text())
    assert (measured["judged"], measured["thresholds"]) == (False, {"age": 4, "gender": None})
    assert "**Unjudged.**" in (tmp_path / "served" / "README.md").read_text()
    judged = next(one for one in registry.list_versions() if one.name != version.name)
    assert judged.judged and judged.extra["judged"] is True


def test_the_command_shows_which_versions_are_unjudged(promote, config):
    promote(b"judged")
    promote(b"unjudged", ALLOWED, "any", evaluation=UNJUDGED)
    options = ["--bucket", config.bucket, "--model", config.model]
    shown = CliRunner().invoke(models_command, ["list", *options]).stdout
    assert shown.count("unjudged") == 1 and "0.430" in shown
    assert "F1 unjudged" in CliRunner().invoke(models_command, ["show", *options]).stdout
    listed = json.loads(CliRunner().invoke(models_command, ["list", "--json", *options]).stdout)
    assert sorted(one["judged"] for one in listed) == [False, True]


def test_addresses_that_may_hold_a_password_stay_out_of_the_manifest(promote, config):
    promote(run_config=json.dumps({"seed": 1, "features": {"redis_url": "host,password=hush"}, "storage": {}}))
    assert connect(config).show().extra["config"] == {"seed": 1}


def test_every_section_that_made_the_model_is_in_the_manifest(promote, config):
    given = json.loads(resolve(overrides=["rejection.rounds=2"]).model_dump_json())
    promote(run_config=json.dumps(given))
    recorded = connect(config).show().extra["config"]
    assert recorded["rejection"]["rounds"] == 2
    assert set(recorded) == {
        "preset", "seed", "prompt", "labelling", "student", "sft", "rejection", "reference", "filtering", "grpo",
    }  # fmt: skip


def test_a_rejected_model_is_not_uploaded_and_s3_is_not_asked(promote, access, tmp_path):
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        deaf = StorageConfig(endpoint=f"http://127.0.0.1:{nobody.getsockname()[1]}", bucket="never-made")
        outcome = promote(gate=REJECT, config=deaf)
    assert outcome == {"promoted": False, "reasons": ["FAILED: F1 fell"]}
    assert json.loads((tmp_path / "outcome.json").read_text()) == outcome
    assert "never-made" not in {entry["Name"] for entry in client_of(access).list_buckets()["Buckets"]}


def test_a_repeated_run_changes_nothing_and_says_the_same(promote, config):
    first = promote()
    pointer = connect(config).champion()
    assert promote() == first
    assert connect(config).champion() == pointer
    assert len(connect(config).list_versions()) == 1


def test_a_run_that_was_killed_before_the_pointer_moved_goes_on(promote, config, monkeypatch):
    class Killed(BaseException):
        pass

    def die(*_):
        raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr("conf_profile.registry.registry.Registry.promote", die)
        promote()
    (version,) = connect(config).list_versions()
    assert connect(config).champion() is None
    assert promote()["version"] == version.name
    assert connect(config).require_champion().version == version.name


@pytest.mark.parametrize("named_by", ["version", "etag", "bare etag", "any"])
def test_a_successor_names_the_champion_it_was_judged_against(promote, config, named_by):
    first = promote(b"one")
    etag = connect(config).require_champion().etag
    expected = {"version": first["version"], "etag": etag, "bare etag": etag.strip('"'), "any": "any"}
    second = promote(b"two", expected=expected[named_by])
    champion = connect(config).require_champion()
    assert (champion.version, champion.previous) == (second["version"], first["version"])


@pytest.mark.parametrize("expected", ["", "20200101-000000-00000000"])
def test_a_model_judged_against_another_champion_is_not_promoted(promote, config, tmp_path, expected):
    first = promote(b"one")
    (tmp_path / "outcome.json").unlink()
    with pytest.raises(RegistryConflictError, match=f"champion is now {first['version']}"):
        promote(b"two", expected=expected)
    assert connect(config).require_champion().version == first["version"]
    assert not (tmp_path / "outcome.json").exists()


def test_inputs_that_cannot_be_read_are_named(promote):
    with pytest.raises(DataError, match="'decision' is 'maybe'"):
        promote(gate={"decision": "maybe"})
    with pytest.raises(ConfigError, match="run_config"):
        promote(run_config="{")


def test_the_hash_of_the_reference_is_that_of_its_file(tmp_path):
    (tmp_path / "reference").write_text("abc")
    assert file_hash(tmp_path / "reference") == ABC
    assert file_hash(tmp_path) == ABC
    (tmp_path / "second").write_text("abc")
    with pytest.raises(DataError, match="found 2"):
        file_hash(tmp_path)


def test_the_component_runs_locally(tmp_path, config):
    model_folder(tmp_path / "model")
    (tmp_path / "evaluation.json").write_text(json.dumps(EVALUATION))
    (tmp_path / "gate.json").write_text(json.dumps(PROMOTE))
    (tmp_path / "reference.parquet").write_text("abc")

    @dsl.pipeline(name="one-step")
    def one_step(config: str, configuration: str):
        model = dsl.importer(artifact_uri=str(tmp_path / "model"), artifact_class=dsl.Model)
        evaluation = dsl.importer(artifact_uri=str(tmp_path / "evaluation.json"), artifact_class=dsl.Artifact)
        gate = dsl.importer(artifact_uri=str(tmp_path / "gate.json"), artifact_class=dsl.Artifact)
        table = dsl.importer(artifact_uri=str(tmp_path / "reference.parquet"), artifact_class=dsl.Dataset)
        promotion(
            model=model.output, evaluation=evaluation.output, gate=gate.output, reference=table.output,
            config=config, configuration=configuration, expected_champion="",
        )  # fmt: skip

    local.init(local.SubprocessRunner(use_venv=False), pipeline_root=str(tmp_path / "runs"))
    one_step(config=config.for_step(), configuration=configuration_file.write(RunConfig(), tmp_path))
    (outcome,) = (tmp_path / "runs").rglob("outcome")
    version = json.loads(outcome.read_text())["version"]
    assert connect(config).require_champion().version == version
    assert connect(config).show(version).extra["reference_sha256"] == ABC


def command(*arguments):
    result = CliRunner().invoke(models_command, arguments, catch_exceptions=False)
    return result.output


def test_the_command_lists_shows_and_rolls_back(promote, config):
    one = promote(b"one")["version"]
    two = promote(b"two", expected=one)["version"]
    here = ("--model", config.model)
    table = command("list", *here)
    assert one in table and two in table and "0.430" in table
    assert [(item["version"], item["champion"]) for item in json.loads(command("list", *here, "--json"))] == [
        (name, name == two) for name in sorted([one, two])
    ]
    assert json.loads(command("show", *here, "--json"))["version"] == two
    assert "model.safetensors" in command("show", one, *here)
    assert f"is now {one}; it was {two}" in command("rollback", *here)
    assert json.loads(command("rollback", two, *here, "--json"))["version"] == two


def test_the_command_serves_a_runs_own_folder(access, run_folder, config, promote, monkeypatch):
    version = promote()["version"]
    for name in access.environment():
        monkeypatch.delenv(name)
    listed = command("list", "--run", str(run_folder), "--model", config.model, "--json")
    assert [item["version"] for item in json.loads(listed)] == [version]
    with pytest.raises(RegistryError, match="--run DIR"):
        command("list")
    with pytest.raises(RegistryError, match="no such folder"):
        command("list", "--run", str(run_folder / "elsewhere"))


def test_the_command_says_what_is_missing(config, access):
    connect(storage(access, "m"), access)
    assert "no version yet: run the pipeline" in command("list", "--model", config.model)
    with pytest.raises(RegistryError, match="no champion yet, run the pipeline"):
        command("show", "--model", config.model)
    with pytest.raises(RegistryError, match="does not exist"):
        command("list", "--bucket", "not-there")
    with pytest.raises(ConfigError, match="bucket"):
        command("list", "--bucket", "Not A Bucket")
