"""One small run of the whole pipeline serves every test that looks at what a run leaves behind."""

from pathlib import Path

import pytest
from xdist.scheduler import LoadFileScheduling

from support.running import ORDER, executed, kill_in, start

THE_RUN = ("test_run", "test_components")
"""The files that look at one and the same run."""


class ByServers(LoadFileScheduling):
    """With several processes a file's tests stay in one, which starts its servers once; so do those of the one run."""

    def _split_scope(self, nodeid):
        file = super()._split_scope(nodeid)
        return "the run" if Path(file).stem in THE_RUN else file


def pytest_xdist_make_scheduler(config, log):
    return ByServers(config, log)


def pytest_collection_modifyitems(items):
    """The run takes longest, so it begins first."""
    items.sort(key=lambda item: item.path.stem not in THE_RUN)


@pytest.fixture(scope="session")
def attempts(tmp_path_factory):
    """A run that was killed in the middle of each of its steps in turn, and then finished.

    Gives its folder, the logs of all starts by the step that they were killed in, and the last start's result.
    """
    folder, logs = tmp_path_factory.mktemp("run") / "out", {}
    for step in ORDER:
        kill_in(step, folder)
        logs[step] = (executed(folder), (folder / "run.log").read_text(encoding="utf-8"))
    last = start(folder)
    output, _ = last.communicate(timeout=900)
    return folder, logs, last.returncode, output


@pytest.fixture(scope="session")
def killed_then_finished(attempts):
    folder, _, status, output = attempts
    return folder, status, output
