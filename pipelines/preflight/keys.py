"""The keys that steps have for the object store, as far as the cluster tells them."""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass, field

from pipelines.preflight.cluster import ClusterState, Unanswered
from pipelines.resources import S3Secret


@dataclass(frozen=True)
class StoreKeys:
    """Keys to ask the store with. Without values they are the caller's own, for want of the steps'."""

    owner: str
    setting: str
    access_key: str | None = field(default=None, repr=False)
    secret_key: str | None = field(default=None, repr=False)
    endpoint: str = ""
    """What the Secret itself names, which the steps then use."""
    why_own: str = ""

    @property
    def are_steps(self) -> bool:
        return self.access_key is not None


def find_keys(secret: S3Secret, setting: str, state: ClusterState) -> StoreKeys:
    """The keys of the Secret, or the caller's own with the reason why."""
    if not secret.name:
        return _own(setting, "the steps have a role of their service account")
    body = state.objects.get(("Secret", secret.name))
    if body is None:
        return _own(setting, f"there is no Secret {secret.name!r}")
    if isinstance(body, Unanswered):
        return _own(setting, f"Secret {secret.name!r} cannot be read here: {body.reason}")
    values = {key: _decoded(value) for key, value in (body.get("data") or {}).items()}
    access_key, secret_key = values.get(secret.access_key_key, ""), values.get(secret.secret_key_key, "")
    if not (access_key and secret_key):
        return _own(setting, f"Secret {secret.name!r} holds no keys")
    endpoint = values.get(secret.endpoint_key, "") if secret.endpoint_key else ""
    return StoreKeys(f"the keys of Secret {secret.name!r}", setting, access_key, secret_key, endpoint)


def _own(setting: str, reason: str) -> StoreKeys:
    return StoreKeys("this command's own keys", setting, why_own=reason)


def _decoded(value: str) -> str:
    """Of a Secret's value; empty for what no text can be."""
    try:
        return base64.b64decode(value, validate=True).decode("utf-8")
    except (binascii.Error, UnicodeDecodeError):
        return ""
