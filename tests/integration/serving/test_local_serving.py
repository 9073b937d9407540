"""The supervisor of `conf-profile serve` before it starts a process."""

from types import SimpleNamespace

import pytest

from conf_profile.errors import ServingError
from serving.local import local, processes
from serving.local.local import LocalServing, Options
from support.serving_process import model_folder


def test_a_version_that_the_given_thresholds_do_not_fit_is_not_loaded(tmp_path, monkeypatch):
    """Nor changed over to: what is served stays, since its vLLM is not stopped for one that cannot follow."""
    monkeypatch.setattr(processes, "start", lambda *_: pytest.fail("a vLLM began"))
    registry = SimpleNamespace(show=lambda: SimpleNamespace(name="v2"), fill=lambda _, folder: model_folder(folder))
    options = Options(port=local.free_port(), thresholds=(("height", 3),))
    with pytest.raises(ServingError, match="the model knows no attribute height; it has gender"):
        LocalServing(registry, None, tmp_path, options)
