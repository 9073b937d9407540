"""Makes what is generated of the chart: the steps in values.yaml, the schema, the table in its README, the renderings.

    python -m charts.chart

values.yaml is written by hand but for `pipelines.steps`, which come from the table of steps. Schema and README come
from values.yaml alone: a comment `# -- text` describes the key below it, a comment `# @schema
{...}` is that key's JSON schema. A described mapping without a schema is a section: its keys, and no others, are
allowed. It works on a checkout, not on an installed package.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from charts.chart_types import DEFINITIONS, Schema
from conf_profile.config_layers import merge
from conf_profile.errors import ConfigError
from conf_profile.files import write_text
from pipelines.resources import Resources

ROOT = Path(__file__).resolve().parent.parent
CHART = ROOT / "charts" / "conf-profile"
GOLDEN = ROOT / "tests" / "golden"
VALUES, SCHEMA, README = "values.yaml", "values.schema.json", "README.md"
MARKS = ("<!-- values -->", "<!-- /values -->")
_KEY = re.compile(r"^(?P<indent> *)(?P<name>[A-Za-z][A-Za-z0-9_]*):")
_INDENT = 2
_STEPS = re.compile(r"^(  steps:\n)(?:    .*\n)+", re.MULTILINE)
EXAMPLE: dict[str, Any] = {"s3": {"endpoint": "https://s3.example.com", "existingSecret": "object-store"}}
EVERY_OPTION: dict[str, Any] = {
    "serving": {
        "predictor": {"autoscaling": {"type": "keda", "prometheus": "http://prometheus.monitoring:9090"}},
        "transformer": {"autoscaling": {"enabled": True}},
        "writeBack": {"enabled": True},
    },
    "pipelines": {
        "enabled": True,
        "namespace": "training",
        "s3Secret": {"name": "object-store"},
        "launcher": {"create": True},
        "upload": {"enabled": True, "endpoint": "http://ml-pipeline.kubeflow:8888", "dataUri": "s3://tables/profiles"},
        "schedule": {"enabled": True},
        "retentionDays": 30,
    },
    "monitoring": {
        "serviceMonitor": {"enabled": True},
        "alerts": {"enabled": True},
        "dashboard": {"enabled": True},
    },
}
RENDERINGS: Mapping[str, tuple[str | None, Sequence[dict[str, Any]]]] = {
    "chart-default": (None, [EXAMPLE]),
    "chart-cpu": ("values-cpu.yaml", [EXAMPLE]),
    "chart-gpu": ("values-gpu.yaml", [EXAMPLE, EVERY_OPTION]),
}
"""Golden file -> preset, and what is laid over it; the last one has every part of the chart."""
_TYPES = {bool: "boolean", int: "integer", float: "number", str: "string"}


@dataclass(frozen=True)
class Value:
    """One described key. `schema` is None for a section, whose keys are described themselves."""

    path: tuple[str, ...]
    description: str
    schema: Schema | None
    default: Any

    @property
    def key(self) -> str:
        return ".".join(self.path)


def read(text: str) -> list[Value]:
    """The described values in their order; ConfigError for a key that a section leaves undescribed."""
    defaults = yaml.safe_load(text)
    found = [_value(path, comment, defaults) for path, comment in _find_described_keys(text)]
    _refuse_undescribed(found, defaults)
    return found


def schema(values: Sequence[Value]) -> Schema:
    """The JSON schema of a whole values file. `global` is what a parent chart hands down to all its charts."""
    root = _section("", values)
    root["properties"] = {"global": {"type": "object"}, **root["properties"]}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Values of the chart conf-profile",
        **root,
        "$defs": DEFINITIONS,
    }


def table(values: Sequence[Value]) -> str:
    """Markdown: a table for each section at the top, with the key, its default and its description."""
    parts = [_heading("Names and images", ""), *_rows(value for value in values if _is_top_leaf(value))]
    for section in (value for value in values if len(value.path) == 1 and value.schema is None):
        parts += [_heading(section.key, section.description)]
        parts += _rows(value for value in values if value.path[0] == section.key and value.schema is not None)
    return "\n".join(parts) + "\n"


def documentation() -> dict[Path, str]:
    """What schema and README must hold, and values.yaml of the pipeline's steps."""
    text = insert_steps((CHART / VALUES).read_text(encoding="utf-8"))
    values = read(text)
    before, after = _split_at_marks((CHART / README).read_text(encoding="utf-8"), CHART / README)
    return {
        CHART / VALUES: text,
        CHART / SCHEMA: json.dumps(schema(values), indent=1) + "\n",
        CHART / README: f"{before}{MARKS[0]}\n{table(values)}{MARKS[1]}{after}",
    }


def insert_steps(values: str) -> str:
    """The text of values.yaml with what each step asks for by default, as `components.steps` declares it."""
    steps = Resources().values()["pipelines"]["steps"]
    lines = [f"    {name}:\n{''.join(_setting(*setting) for setting in step.items())}" for name, step in steps.items()]
    text, found = _STEPS.subn(lambda match: match[1] + "".join(lines), values, count=1)
    if not found:
        raise ConfigError(f"{CHART / VALUES}: has no mapping pipelines.steps to put the steps into")
    return text


