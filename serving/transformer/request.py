"""The request of the API, checked: what a caller wants, or a message that names what is wrong."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from conf_profile.dialogue.output_format import LEVELS
from serving.model.bundle import Bundle
from serving.settings import Settings

MAX_USER_ID = 512
"""Characters; messages repeat the id, and the online store keeps it as a key."""


class BadRequestError(ValueError):
    """The request breaks the API; the message names the place."""


@dataclass(frozen=True)
class Instance:
    """One user to profile; `features` None: to be read from the store."""

    user_id: str
    features: Any = None


@dataclass(frozen=True)
class ProfileRequest:
    """All users of one request and how they are to be answered for; `thresholds` are the request's own."""

    instances: tuple[Instance, ...]
    thresholds: Mapping[str, int]
    samples: int
    explain: bool


def parse(payload: Any, bundle: Bundle, settings: Settings) -> ProfileRequest:
    """Reads {"instances": [...], "parameters": {...}}; BadRequestError says what must change."""
    if not isinstance(payload, Mapping) or not isinstance(payload.get("instances"), list):
        raise BadRequestError("the body must be an object with a list 'instances'")
    instances, parameters = payload["instances"], payload.get("parameters") or {}
    if not 1 <= len(instances) <= settings.max_instances:
        raise BadRequestError(f"'instances' has {len(instances)} entries; 1 to {settings.max_instances} are allowed")
    if not isinstance(parameters, Mapping):
        raise BadRequestError("'parameters' must be an object")
    unknown = sorted(set(parameters) - {"thresholds", "samples", "explain"})
    if unknown:
        raise BadRequestError(f"unknown parameter(s) {', '.join(unknown)}; known: thresholds, samples, explain")
    return ProfileRequest(
        tuple(_instance(entry, place) for place, entry in enumerate(instances)),
        _thresholds(parameters.get("thresholds") or {}, bundle),
        _samples(parameters.get("samples", 1), settings),
        _flag(parameters.get("explain", False)),
    )


def _instance(entry: Any, place: int) -> Instance:
    if not isinstance(entry, Mapping):
        raise BadRequestError(f"instances[{place}] must be an object with a 'user_id'")
    user_id = entry.get("user_id")
    if not isinstance(user_id, str) or not user_id.strip():
        raise BadRequestError(f"instances[{place}]: 'user_id' must be a text that is not blank")
    if len(user_id) > MAX_USER_ID:
        raise BadRequestError(f"instances[{place}]: 'user_id' has {len(user_id)} characters; at most {MAX_USER_ID}")
    return Instance(user_id, entry.get("features"))


def thresholds(wanted: ProfileRequest, bundle: Bundle, settings: Settings) -> Mapping[str, int | None]:
    """The request's over the configuration's over the model's own; None: never accepted."""
    return bundle.override_thresholds(settings.thresholds, wanted.thresholds)


def _thresholds(given: Any, bundle: Bundle) -> Mapping[str, int]:
    if not isinstance(given, Mapping):
        raise BadRequestError("'thresholds' must be an object: attribute -> level")
    for name, level in given.items():
        if name not in bundle.task.names:
            raise BadRequestError(f"thresholds: no attribute {name!r}; known: {', '.join(bundle.task.names)}")
        if type(level) is not int or level not in LEVELS:
            raise BadRequestError(f"thresholds: {name!r} is {level!r}; a level is 1 to 5")
    return dict(given)


def _samples(given: Any, settings: Settings) -> int:
    if not isinstance(given, int) or isinstance(given, bool) or not 1 <= given <= settings.max_samples:
        raise BadRequestError(f"'samples' is {given!r}; 1 to {settings.max_samples} are allowed")
    return given


def _flag(given: Any) -> bool:
    if not isinstance(given, bool):
        raise BadRequestError(f"'explain' is {given!r}; true or false are allowed")
    return given
