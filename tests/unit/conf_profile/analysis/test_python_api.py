"""`import conf_profile as cp`: its names, its weight, and the examples that its documents show."""

import ast
import doctest
import importlib
import inspect
import pkgutil
import re
import subprocess
import sys

import pytest

import conf_profile as cp
from support.paths import ROOT

STUB = ROOT / "conf_profile" / "__init__.pyi"
PAGE = ROOT / "docs" / "python.md"
MODULES = ("attributes", "calibration", "columns", "frames", "inputs", "judgement", "votes")


def run(code):
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    return result.stdout.strip()


def test_the_stub_declares_what_the_package_gives():
    imported = {
        alias.asname: f"{node.module}.{alias.name}"
        for node in ast.walk(ast.parse(STUB.read_text(encoding="utf-8")))
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert imported == {name: f"{getattr(cp, name).__module__}.{name}" for name in cp.__all__}


def test_no_name_is_a_modules_too():
    """A module that is imported later would take the name's place."""
    assert not set(cp.__all__) & {module.name for module in pkgutil.iter_modules(cp.__path__)}


def test_names_are_listed_and_an_unknown_one_is_an_attribute_error():
    assert set(cp.__all__) <= set(dir(cp))
    with pytest.raises(AttributeError, match="module 'conf_profile' has no attribute 'votes'"):
        cp.votes  # noqa: B018


def test_everything_public_is_typed_and_documented():
    for name in cp.__all__:
        assert inspect.getdoc(getattr(cp, name))
    for name in (name for name in cp.__all__ if inspect.isfunction(getattr(cp, name))):
        signature = inspect.signature(getattr(cp, name))
        annotations = [signature.return_annotation, *(given.annotation for given in signature.parameters.values())]
        assert inspect.Signature.empty not in annotations
        assert f"cp.{name}(" in PAGE.read_text(encoding="utf-8")


def test_the_import_loads_nothing_else():
    assert (
        run("import sys, conf_profile\nprint([name for name in sys.modules if name.startswith('conf_profile.')])")
        == "[]"
    )
    assert run("import sys, conf_profile\nprint('numpy' in sys.modules)") == "False"


ANALYSIS_ALONE = """
import sys

class Absence:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("pandas", "polars"):
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Absence())
import pyarrow, conf_profile as cp

samples = pyarrow.table({"user_id": [1, 2], "attribute": ["age"] * 2, "tag": ["a", "b"], "level": [5, 2]})
votes = cp.vote(samples, "em")
levels = cp.apply_calibration(votes, cp.fit_calibration(votes))
cp.choose_thresholds(levels, samples, precision=0.5)
cp.evaluate(levels, samples, resamples=10)
print([name for name in ("pydantic", "scipy", "torch", "boto3", "click", "filelock") if name in sys.modules])
"""


def test_a_whole_analysis_needs_numpy_pyarrow_and_yaml_alone():
    assert run(ANALYSIS_ALONE) == "[]"


@pytest.mark.parametrize("module", MODULES)
def test_the_examples_of_the_docstrings_hold(module):
    found = importlib.import_module(f"conf_profile.analysis.{module}")
    assert doctest.testmod(found).failed == 0


def test_every_function_has_an_example():
    functions = [getattr(cp, name) for name in cp.__all__ if inspect.isfunction(getattr(cp, name))]
    assert len(functions) == 5
    assert all(">>> " in inspect.getdoc(function) for function in functions)


def test_the_modules_are_all_of_them():
    assert sorted(MODULES) == sorted(path.stem for path in (ROOT / "conf_profile" / "analysis").glob("[!_]*.py"))


def test_the_code_of_the_page_runs():
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    namespace = {}
    for block in blocks:
        exec(block, namespace)
    assert namespace["votes"]["tag"].tolist() == ["35+", "18-34"]
    assert namespace["thresholds"] == {"age": 1}
    assert namespace["accepted"]["user_id"].tolist() == ["ann", "bob"]
    assert namespace["table"]["precision"].iloc[0] == 1.0
