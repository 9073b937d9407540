"""The pipeline's step: a rejected candidate is nothing to roll out, and no cluster is asked."""

import json

import pytest

from components.rollout.step import run
from components.steps import steps_of
from conf_profile.config import RolloutConfig, RunConfig, StorageConfig
from conf_profile.errors import DataError
from pipelines import arguments

SERVICE = RolloutConfig(inference_service="prod", namespace="profiles")
NOWHERE = StorageConfig(endpoint="http://127.0.0.1:9")


def test_where_nothing_was_promoted_nothing_is_done(tmp_path):
    (tmp_path / "outcome.json").write_text('{"promoted": false, "reasons": ["FAILED: f1"]}')
    result = run(tmp_path / "outcome.json", tmp_path / "served.json", SERVICE, NOWHERE)
    assert result == {"in_service": False, "reason": "nothing was promoted"}
    assert json.loads((tmp_path / "served.json").read_text()) == result


def test_an_outcome_that_is_none_is_named(tmp_path):
    (tmp_path / "outcome.json").write_text("{")
    with pytest.raises(DataError, match=r"outcome\.json"):
        run(tmp_path / "outcome.json", tmp_path / "served.json", SERVICE, NOWHERE)
    assert not (tmp_path / "served.json").exists()


def test_off_unless_an_inference_service_is_named():
    inputs, places = arguments.Inputs(*[""] * 9), arguments.Places("", "", "")
    assert "rollout" not in [step.name for step in steps_of(RunConfig())]
    assert arguments.pipeline_arguments(RunConfig(), inputs, "any", places)["rollout_config"] == ""
    assert "rollout" in [step.name for step in steps_of(RunConfig(rollout=SERVICE))]
    given = arguments.pipeline_arguments(RunConfig(rollout=SERVICE), inputs, "any", places)
    assert json.loads(given["rollout_config"])["namespace"] == "profiles"
