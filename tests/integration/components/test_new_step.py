"""What CONTRIBUTING says is all that a new step needs: done here in a copy of the checkout, then run and compiled."""

import os
import shutil
import subprocess
import sys

import pytest
import yaml

from support.paths import ROOT
from support.running import environment

ROOMS = ("charts", "components", "conf_profile", "configs", "feature_repo", "pipelines", "tests/golden")
FOLDER = {
    "__init__.py": "",
    "README.md": "# counting\n",
    "component.py": '''"""The KFP wrapper of the counting step."""

from kfp import dsl

from components.image import IMAGE


@dsl.component(base_image=IMAGE, packages_to_install=[], install_kfp_package=False)
def counting(features: dsl.Input[dsl.Dataset], count: dsl.Output[dsl.Artifact], config: str):
    """Counts the users."""
    from components.counting import task

    task.run(features, count, config)
''',
    "task.py": '''"""Between KFP and the counting step."""

from pathlib import Path

from components.counting import step
from conf_profile.config import CountingConfig, parse_section


def run(features, count, config):
    step.run(Path(features.path), Path(count.path), parse_section(CountingConfig, config))
''',
    "step.py": '''"""Counts the users of a table of features."""

from conf_profile import tables
from conf_profile.files import write_text


def run(features, count, config):
    users = tables.read(features, tables.FEATURES).num_rows
    print(f"counting {users}/{users}")
    write_text(count, str(users * config.times))
''',
}
ROW = '    StepDeclaration("counting", ("counting",)),\n    StepDeclaration("labelling"'
SECTION = '''class CountingConfig(Section):
    """How users are counted."""

    times: int = 1


class RunConfig(Section):'''
FIELD = "    counting: CountingConfig = CountingConfig()\n    labelling: LabellingConfig"
IMPORT = "from components.counting.component import counting\nfrom components.evaluation.component import evaluation\n"
CALL = "    yield counting(features=users, config=given.counting_config)\n\n    labelled = labelling("


def replace(path, before, after):
    source = path.read_text(encoding="utf-8")
    assert source.count(before) == 1
    path.write_text(source.replace(before, after), encoding="utf-8")


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    root = tmp_path_factory.mktemp("checkout")
    for room in ROOMS:
        shutil.copytree(ROOT / room, root / room, ignore=shutil.ignore_patterns("__pycache__"))
    folder = root / "components" / "counting"
    folder.mkdir()
    for name, text in FOLDER.items():
        (folder / name).write_text(text, encoding="utf-8")
    replace(root / "components" / "steps.py", '    StepDeclaration("labelling"', ROW)
    replace(root / "conf_profile" / "config.py", "class RunConfig(Section):", SECTION)
    replace(root / "conf_profile" / "config.py", "    labelling: LabellingConfig", FIELD)
    training = root / "pipelines" / "training.py"
    replace(training, "from components.evaluation.component import evaluation\n", IMPORT)
    replace(training, "    labelled = labelling(", CALL)
    return root


def call(checkout, *arguments):
    done = subprocess.run(
        [sys.executable, "-m", *arguments],
        env={**environment(), "PYTHONPATH": os.pathsep.join([str(checkout), *filter(None, sys.path)])},
        cwd=checkout,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done


def test_it_is_compiled(checkout, tmp_path):
    call(checkout, "conf_profile", "compile", f"--out={tmp_path}/pipeline.yaml", "--set=counting.times=3")
    pipeline, platform = yaml.safe_load_all((tmp_path / "pipeline.yaml").read_text(encoding="utf-8"))
    task = pipeline["root"]["dag"]["tasks"]["counting"]
    assert task["inputs"]["parameters"]["config"] == {"componentInputParameter": "counting_config"}
    assert pipeline["root"]["inputDefinitions"]["parameters"]["counting_config"]["defaultValue"] == '{"times":3}'
    assert platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]["exec-counting"]["securityContext"]


def test_it_runs(checkout, tmp_path):
    done = call(
        checkout, "conf_profile", "run", f"--out={tmp_path}/out", "--users=40", "--set=counting.times=3",
        "--until=counting",
    )  # fmt: skip
    (count,) = (tmp_path / "out" / "artefacts").glob("*/counting/count")
    assert int(count.read_text()) == 3 * 40
    assert "✓ counting" in done.stderr and "labelling" not in done.stderr
    assert "features: " in done.stdout and not (tmp_path / "out" / "summary.json").exists()


def test_chart_and_schema_follow(checkout):
    call(checkout, "charts.chart")
    values = yaml.safe_load((checkout / "charts" / "conf-profile" / "values.yaml").read_text(encoding="utf-8"))
    assert values["pipelines"]["steps"]["counting"]["timeoutSeconds"] == 3600
    assert '"counting"' in (checkout / "charts" / "conf-profile" / "values.schema.json").read_text(encoding="utf-8")
