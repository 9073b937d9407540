"""Which room may import which, that no part imports in a circle, and that looking at the command line costs nothing."""

import ast
import graphlib
import re
import subprocess
import sys
from functools import cache

import pytest

from support.paths import ROOT

ALLOWED = {
    "conf_profile": {"conf_profile"},
    "feature_repo": {"feature_repo", "conf_profile"},
    "components": {"components", "feature_repo", "conf_profile"},
    "pipelines": {"pipelines", "components", "conf_profile"},
    "serving": {"serving", "feature_repo", "conf_profile"},
    "charts": {"charts", "pipelines", "components", "conf_profile"},
    "benchmarks": {"benchmarks", "pipelines", "serving", "components", "feature_repo", "conf_profile"},
}
HEAVY = ("torch", "kfp", "kserve", "feast", "vllm", "transformers", "trl", "peft", "boto3", "datasets", "kubernetes")
HEAVY += ("duckdb",)


def files(room):
    return sorted((ROOT / room).rglob("*.py"))


def name_of(path):
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


@cache
def modules():
    return {name_of(path): path for room in ALLOWED for path in files(room)}


def room_of(module):
    return module.split(".")[0]


def imports(source):
    """The project's modules that a source imports, those inside functions too, and those that a string is a name of."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "imports are absolute"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            found |= {name if name in modules() else node.module for name in names}
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and "." in node.value:
            found.add(node.value.partition(":")[0])
    return found & modules().keys()


@cache
def arrows():
    return {module: imports(path.read_text(encoding="utf-8")) - {module} for module, path in modules().items()}


@pytest.mark.parametrize("room", ALLOWED)
def test_a_room_imports_only_what_it_may(room):
    wrong = {
        f"{module} -> {name}"
        for module, names in arrows().items()
        if room_of(module) == room
        for name in names
        if room_of(name) not in ALLOWED[room]
    }
    assert not wrong


def test_no_text_of_the_method_names_another_rooms_module():
    """Not in a message either, nor in what a process is started with."""
    wrong = {
        f"{name_of(path)}: {word}"
        for path in files("conf_profile")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
        for word in re.findall(r"[\w.]*\w", node.value)
        if "." in word and word in modules() and room_of(word) != "conf_profile"
    }
    assert not wrong


@pytest.mark.parametrize(
    "source",
    [
        "from pipelines import training",
        "from pipelines.training import PIPELINE_NAME",
        "def later():\n    import pipelines.training",
        "import importlib\nimportlib.import_module('pipelines.training')",
        "COMMANDS = {'run': 'pipelines.training:training_pipeline'}",
    ],
)
def test_an_arrow_is_seen_in_whatever_way_it_is_written(source):
    assert imports(source) == {"pipelines.training"}


def circle(edges):
    try:
        graphlib.TopologicalSorter(edges).prepare()
    except graphlib.CycleError as error:
        return error.args[1]
    return None


@pytest.mark.parametrize("depth", [1, 2, 3, 4])
def test_no_part_imports_in_a_circle(depth):
    """Parts are rooms, then their folders and files, then what is in those."""
    edges = {}
    for module, names in arrows().items():
        part = ".".join(module.split(".")[:depth])
        edges.setdefault(part, set()).update(".".join(name.split(".")[:depth]) for name in names)
    assert circle({part: names - {part} for part, names in edges.items()}) is None


def test_a_circle_is_seen():
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"a"}}) is not None


@pytest.mark.parametrize("room", ALLOWED)
def test_a_folder_holds_what_a_reader_can_take_in(room):
    """About ten folders and ten files; a room's own packages and resources are counted as files."""
    folders = {path.parent for path in files(room)}
    full = {
        str(folder.relative_to(ROOT)): count
        for folder in folders
        if (count := len([path for path in folder.glob("*.py") if path.name != "__init__.py"])) > 12
    }
    assert not full


def test_components_do_not_know_each_other():
    wrong = [
        f"{path.relative_to(ROOT)}: {name}"
        for path in files("components")
        for name in arrows()[name_of(path)]
        if name.startswith("components.") and name not in ("components.image", "components.outputs", "components.steps")
        if name.split(".")[1] != path.relative_to(ROOT / "components").parts[0]
    ]
    assert not wrong


def test_no_module_of_the_method_loads_anything_heavy():
    """Imports every module of conf_profile in one fresh process and looks at what came along."""
    modules = [
        name_of(path)
        for path in files("conf_profile")
        if path.name != "__init__.py" and path.name != "process_guard.py"
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
    assert len(folders) == 14
    for folder in folders:
        for part in ("component.py", "task.py", "README.md", "__init__.py"):
            assert (folder / part).is_file(), f"{folder.name}/{part}"


def section(title):
    """A section of the architecture page."""
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    return re.search(rf"^#+ {title}$(.*?)(?=^#)", text, re.MULTILINE | re.DOTALL)[1]


def test_the_page_shows_every_room_and_its_folders():
    shown, room = set(), ""
    for line in section("The tree").splitlines():
        if indent := len(line) - len(line.lstrip()):
            names = re.findall(r"(\w+)/", line.strip().split("  ")[0])
            room = names[0] if indent == 4 else room
            shown |= {name if indent == 4 else f"{room}/{name}" for name in names}
    packages = {path.parent.relative_to(ROOT) for room in ALLOWED for path in files(room) if path.name == "__init__.py"}
    folders = {package.as_posix() for package in packages if len(package.parts) <= 2}
    assert {name for name in shown if name.split("/")[0] in ALLOWED} == folders


def test_the_page_shows_the_arrows_between_rooms():
    rows = re.findall(r"^\| `(\w+)` \| (.*)\|$", section("What depends on what"), re.MULTILINE)
    assert {room: {room, *re.findall(r"`(\w+)`", row)} for room, row in rows} == ALLOWED


def test_the_page_shows_the_arrows_within_the_method():
    rows = [line.split() for line in section("What depends on what").splitlines() if line.startswith("    ")]
    height = {name: row for row, names in enumerate(rows) for name in names}
    assert height.keys() == {path.parent.name for path in (ROOT / "conf_profile").glob("*/__init__.py")}
    pairs = {
        (module.split(".")[1], name.split(".")[1])
        for module, names in arrows().items()
        for name in names
        if module.startswith("conf_profile.") and name.startswith("conf_profile.")
    }
    within = {(lower, upper) for lower, upper in pairs if lower != upper and {lower, upper} <= height.keys()}
    assert within and not [pair for pair in within if height[pair[1]] >= height[pair[0]]]
