"""The resolved configuration as a file under its hash, and what steps are given of it."""

import json

import pytest

from conf_profile import config
from conf_profile.config import GateConfig, RunConfig, TeacherConfig, parse_section
from conf_profile.errors import ConfigError
from conf_profile.storage import configuration_file

CHANGED = config.resolve("tiny", overrides=["gate.min_precision=0.5", "teacher.engine_arguments={max_model_len: 512}"])


def test_what_is_written_is_read_again(tmp_path):
    place = configuration_file.write(CHANGED, tmp_path)
    assert configuration_file.read(place) == CHANGED
    assert configuration_file.write(CHANGED, tmp_path) == place
    assert configuration_file.write(RunConfig(), tmp_path) != place


@pytest.mark.parametrize("given", [CHANGED, RunConfig()])
def test_without_a_store_the_differences_stand_in_the_place_of_the_address(given):
    place = configuration_file.inline(given)
    assert place.startswith("{") and configuration_file.read(place) == given


@pytest.mark.parametrize(
    ("content", "message"),
    [("- 1", "not a resolved configuration"), ("gate: {floor: 1}", "floor"), ("a: [", "not a resolved configuration")],
)
def test_another_file_is_refused_by_its_name(tmp_path, content, message):
    (tmp_path / "other.yaml").write_text(content)
    with pytest.raises(ConfigError, match=message) as caught:
        configuration_file.read(str(tmp_path / "other.yaml"))
    assert "other.yaml" in str(caught.value)


@pytest.mark.parametrize("place", ["", "/nowhere/run.yaml"])
def test_a_file_that_is_not_there_says_what_to_do(place):
    with pytest.raises(ConfigError, match=r"cannot be read: .*run again"):
        configuration_file.read(place)


def test_a_step_is_given_what_differs_and_nothing_where_nothing_does():
    assert GateConfig().for_step() == ""
    assert parse_section(GateConfig, "") == GateConfig()
    given = GateConfig(min_precision=0.5)
    assert json.loads(given.for_step()) == {"min_precision": 0.5}
    assert parse_section(GateConfig, given.for_step()) == given


def test_the_whole_section_is_read_as_releases_before_wrote_it():
    given = CHANGED.teacher
    assert parse_section(TeacherConfig, given.model_dump_json()) == given


def test_a_pipeline_of_other_defaults_than_the_images_is_refused(monkeypatch):
    monkeypatch.setenv(config.DEFAULTS, config.defaults_digest())
    assert parse_section(GateConfig, "") == GateConfig()
    monkeypatch.setenv(config.DEFAULTS, "0123456789ab")
    with pytest.raises(ConfigError, match=r"compiled with the defaults 0123456789ab, .* compile with the release"):
        parse_section(GateConfig, "")
