"""Reads the JSON files that the report is made of; a file that a step did not write is an empty one."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from conf_profile.errors import DataError
from conf_profile.evaluation.labelled_users import is_judged


@dataclass(frozen=True)
class Inputs:
    """Everything that the report shows, parsed. Logs are lists of {"step": 1, "loss": 0.5, ...}.

    `run_facts` say in a line what was run; `serve_options` are what `conf-profile serve` needs besides the model's
    address to find the run's store and people. `warnings` are those of the check before the run.
    """

    evaluation: Mapping[str, Any]
    gate: Mapping[str, Any]
    outcome: Mapping[str, Any]
    config_yaml: str
    labelling: Mapping[str, Any] = field(default_factory=dict)
    features: Mapping[str, Any] = field(default_factory=dict)
    filtering: Mapping[str, Any] = field(default_factory=dict)
    reference: Mapping[str, Any] = field(default_factory=dict)
    sft_log: Sequence[Mapping[str, Any]] = ()
    grpo_log: Sequence[Mapping[str, Any]] = ()
    run_facts: Mapping[str, str] = field(default_factory=dict)
    serve_options: Sequence[str] = ()
    warnings: Sequence[str] = ()

    @property
    def judged(self) -> bool:
        """Whether the run had true labels; without, the evaluation has another shape."""
        return is_judged(self.evaluation)

    @property
    def candidate(self) -> str:
        """The arm that the gate judged."""
        return str(self.evaluation["candidate"])


def read_object(path: Path | None) -> dict[str, Any]:
    """A JSON object, {} where there is no path; DataError for anything else."""
    data = _read(path, {})
    if not isinstance(data, dict):
        raise DataError(f"{path}: expected a JSON object, found {type(data).__name__}")
    return data


def read_log(path: Path | None) -> list[dict[str, Any]]:
    """A training log, [] where there is no path; DataError unless it is a list of objects."""
    data = _read(path, [])
    if not isinstance(data, list) or not all(isinstance(entry, dict) for entry in data):
        raise DataError(f"{path}: expected a JSON list of objects like {{'step': 1, 'loss': 0.5}}")
    return data


def curve(log: Sequence[Mapping[str, Any]], key: str) -> tuple[tuple[float, float], ...]:
    """The (step, value) points of one key, for the entries that have a finite number there."""
    return tuple(
        (float(entry["step"]), float(entry[key]))
        for entry in log
        if _number(entry.get("step")) and _number(entry.get(key))
    )


def _number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _read(path: Path | None, absent: Any) -> Any:
    if path is None:
        return absent
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}; the report needs this step's output") from error
    except ValueError as error:
        raise DataError(f"{path}: not valid JSON: {error}; run the step that wrote it again") from error
