"""Documents, docstrings and comments name files, modules and definitions that exist.

A path counts from the root (`serving/settings.py`, `docs/data.md#splits`) or as a file's bare name in backticks
(`rewards.py`). Whether commands, options, values and links are right is `test_runbook.py`'s.
"""

import ast
import io
import re
import tokenize
from functools import cache

import pytest
import yaml

from support.paths import ROOT

ROOMS = ("conf_profile", "components", "pipelines", "serving", "feature_repo", "charts", "configs", "benchmarks")
FOLDERS = (*ROOMS, "tests", "docs", "examples")
DOCUMENTS = sorted(
    path
    for pattern in ("*.md", "docs/*.md", "components/*/*.md", "benchmarks/*/*.md", "charts/*/*.md")
    for path in ROOT.glob(pattern)
)
SOURCES = sorted(path for folder in (*ROOMS, "tests") for path in (ROOT / folder).rglob("*.py"))

PATH = re.compile(rf"(?<![\w./:@=-])(?:{'|'.join(FOLDERS)})/(?:[\w.-]+/)*[\w.-]*\w(?![\w*/{{])")
FILE = re.compile(r"`([\w-]+\.(?:py|yaml|html|css|js|json|md|tpl))`")
MODULE = re.compile(r"python3? -m ([\w.]*\w)")
NAME = re.compile(rf"`((?:{'|'.join(ROOMS)})(?:\.\w+)+)")
PLACEHOLDER = re.compile(r"(?<![a-z])[A-Z]+(?:\.\w+)?(?:/|$)")
"""`NAME.json`, `configs/NAME.yaml`."""
FILES_OF_RUNS = """
    summary.json report.html evaluation.json gate.json smoke.json thresholds.json manifest.json champion.json
    calibration.json profile.json task.yaml taxonomy.yaml lexicon.json dataset.json s3.json backfill.json outputs.json
    generation_config.json config.json my.yaml pipeline.yaml task.yaml s3.yaml mine.yaml trainjob.yaml setup.py
    vllm.yaml mapping.yaml ingest.json
"""
"""And of models, data sets, users and other projects: none of the checkout."""


@cache
def file_names():
    ours = {path.name for folder in FOLDERS for path in (ROOT / folder).rglob("*") if path.is_file()}
    return ours | set(FILES_OF_RUNS.split())


def module_exists(name):
    file = ROOT.joinpath(*name.split("."))
    return file.with_suffix(".py").is_file() or (file / "__main__.py").is_file()


@cache
def defined(file):
    """What a module defines or imports, and what its classes hold."""
    return set(re.findall(r"\w+", file.read_text(encoding="utf-8")))


@cache
def chart_values():
    return yaml.safe_load((ROOT / "charts" / "conf-profile" / "values.yaml").read_text(encoding="utf-8"))


def is_chart_value(parts):
    """Whether the chart has this value; capitals stand for any key, and a map without keys takes every one."""
    place = chart_values()
    for part in parts:
        if not place:
            break
        if not isinstance(place, dict) or (part not in place and not part.isupper()):
            return False
        place = place[part] if part in place else next(iter(place.values()))
    return True


@cache
def name_exists(name):
    """Whether a dotted name is a package, a module, a word of a module's source, a value of the chart, or a group of
    entry points."""
    parts = name.split(".")
    if is_chart_value(parts) or f'"{name}"' in (ROOT / "pyproject.toml").read_text(encoding="utf-8"):
        return True
    for count in range(len(parts), 0, -1):
        place = ROOT.joinpath(*parts[:count])
        if place.is_dir():
            return count == len(parts) or set(parts[count:]) <= defined(place / "__init__.py")
        if place.with_suffix(".py").is_file():
            return set(parts[count:]) <= defined(place.with_suffix(".py"))
    return False


def stale(text):
    """The paths, modules and names of a text that do not exist."""
    found = [path for path in PATH.findall(text) if not (ROOT / path).exists()]
    found += [name for name in FILE.findall(text) if name not in file_names()]
    found = [path for path in found if not PLACEHOLDER.search(path)]
    ours = [name for name in MODULE.findall(text) if name.split(".")[0] in ROOMS]
    found += [f"python -m {name}" for name in ours if not module_exists(name)]
    return found + [name for name in NAME.findall(FILE.sub("", text)) if not name_exists(name)]


def comments(source):
    """The docstrings and comments of a source, and other strings that stand alone."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            yield node.value.value
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield token.string


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_document_names_what_exists(document):
    assert not stale(document.read_text(encoding="utf-8"))


def test_docstrings_and_comments_name_what_exists():
    wrong = {
        f"{path.relative_to(ROOT)}: {name}"
        for path in SOURCES
        for text in comments(path.read_text(encoding="utf-8"))
        for name in stale(text)
    }
    assert not wrong


@pytest.mark.parametrize(
    "text",
    [
        "see conf_profile/voting.py",
        "the folder serving/no_such_room",
        "`docs/no-such-page.md`",
        "`chart_of_no_room.py`",
        "run `python -m pipelines.experiments.page`",
        "`conf_profile.voting`",
        "`conf_profile.tables.NO_SUCH_TABLE`",
        "`serving.predictor.noSuchValue`",
    ],
)
def test_a_stale_name_is_found(text):
    assert stale(text)


@pytest.mark.parametrize(
    "text",
    [
        "see conf_profile/consensus/voting.py, docs/data.md#splits and tests/unit/.",
        "`rewards.py`, `summary.json`, RUN/serving/features and components/*/README.md",
        "`python -m benchmarks.scale.measure features`, python -m serving",
        "`conf_profile.tables.FEATURES` of `conf_profile.consensus`",
        "`serving.predictor.replicas`, `pipelines.steps.STEP.pool`",
    ],
)
def test_a_name_that_exists_passes(text):
    assert not stale(text)
