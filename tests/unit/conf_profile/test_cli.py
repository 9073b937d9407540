"""The command line: what it prints, and that what a user can put right comes as one clear line."""

import json
import os
import shutil
import subprocess
import sys
import sysconfig

import pytest
import yaml
from click.testing import CliRunner

from conf_profile.cli.main import cli, entry_points
from conf_profile.config import RunConfig, resolve
from support.paths import ROOT


def call(*arguments):
    return CliRunner().invoke(cli, list(arguments))


def process(*arguments, cwd):
    command = [sys.executable, "-m", "conf_profile", *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd)


@pytest.mark.parametrize("name", entry_points())
def test_every_command_has_help(name):
    result = call(name, "--help")
    assert result.exit_code == 0
    assert "Usage:" in result.output


def test_config_prints_what_would_run():
    result = call("config", "--seed", "7", "--users", "50", "--set", "grpo.steps=3")
    assert RunConfig.model_validate(yaml.safe_load(result.output)) == resolve(
        overrides=["grpo.steps=3"], values={"seed": 7, "data": {"users": 50}}
    )


def test_another_data_set_means_all_its_users():
    result = yaml.safe_load(call("config", "--dataset", "movielens-100k").output)
    given = {key: result["data"][key] for key in ("name", "path", "users")}
    assert given == {"name": "movielens-100k", "path": None, "users": None}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["config", "--preset", "huge"], "preset 'huge' does not exist; choose one of"),
        (["config", "--set", "grpo.stps=1"], "grpo.stps"),
        (["run", "--dataset", "parquet"], "needs data.path"),
        (["run", "--dataset", "parquet", "--data", "nowhere"], "nowhere"),
        (["run", "--dataset", "parquet", "--data", "x", "--users", "5"], "data.users does not apply"),
        (["report", "nowhere"], "no finished run here"),
    ],
)
def test_errors_are_one_line_without_a_traceback(tmp_path, arguments, message):
    result = process(*arguments, cwd=tmp_path)
    assert result.returncode == 2
    assert message in result.stderr
    assert "Traceback" not in result.stderr


def test_data_writes_a_folder(tmp_path):
    result = call("data", "--users", "20", "--out", str(tmp_path / "world"))
    assert result.exit_code == 0, result.output
    assert "world: 20 users as of 2026-06-01" in result.output
    assert json.loads((tmp_path / "world" / "dataset.json").read_text())["users"] == 20


def test_report_json_is_the_summary(tmp_path):
    (tmp_path / "summary.json").write_text('{"dataset": "world"}')
    assert json.loads(call("report", str(tmp_path), "--json").output) == {"dataset": "world"}


@pytest.fixture
def without_benchmarks(tmp_path):
    """Calls the command line of an installation like the images': every room but benchmarks/ is there."""
    for room in ("conf_profile", "components", "configs", "feature_repo", "pipelines", "serving"):
        shutil.copytree(ROOT / room, tmp_path / room, ignore=shutil.ignore_patterns("__pycache__"))
    about = tmp_path / "conf_profile-0.1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: conf-profile\nVersion: 0.1.0\n")
    lines = [f"{name} = {found.value}" for name, found in entry_points().items()]
    (about / "entry_points.txt").write_text("\n".join(["[conf_profile.commands]", *lines]))
    # Without site (-S) an editable installation of this checkout is not found beside it.
    places = [str(tmp_path), sysconfig.get_paths()["purelib"], sysconfig.get_paths()["platlib"]]

    def call(*arguments):
        command = [sys.executable, "-S", "-m", "conf_profile", *arguments]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(places)}
        return subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment)

    return call


def test_a_command_whose_room_is_not_installed_says_where_it_is(without_benchmarks):
    result = without_benchmarks("experiment", "table2", "--seeds", "5")
    assert result.returncode == 2 and "Traceback" not in result.stderr
    assert (
        "`experiment` is not part of this installation, which has no benchmarks/: call it in a checkout"
        in result.stderr
    )
    listed = without_benchmarks("--help")
    assert listed.returncode == 0 and listed.stdout.count("Not installed here.") == 1
