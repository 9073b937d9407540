"""The files of a version have one name each, for whoever writes, publishes or serves it."""

import ast
import inspect

import pytest

from conf_profile.registry import format as registry_format
from conf_profile.registry import version_files
from conf_profile.rollout import state
from conf_profile.storage.object_address import is_remote
from serving.model import model_source


def test_the_names_that_published_versions_have():
    assert {name: value for name, value in vars(version_files).items() if name.isupper()} == {
        "TASK": "task.yaml",
        "CALIBRATION": "calibration.json",
        "VOTE_CALIBRATION": "calibration-vote.json",
        "PROFILE": "profile.json",
        "CARD": "README.md",
        "THRESHOLDS": "thresholds.json",
        "EVALUATION": "evaluation.json",
        "MANIFEST": "manifest.json",
    }


def test_the_predictors_image_can_read_the_names():
    """It has vLLM's packages alone."""
    nodes = ast.walk(ast.parse(inspect.getsource(version_files)))
    imports = [ast.unparse(node) for node in nodes if isinstance(node, ast.Import | ast.ImportFrom)]
    assert imports == ["from __future__ import annotations"]


def test_a_rollout_changes_the_variable_that_the_transformer_reads(monkeypatch, tmp_path):
    uri = "champion://bucket/models/m@v1"
    container = {"env": [{"name": registry_format.MODEL_URI_VARIABLE, "value": "champion://bucket/models/m@v0"}]}
    service = {"spec": {"predictor": {"model": {"storageUri": ""}}, "transformer": {"containers": [container]}}}
    changes = [entry for entry in state.make_pin_patch(service, uri) if entry["op"] == "replace"]
    assert changes[-1] == {"op": "replace", "path": "/spec/transformer/containers/0/env/0/value", "value": uri}
    monkeypatch.setenv(container["env"][0]["name"], uri)
    monkeypatch.setenv(model_source.MODEL_FOLDER, str(tmp_path))
    assert isinstance(model_source.open_source("/models/of-the-settings"), model_source.RegistrySource)


@pytest.mark.parametrize(
    ("place", "remote"), [("s3://bucket/key", True), ("s3:/x", False), ("/tmp/s3://x", False), ("", False)]
)
def test_what_begins_with_the_scheme_is_in_a_store(place, remote):
    assert is_remote(place) is remote
