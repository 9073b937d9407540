"""The supervisor of `conf-profile serve` before it starts a process."""

from types import SimpleNamespace

import pytest

from conf_profile.errors import ServingError
from serving.local import local, processes
from serving.local.local import LocalServing, Options, Predictor
from support.serving_process import model_folder


def test_a_version_that_the_given_thresholds_do_not_fit_is_not_loaded(tmp_path, monkeypatch):
    """Nor changed over to: what is served stays, since its vLLM is not stopped for one that cannot follow."""
    monkeypatch.setattr(processes, "start", lambda *_: pytest.fail("a vLLM began"))
    registry = SimpleNamespace(show=lambda _: SimpleNamespace(name="v2"), fill=lambda _, folder: model_folder(folder))
    options = Options(port=local.free_port(), thresholds=(("height", 3),))
    with pytest.raises(ServingError, match="the model knows no attribute height; it has gender"):
        LocalServing(registry, None, tmp_path, options)


@pytest.mark.parametrize(("version", "looks"), [(None, [None, None, None]), ("v1", ["v1"])])
def test_who_serves_one_version_for_good_looks_at_no_champion(tmp_path, version, looks):
    """`looks` are the versions that the registry is asked for, at the start and at each of two polls."""
    asked, polls = [], []

    def show(name=None):
        asked.append(name)
        return SimpleNamespace(name=name or "v1")

    class Started(LocalServing):
        """Its two processes live until the second poll."""

        def _start_predictor(self, version):
            return Predictor(version, tmp_path, "http://127.0.0.1:1", self._child(lambda: None))

        def _start_transformer(self):
            return self._child(lambda: polls.append("poll") or (self.stop() if len(polls) == 2 else None))

        def _child(self, poll):
            return SimpleNamespace(name="a process", process=SimpleNamespace(poll=poll))

    Started(SimpleNamespace(show=show), None, tmp_path, Options(port=1, version=version, poll_seconds=0.01)).run()
    assert (len(polls), asked) == (2, looks)
