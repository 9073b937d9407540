"""A run on a cluster competes with the champion of the moment of its evaluation, and replaces that one or none."""

import json
import uuid

import pytest

from components.evaluation.inference import Rival, fetch_champion
from components.promotion.step import run
from conf_profile.config import RunConfig, StorageConfig
from conf_profile.errors import RegistryConflictError
from conf_profile.registry.registry import ANY_CHAMPION, connect
from conf_profile.storage.local_s3 import local_s3
from support.s3 import model_folder

EVALUATION = {
    "dataset": "world",
    "candidate": "sft_grpo",
    "arms": {"sft_grpo": {"precision": 0.45, "recall": 0.41, "f1": 0.43, "f1_ci": [0.4, 0.46]}},
    "thresholds": {"age": 4},
}


@pytest.fixture(scope="module")
def access(tmp_path_factory):
    with local_s3(tmp_path_factory.mktemp("s3")) as found:
        yield found


@pytest.fixture
def storage(access, monkeypatch):
    for name, value in access.environment().items():
        monkeypatch.setenv(name, value)
    return StorageConfig(model=f"model-{uuid.uuid4().hex}")


@pytest.fixture
def champion(storage, tmp_path):
    """Makes a model with these weights the champion, as another run would; its version."""

    def champion(weights):
        models = connect(storage)
        version = models.publish(model_folder(tmp_path / f"other-{weights.decode()}", weights)).name
        models.promote(version, {})
        return version

    return champion


@pytest.fixture
def promote(storage, tmp_path):
    """The promotion step, told 'any', with an evaluation that names its rival."""

    def promote(weights, compared_with):
        folder = tmp_path / f"candidate-{weights.decode()}"
        if not folder.exists():
            model_folder(folder / "model", weights)
        (folder / "evaluation.json").write_text(json.dumps(EVALUATION | {"compared_with": compared_with}))
        (folder / "gate.json").write_text(json.dumps({"decision": "promote", "reasons": []}))
        return run(
            folder / "model", folder / "evaluation.json", folder / "gate.json", "0" * 64, folder / "outcome.json",
            storage, RunConfig().model_dump_json(), ANY_CHAMPION,
        )  # fmt: skip

    return promote


def test_the_champion_of_the_moment_is_fetched_and_named(storage, champion, tmp_path):
    assert fetch_champion(ANY_CHAMPION, storage, tmp_path / "none") == Rival()
    first, second = champion(b"one"), champion(b"two")
    assert fetch_champion(ANY_CHAMPION, storage, tmp_path / "now") == Rival(second, tmp_path / "now")
    assert (tmp_path / "now" / "model.safetensors").read_bytes() == b"two"
    assert fetch_champion(first, storage, tmp_path / "pinned") == Rival(first, tmp_path / "pinned")
    assert fetch_champion("", storage, tmp_path / "no-one") == Rival()


def test_a_rival_that_nobody_has_judged_is_known_as_such(storage, tmp_path):
    models = connect(storage)
    version = models.publish(model_folder(tmp_path / "unjudged", b"u"), manifest_extra={"judged": False}).name
    models.promote(version, {})
    assert fetch_champion(version, storage, tmp_path / "now") == Rival(version, tmp_path / "now", judged=False)


def test_the_rival_is_replaced(storage, champion, promote):
    rival = champion(b"one")
    outcome = promote(b"mine", rival)
    current = connect(storage).require_champion()
    assert outcome["promoted"] and (current.version, current.previous) == (outcome["version"], rival)
    assert promote(b"mine", rival)["version"] == outcome["version"], "a repeated promotion is none"


def test_a_champion_that_came_after_the_evaluation_stays(storage, champion, promote):
    rival, newer = champion(b"one"), champion(b"two")
    with pytest.raises(RegistryConflictError, match="another promotion came first"):
        promote(b"mine", rival)
    with pytest.raises(RegistryConflictError):
        promote(b"first-ever", "")
    assert connect(storage).require_champion().version == newer


def test_the_first_champion_needs_no_rival(storage, promote):
    assert connect(storage).champion() is None
    assert promote(b"mine", "")["promoted"]
