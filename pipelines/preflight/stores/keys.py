"""The keys that steps have for the object store, as far as the cluster tells them."""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass, field

from pipelines.preflight.cluster import ClusterState, UnansweredQuestion
from pipelines.resources import S3Secret


@dataclass(frozen=True)
class StoreKeys:
    """Keys to ask the store with. Without values they are those that this process finds for itself.

    `are_steps`: the steps have the same ones, so that a refusal here is one there. `why_own` says why they are others.
    """

    owner: str
    setting: str
    access_key: str | None = field(default=None, repr=False)
    secret_key: str | None = field(default=None, repr=False)
    endpoint: str = ""
    """What the Secret itself names, which the steps then use."""
    are_steps: bool = True
    why_own: str = ""


def find_keys(secret: S3Secret, setting: str, state: ClusterState) -> StoreKeys:
    """The keys of the Secret, or the caller's own with the reason why."""
    if not secret.name:
        return _own_keys(setting, "it names none, and then the steps have keys only by a role of their account")
    body = state.objects.get(("Secret", secret.name))
    if body is None:
        return _own_keys(setting, f"there is no Secret {secret.name!r}")
    if isinstance(body, UnansweredQuestion):
        return _own_keys(setting, f"Secret {secret.name!r} cannot be read here: {body.reason}")
    values = {key: _decode(value) for key, value in (body.get("data") or {}).items()}
    access_key, secret_key = values.get(secret.access_key_key, ""), values.get(secret.secret_key_key, "")
    if not (access_key and secret_key):
        return _own_keys(setting, f"Secret {secret.name!r} holds no keys")
    endpoint = values.get(secret.endpoint_key, "") if secret.endpoint_key else ""
    return StoreKeys(f"the keys of Secret {secret.name!r}", setting, access_key, secret_key, endpoint)


def shared_keys(setting: str) -> StoreKeys:
    """Those of this process, which has been given the steps' own."""
    return StoreKeys("the keys of this pod", setting)


def _own_keys(setting: str, reason: str) -> StoreKeys:
    return StoreKeys("this command's own keys", setting, are_steps=False, why_own=reason)


def _decode(value: str) -> str:
    """Of a Secret's value; empty for what no text can be."""
    try:
        return base64.b64decode(value, validate=True).decode("utf-8")
    except (binascii.Error, UnicodeDecodeError):
        return ""
