"""The measured figures that everything on docs/scale.md is computed from: inputs.yaml, read and checked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml

from benchmarks.scale.sharding import Balance
from conf_profile.errors import ConfigError
from conf_profile.files import write_text

FILE = Path(__file__).with_name("inputs.yaml")
RemeasureWhere = Literal["gpu", "cluster", "own data", "no"]


@dataclass(frozen=True)
class Figure:
    """One figure: what it is, in which unit, what it comes from, and where it must be measured again."""

    value: float
    unit: str
    what: str
    source: str
    again: RemeasureWhere


@dataclass(frozen=True)
class Inputs:
    """All figures by name, the machine that they were measured on, and the simulated shards of each decade."""

    machine: str
    figures: Mapping[str, Figure]
    balances: Sequence[Balance]

    def __getitem__(self, name: str) -> float:
        """The value of a figure; ConfigError where there is none of that name."""
        if name not in self.figures:
            raise ConfigError(f"no figure {name!r} in the inputs; known are: {', '.join(sorted(self.figures))}")
        return self.figures[name].value


def read(file: Path = FILE) -> Inputs:
    """Reads an inputs file; ConfigError says what is wrong with it."""
    raw = _read_yaml(file)
    try:
        figures = {name: Figure(**entry) for name, entry in raw["figures"].items()}
        return Inputs(raw["machine"], figures, [Balance(**entry) for entry in raw["balances"]])
    except (KeyError, TypeError, AttributeError) as error:
        raise ConfigError(f"{file}: not an inputs file: {error}; copy {FILE.name} and change its values") from error


def update(values: Mapping[str, float], balances: Sequence[Mapping[str, Any]], machine: str, file: Path = FILE) -> None:
    """Puts newly measured values into the file; what they mean stands there already."""
    raw = _read_yaml(file)
    for name, value in values.items():
        if name not in raw["figures"]:
            raise ConfigError(f"{file}: describe the figure {name!r} there first (unit, what, source, again)")
        raw["figures"][name]["value"] = round_figure(value)
    raw["machine"] = machine
    raw["balances"] = [dict(entry) for entry in balances] or raw["balances"]
    write_text(file, yaml.safe_dump(raw, sort_keys=False, allow_unicode=True, width=120))


def round_figure(value: float) -> float:
    """Three significant digits: a laptop's timing has no more."""
    return float(f"{value:.3g}")


def _read_yaml(file: Path) -> dict[str, Any]:
    try:
        return dict(yaml.safe_load(file.read_text(encoding="utf-8")))
    except (OSError, yaml.YAMLError, TypeError, ValueError) as error:
        raise ConfigError(f"{file}: cannot be read: {error}") from error
