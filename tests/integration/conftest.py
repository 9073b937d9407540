"""One small run of the whole pipeline serves every test that looks at what a run leaves behind."""

import pytest

from support.running import ORDER, executed, kill_in, start


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """With several processes a file's tests stay in one, which starts its servers once; so do those of the one run.

    That run takes longest, so it begins first.
    """
    for item in items:
        of_the_run = "attempts" in item.fixturenames
        item.add_marker(pytest.mark.xdist_group("run" if of_the_run else item.path.stem))
    items.sort(key=lambda item: "attempts" not in item.fixturenames)


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
