"""What the docs tell a reader to type exists: commands and their options, modules, chart values, links, alerts."""

import json
import re
import shlex

import click
import pytest
import yaml

from conf_profile.cli.main import cli
from support.paths import ROOT

RUNBOOK = ROOT / "docs" / "runbook.md"
CHART = ROOT / "charts" / "conf-profile"
FOLDERS = ("docs/*.md", "components/*/README.md", "benchmarks/*/README.md", "charts/conf-profile/README.md")
PAGES = sorted(
    [*(page for pages in FOLDERS for page in ROOT.glob(pages)), ROOT / "README.md", ROOT / "CONTRIBUTING.md"]
)
OURS = ("conf_profile", "components", "pipelines", "serving", "feature_repo", "benchmarks")
GENERATED = ("evidence.md",)
"""It names sections of comparisons that are still to be run."""
FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)\s]+)\)")


def code_lines(page):
    """The lines of fenced and indented blocks, continued ones joined, comments and prompts taken off."""
    text = page.read_text(encoding="utf-8").replace("\\\n", " ")
    fenced = [line for block in FENCE.findall(text) for line in block.splitlines()[1:-1]]
    indented = [line for line in FENCE.sub("", text).splitlines() if line.startswith("    ")]
    for line in [*fenced, *indented]:
        yield re.sub(r"(^|\s)#.*$", "", line).strip()


def commands(page):
    """The arguments of every `conf-profile ...` in the page's code; brackets mark what may be left out."""
    for line in code_lines(page):
        found = re.match(r"(?:\.venv/bin/)?conf-profile (.*)", line)
        if found:
            yield shlex.split(re.sub(r"[\[\]]", "", found[1]))


ALL_COMMANDS = [(page.name, arguments) for page in PAGES for arguments in commands(page)]
NOT_COMMANDS = [["no-such-command"], ["models", "no-such"], ["run", "--no-such"], ["erase"], ["backfill", "--engine=x"]]


def parse(command, arguments, parent=None):
    """Parses as click would before it calls the command. A path in an example need not exist."""
    if isinstance(command, click.Group) and arguments and not arguments[0].startswith("-"):
        context = click.Context(command, parent=parent, info_name=command.name)
        _, chosen, rest = command.resolve_command(context, list(arguments))
        parse(chosen, rest, context)
        return
    try:
        command.make_context(command.name, list(arguments), parent)
    except click.exceptions.Exit:  # --help, --version
        return
    except click.MissingParameter:
        raise
    except click.BadParameter as error:
        assert isinstance(error.param.type, click.Path), error


@pytest.mark.parametrize(("page", "arguments"), ALL_COMMANDS, ids=lambda value: value if isinstance(value, str) else "")
def test_a_command_of_the_docs_parses(page, arguments):
    parse(cli, arguments)


@pytest.mark.parametrize("arguments", NOT_COMMANDS)
def test_what_does_not_exist_is_found(arguments):
    with pytest.raises((click.UsageError, AssertionError)):
        parse(cli, arguments)


def test_the_runbook_has_commands():
    assert sum(name == RUNBOOK.name for name, _ in ALL_COMMANDS) > 5


def test_modules_of_the_docs_exist():
    for page in PAGES:
        for line in code_lines(page):
            for module in re.findall(r"python -m ([\w.]+)", line):
                if module.split(".")[0] in OURS:
                    file = ROOT.joinpath(*module.split("."))
                    assert file.with_suffix(".py").is_file() or (file / "__main__.py").is_file(), (
                        f"{page.name}: {module}"
                    )


def chart_values():
    """Values of the chart, and their schema with its references resolved where they are asked for."""
    values = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))
    return values, json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))


def missing_key(path, values, schema):
    """The first key of a dotted path that is no value of the chart; None if all are.

    A map that is empty in values.yaml and open in the schema, such as annotations, takes any key.
    """
    place, allowed = values, schema
    for key in path.split("."):
        allowed = schema["$defs"][allowed["$ref"].rpartition("/")[2]] if "$ref" in allowed else allowed
        free = allowed.get("additionalProperties", True)
        if place == {} and isinstance(free, dict):
            return None
        if not isinstance(place, dict) or key not in place:
            return key
        place, allowed = place[key], allowed.get("properties", {}).get(key, free if isinstance(free, dict) else {})
    return None


def test_chart_values_of_the_docs_exist():
    values, schema = chart_values()
    for page in PAGES:
        for line in code_lines(page):
            if not re.match(r"helm (install|upgrade|template)\b.*charts/conf-profile", line):
                continue
            for path in re.findall(r"--set(?:-string|-json)?[ =]([\w.]+)=", line):
                assert missing_key(path, values, schema) is None, f"{page.name}: --set {path}"


@pytest.mark.parametrize(
    ("path", "missing"),
    [
        ("serving.predictor.podAnnotations.rotated", None),
        ("serving.predictor.replicas", None),
        ("serving.predictor.podAnotations.rotated", "podAnotations"),
        ("serving.predictor.no_such", "no_such"),
        ("serving.predictor.replicas.more", "more"),
    ],
)
def test_a_value_that_the_chart_does_not_have_is_found(path, missing):
    assert missing_key(path, *chart_values()) == missing


def test_every_alert_of_the_chart_has_a_section():
    alerts = {
        name
        for template in CHART.rglob("templates/**/*.yaml")
        for name in re.findall(r"^\s*- alert: *\"?(\w+)", template.read_text(encoding="utf-8"), re.MULTILINE)
    }
    assert alerts
    assert alerts <= set(headings(RUNBOOK))


def headings(page):
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    return re.findall(r"^#+ +(.+?) *$", text, re.MULTILINE)


def anchors(page):
    """GitHub's: lower case, without punctuation, dashes for spaces."""
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings(page)}


@pytest.mark.parametrize(
    "page", [page for page in PAGES if page.name not in GENERATED], ids=lambda page: str(page.relative_to(ROOT))
)
def test_links_lead_somewhere(page):
    for link in LINK.findall(FENCE.sub("", page.read_text(encoding="utf-8"))):
        path, _, anchor = link.partition("#")
        if "://" in link:
            continue
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{page.name}: {link}"
        if anchor and target.suffix == ".md":
            named = re.findall(r'(?:id|name)="([^"]+)"', target.read_text(encoding="utf-8"))
            assert anchor in anchors(target) | set(named), f"{page.name}: {link}"
