"""Layers of a configuration or of values as plain mappings: read from YAML or from `--set`, and merged.

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


def merge(*layers: Mapping[str, Any], null_removes: bool = False) -> dict[str, Any]:
    """A new mapping in which later layers override earlier ones, key by key within mappings.

    With `null_removes`, as Helm reads values files: a null takes away what an earlier layer says of its key.
    """
    merged: dict[str, Any] = {}
    for layer in layers:
        for key, value in layer.items():
            earlier = merged.get(key)
            if value is None and null_removes:
                merged.pop(key, None)
            elif isinstance(value, Mapping) and isinstance(earlier, Mapping):
                merged[key] = merge(earlier, value, null_removes=null_removes)
            else:
                # A copy, in JSON's types: a path, or a time that YAML has recognised, is the text that was written.
                merged[key] = json.loads(json.dumps(value, default=str))
    return merged
