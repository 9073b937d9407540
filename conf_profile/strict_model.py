"""What all that a user writes is checked with: a pydantic model that takes no unknown key, and its errors in words.

For a run's configuration, the values of a cluster and the settings of the transformer.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError


class StrictModel(BaseModel):
    """Unknown keys are errors, values do not change after the check."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def explain(error: ValidationError, whole: str = "") -> str:
    """Every problem with its key and its value; `whole` stands for the key of what concerns several keys."""
    return "; ".join(_problem(found, whole) for found in error.errors())


def _problem(found: Mapping[str, Any], whole: str) -> str:
    key = ".".join(map(str, found["loc"])) or whole
    return f"{key}: {_message(found)}" if key else _message(found)


def _message(found: Mapping[str, Any]) -> str:
    # What stands under a key that does not exist may be a secret in the wrong place: it is not shown.
    if found["type"] == "extra_forbidden":
        return "there is no such key"
    message = str(found["msg"]).removeprefix("Value error, ")
    return message if isinstance(found["input"], Mapping) else f"{message} (given: {found['input']!r})"
