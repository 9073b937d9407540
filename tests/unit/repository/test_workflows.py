"""The workflow files: they load, ask for nothing that they do not need, and call what exists."""

import re

import pytest
import yaml

from support.paths import ROOT

WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yaml"))
PINNED = re.compile(r"[\w-]+/[\w/-]+@(v\d+\.\d+\.\d+|[0-9a-f]{40})")
TARGET = re.compile(r"^([\w-]+):", re.MULTILINE)


def load(path):
    """YAML 1.1 reads the key `on` as true."""
    found = yaml.safe_load(path.read_text(encoding="utf-8"))
    return {"on" if key is True else key: value for key, value in found.items()}


def steps(path):
    return [step for job in load(path)["jobs"].values() for step in job["steps"]]


def commands(path):
    """Every line of every `run`, continued lines joined."""
    for step in steps(path):
        yield from step.get("run", "").replace("\\\n", " ").splitlines()


def test_there_is_one_for_tests_chart_and_cluster():
    assert [path.stem for path in WORKFLOWS] == ["chart", "cluster", "tests"]


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_a_workflow_may_read_the_code_and_nothing_else(path):
    workflow = load(path)
    assert workflow["permissions"] == {"contents": "read"}
    assert "pull_request_target" not in workflow["on"]
    for job in workflow["jobs"].values():
        assert "permissions" not in job
        assert job["timeout-minutes"] <= 180
    assert "secrets." not in path.read_text(encoding="utf-8")


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_actions_are_pinned_and_leave_no_token_behind(path):
    used = [step for step in steps(path) if "uses" in step]
    assert used
    for step in used:
        assert PINNED.fullmatch(step["uses"]), step["uses"]
        if step["uses"].startswith("actions/checkout@"):
            assert step["with"]["persist-credentials"] is False


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_nothing_that_others_write_reaches_a_shell(path):
    for line in commands(path):
        assert "${{" not in line, line


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_what_is_called_exists(path):
    targets = set(TARGET.findall((ROOT / "Makefile").read_text(encoding="utf-8")))
    called = [line.split()[1:] for line in commands(path) if line.startswith("make ")]
    assert called
    for names in called:
        assert set(names) <= targets, f"{path.name}: make {' '.join(names)}"
    for line in commands(path):
        for module in re.findall(r"python -m ([\w.]+)", line):
            file = ROOT.joinpath(*module.split("."))
            assert file.with_suffix(".py").is_file() or (file / "__main__.py").is_file(), module
        for name in re.findall(r"(?<![\w/])(?:tests|docs|charts)/[\w./-]+", line):
            assert (ROOT / name).exists(), name


def test_the_one_python_is_that_of_the_project():
    versions = {
        step["with"]["python-version"]
        for path in WORKFLOWS
        for step in steps(path)
        if step.get("uses", "").startswith("actions/setup-python@")
    }
    assert versions == {"3.11"}
