"""Layers of a configuration as plain mappings: read from YAML or from `--set`, merged later over earlier.

What the keys mean, and which exist, is `config`'s to say.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from conf_profile.errors import ConfigError


def read_text(file: Path) -> str:
    """A configuration file's text; ConfigError where it cannot be read."""
    try:
        return file.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{file}: cannot read the configuration: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{file}: the configuration is not UTF-8: {error}") from error


def read_mapping(text: str, source: str) -> dict[str, Any]:
    """The sections of a YAML text; `source` is for the message of the ConfigError."""
    try:
        data = yaml.safe_load(text) or {}
    except yaml.YAMLError as error:
        raise ConfigError(f"{source}: not a valid YAML file: {error}") from error
    if not isinstance(data, dict):
        raise ConfigError(f"{source}: expected a mapping of sections, found {type(data).__name__}")
    return data


def parse_override(override: str) -> dict[str, Any]:
    """A layer from `section.key=value`; the value is YAML."""
    key, equals, value = override.partition("=")
    if not equals or not key:
        raise ConfigError(f"--set {override!r}: expected section.key=value")
    try:
        nested: Any = yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise ConfigError(f"--set {override!r}: the value is not valid YAML: {error}") from error
    for part in reversed(key.split(".")):
        nested = {part: nested}
    return dict(nested)


def merge(base: dict[str, Any], layer: Mapping[str, Any]) -> None:
    """Puts a later layer over `base`, key by key within mappings."""
    for key, value in layer.items():
        if isinstance(value, Mapping) and isinstance(base.get(key), dict):
            merge(base[key], value)
        else:
            base[key] = json.loads(json.dumps(value, default=str)) if isinstance(value, Mapping) else value
