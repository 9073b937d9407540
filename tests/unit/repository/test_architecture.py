"""Which room may import which, and that looking at the command line costs nothing."""

import ast
import subprocess
import sys

import pytest
from support.paths import ROOT

ROOMS = ("conf_profile", "components", "pipelines", "serving", "feature_repo", "benchmarks", "tests")
ALLOWED = {
    # pipelines is named by the command line alone, which is checked below.
    "conf_profile": {"conf_profile"},
    "components": {"components", "conf_profile", "feature_repo"},
    "feature_repo": {"feature_repo", "conf_profile"},
    "pipelines": {"pipelines", "components", "conf_profile"},
    "serving": {"serving", "conf_profile", "feature_repo"},
}
HEAVY = ("torch", "kfp", "kserve", "feast", "vllm", "transformers", "trl", "peft", "boto3", "datasets", "kubernetes")


def imports(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module


def files(room):
    return sorted((ROOT / room).rglob("*.py"))


@pytest.mark.parametrize("room", ALLOWED)
def test_a_room_imports_only_what_it_may(room):
    wrong = [
        f"{path.relative_to(ROOT)}: {name}"
        for path in files(room)
        if "commands" not in path.parts
        for name in imports(path)
        if name.split(".")[0] in ROOMS and name.split(".")[0] not in ALLOWED[room]
    ]
    assert not wrong


def test_components_do_not_know_each_other():
    wrong = [
        f"{path.relative_to(ROOT)}: {name}"
        for path in files("components")
        for name in imports(path)
        if name.startswith("components.") and name not in ("components.image", "components.outputs")
        if name.split(".")[1] != path.relative_to(ROOT / "components").parts[0]
    ]
    assert not wrong


def test_the_command_line_may_start_the_pipeline_and_nothing_else():
    known = {n for p in files("conf_profile") if "commands" in p.parts for n in imports(p) if n.split(".")[0] in ROOMS}
    assert {name for name in known if not name.startswith("conf_profile")} <= {
        "pipelines",
        "pipelines.compile",
        "benchmarks.evidence",
        "pipelines.plan",
        "pipelines.cluster.submit",
        "serving",
        "serving.local.local",
        "serving.local.processes",
        "feature_repo",
    }


def test_no_module_of_the_method_loads_anything_heavy():
    """Imports every module of conf_profile in one fresh process and looks at what came along."""
    modules = [
        ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for path in files("conf_profile")
        if path.name != "__init__.py" and path.name != "local_s3_guard.py"
    ]
    code = f"import importlib, sys\nfor m in {modules!r}: importlib.import_module(m)\n"
    code += f"print([name for name in {HEAVY!r} if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert result.stdout.strip() == "[]"


def test_help_loads_neither_numpy_nor_pydantic():
    code = "import sys\nfrom click.testing import CliRunner\nfrom conf_profile.cli.main import cli\n"
    code += "r = CliRunner().invoke(cli, ['--help']); assert r.exit_code == 0, r.output\n"
    code += "print([m for m in ('numpy', 'pydantic', 'pyarrow', 'rich') if m in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert result.stdout.strip() == "[]"


def test_every_component_has_its_five_parts():
    folders = [path.parent for path in (ROOT / "components").glob("*/step.py")]
    assert len(folders) == 13
    for folder in folders:
        for part in ("component.py", "task.py", "README.md", "__init__.py"):
            assert (folder / part).is_file(), f"{folder.name}/{part}"
