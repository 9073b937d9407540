"""Later layers override earlier ones: of a run's configuration, and of values as Helm reads them."""

from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml

from conf_profile import config
from conf_profile.config_layers import merge

BASE = {"a": {"x": 1, "y": [1, 2]}, "b": 1, "c": {"z": None}}


@pytest.mark.parametrize(
    ("layer", "expected"),
    [
        ({}, BASE),
        ({"a": {"x": 2}}, {**BASE, "a": {"x": 2, "y": [1, 2]}}),
        ({"a": {"y": [3]}}, {**BASE, "a": {"x": 1, "y": [3]}}),
        ({"a": 0}, {**BASE, "a": 0}),
        ({"b": {"x": {"y": 2}}}, {**BASE, "b": {"x": {"y": 2}}}),
        ({"d": {"x": 1}}, {**BASE, "d": {"x": 1}}),
    ],
)
@pytest.mark.parametrize("null_removes", [True, False])
def test_mappings_are_merged_and_everything_else_is_replaced(layer, expected, null_removes):
    assert merge(BASE, layer, null_removes=null_removes) == expected


@pytest.mark.parametrize("layer", [{"a": {"x": None}}, {"b": None}, {"a": None}, {"d": None}])
def test_a_null_is_a_value_unless_it_is_to_remove(layer):
    kept = merge(BASE, layer)
    removed = merge(BASE, layer, null_removes=True)
    ((key, value),) = layer.items()
    assert kept[key] == ({**BASE["a"], **value} if value else None)
    if value:
        assert removed == {**BASE, "a": {"y": [1, 2]}}
    else:
        assert removed == {name: there for name, there in BASE.items() if name != key}


def test_no_layer_is_changed_and_none_shares_what_is_returned():
    first, second = {"a": {"x": [1]}}, {"a": {"y": {"z": [1]}}, "b": [1]}
    found = merge(first, second)
    found["a"]["x"].append(2)
    found["a"]["y"]["z"].append(2)
    found["b"].append(2)
    assert (first, second) == ({"a": {"x": [1]}}, {"a": {"y": {"z": [1]}}, "b": [1]})


def test_paths_and_times_become_text_wherever_they_stand():
    moment = datetime(2026, 5, 1, tzinfo=UTC)
    for base in ({}, {"a": {}}):
        assert merge(base, {"a": {"p": Path("x"), "t": moment}}) == {"a": {"p": "x", "t": str(moment)}}


def test_a_time_that_yaml_recognises_is_taken_from_any_layer(tmp_path):
    file = tmp_path / "run.yaml"
    file.write_text(yaml.safe_dump({"features": {"test_share": 0.5}}))
    resolved = config.resolve("tiny", file, ["features.as_of=2026-05-01T00:00:00Z"])
    assert resolved.features.as_of == "2026-05-01 00:00:00+00:00"
