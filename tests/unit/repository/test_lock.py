"""requirements.lock as a text: for every machine, of no machine."""

import re
import subprocess
import tomllib

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from support.paths import ROOT

LOCK = (ROOT / "requirements.lock").read_text(encoding="utf-8")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
BLOCKS = re.split(r"^(?=\w)", LOCK, flags=re.MULTILINE)[1:]
MACHINES = [
    {"sys_platform": system, "platform_machine": machine, "platform_system": system.title()}
    | {"python_version": python, "python_full_version": f"{python}.0"}
    for system, machine in (("linux", "x86_64"), ("linux", "aarch64"), ("darwin", "arm64"))
    for python in ("3.11", "3.12", "3.13")
]


def pinned_for(machine):
    given = [Requirement(block.partition("\\")[0].strip()) for block in BLOCKS]
    return [one for one in given if not one.marker or one.marker.evaluate(machine)]


def test_every_package_is_pinned_and_has_hashes():
    assert len(BLOCKS) > 200
    for block in BLOCKS:
        assert re.match(r"[\w.-]+==\S+ ", block), block
        assert re.search(r"--hash=sha256:[0-9a-f]{64}", block), block


def test_it_names_no_index_and_no_folder():
    assert not re.search(r"://|file:|^-|@ ", LOCK, re.MULTILINE)
    assert "/" not in re.sub(r"# via.*|#   .*", "", LOCK)


def test_a_machine_gets_one_version_of_a_package():
    for machine in MACHINES:
        names = [one.name for one in pinned_for(machine)]
        assert len(names) == len(set(names)) > 150


def test_what_the_project_asks_for_is_locked_for_each_machine():
    project = PROJECT["project"]
    extras = project["optional-dependencies"]
    asked = [Requirement(text) for text in (*project["dependencies"], *extras["serving"], *extras["dev"])]
    for machine in MACHINES:
        pinned = {one.name: one for one in pinned_for(machine)}
        for one in asked:
            if not one.marker or one.marker.evaluate(machine):
                version = next(iter(pinned[canonicalize_name(one.name)].specifier)).version
                assert version in one.specifier, (one, machine)


def test_the_oldest_and_the_newest_python_are_those_of_the_lock():
    assert PROJECT["project"]["requires-python"] == ">=3.11,<3.14"
    environments = PROJECT["tool"]["uv"]["environments"]
    assert environments == PROJECT["tool"]["uv"]["required-environments"]
    assert all(text.endswith("python_full_version < '3.14'") for text in environments) and len(environments) == 3


@pytest.mark.parametrize(
    "machine", ["darwin x86_64 3.12", "linux x86_64 3.10", "linux x86_64 3.14", "win32 AMD64 3.12"]
)
def test_a_machine_that_the_lock_is_not_for_is_told_so(tmp_path, machine):
    python = tmp_path / "python"
    python.write_text(f"#!/bin/sh\necho {machine}\n")
    python.chmod(0o755)
    given = {"UV_PYTHON": str(python), "UV": "/nowhere/uv", "PATH": "/usr/bin:/bin"}
    told = subprocess.run(["sh", "install.sh"], capture_output=True, text=True, cwd=ROOT, env=given)
    assert told.returncode == 1 and told.stderr.startswith("install.sh: requirements.lock is for Linux on x86_64")
    assert f"this is {machine}. With another Python: rm -rf .venv && make environment PYTHON=" in told.stderr