def _setting(name: str, value: Any) -> str:
    flow = (
        yaml.safe_dump(value, default_flow_style=True, sort_keys=False).removesuffix("...\n").strip().replace("'", '"')
    )
    return f"      {name}: {flow}\n"


def renderings() -> dict[Path, str]:
    """What the golden files must hold; the schema must be current."""
    return {GOLDEN / f"{name}.yaml": _rendering(preset, layers) for name, (preset, layers) in RENDERINGS.items()}


def _rendering(preset: str | None, layers: Sequence[Mapping[str, Any]]) -> str:
    """All objects in one file, each template under its name."""
    import helm_python

    base = yaml.safe_load((CHART / preset).read_text(encoding="utf-8")) if preset else {}
    rendered = helm_python.Chart.load(CHART).render(merge(base, *layers), name="conf-profile", namespace="profiles")
    parts = [
        f"---\n# Source: {path}\n{text.strip().removeprefix('---').strip()}\n"
        for path, text in sorted(rendered.items())
        if path.endswith(".yaml") and text.strip()
    ]
    return "".join(parts)


def _find_described_keys(text: str) -> Iterator[tuple[tuple[str, ...], list[str]]]:
    """(path, comment lines) of each key with a comment that begins with `# --`."""
    path: list[str] = []
    comment: list[str] = []
    for line in text.splitlines():
        if line.lstrip().startswith("#"):
            comment.append(line.strip().removeprefix("#").strip())
            continue
        key = _KEY.match(line)
        if key:
            path = [*path[: len(key["indent"]) // _INDENT], key["name"]]
            if any(part.startswith("-- ") for part in comment):
                yield tuple(path), comment
        comment = []


def _value(path: tuple[str, ...], comment: Sequence[str], defaults: Mapping[str, Any]) -> Value:
    default: Any = defaults
    for name in path:
        default = default[name]
    start = next(place for place, line in enumerate(comment) if line.startswith("-- "))
    lines = [line.removeprefix("-- ") for line in comment[start:]]
    given = [line.removeprefix("@schema ") for line in lines if line.startswith("@schema ")]
    description = " ".join(line for line in lines if not line.startswith("@schema "))
    return Value(path, description, _schema_of(path, given, default), default)


def _schema_of(path: Sequence[str], given: Sequence[str], default: Any) -> Schema | None:
    if given:
        return dict(yaml.safe_load(given[0]))
    if isinstance(default, dict) and default:
        return None
    if type(default) not in _TYPES:
        raise ConfigError(f"{VALUES}: {'.'.join(path)}: needs a `# @schema`, its default does not say its type")
    return {"type": _TYPES[type(default)]}


def _refuse_undescribed(values: Sequence[Value], defaults: Mapping[str, Any]) -> None:
    known = {value.path for value in values}
    sections: list[tuple[tuple[str, ...], Mapping[str, Any]]] = [((), defaults)]
    sections += [(value.path, value.default) for value in values if value.schema is None]
    for path, section in sections:
        for name in section:
            if (*path, name) not in known:
                raise ConfigError(f"{VALUES}: {'.'.join((*path, name))}: has no description; write `# -- ...` above it")


def _section(key: str, values: Sequence[Value]) -> Schema:
    depth = len(key.split(".")) if key else 0
    inside = [value for value in values if not key or value.key.startswith(f"{key}.")]
    properties = {
        value.path[-1]: {
            "description": value.description,
            **(_section(value.key, inside) if value.schema is None else value.schema),
        }
        for value in inside
        if len(value.path) == depth + 1
    }
    return {"type": "object", "properties": properties, "additionalProperties": False}


def _is_top_leaf(value: Value) -> bool:
    return len(value.path) == 1 and value.schema is not None


def _heading(title: str, description: str) -> str:
    text = f"\n### {title}\n\n" + (f"{description}\n\n" if description else "")
    return f"{text}| key | default | |\n|---|---|---|"


def _rows(values: Iterator[Value]) -> list[str]:
    return [f"| `{value.key}` | {_default(value.default)} | {_cell(value.description)} |" for value in values]


def _default(value: Any) -> str:
    """Long defaults are read in values.yaml."""
    text = json.dumps(value)
    return f"`{_cell(text)}`" if len(text) <= 100 else "see `values.yaml`"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _split_at_marks(readme: str, path: Path) -> tuple[str, str]:
    before, first, rest = readme.partition(MARKS[0])
    _, second, after = rest.partition(MARKS[1])
    if not (first and second):
        raise ConfigError(f"{path}: the marks {' and '.join(MARKS)} are missing; the table stands between them")
    return before, after


def main() -> None:
    """Writes all of them."""
    for make in (documentation, renderings):
        for path, text in make().items():
            write_text(path, text)
            print(f"wrote {path.relative_to(ROOT)}", file=sys.stderr)


if __name__ == "__main__":
    main()
