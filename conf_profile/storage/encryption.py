"""What an upload asks the store to encrypt it with, as text: `sse-s3`, `sse-kms`, or `sse-kms:KEY`.

KEY is the id or the ARN of a key of KMS; without one the store takes its own. A bucket's policy may refuse uploads that
ask for nothing, although the bucket encrypts by default. Readers need not say anything.
"""

from __future__ import annotations

import os
from typing import Any

from conf_profile.errors import RegistryError

VARIABLE = "CONF_PROFILE_S3_ENCRYPTION"
"""Environment variable with the text, where neither the configuration nor an address has one."""
_OPERATIONS = ("PutObject", "CreateMultipartUpload")


def find(given: str | None) -> str:
    """The given text, else the environment's; empty for none."""
    return given or os.environ.get(VARIABLE, "")


def parameters(text: str) -> dict[str, str]:
    """boto3's parameters of an upload; RegistryError for another text."""
    kind, _, key = text.partition(":")
    if kind == "sse-kms":
        return {"ServerSideEncryption": "aws:kms", **({"SSEKMSKeyId": key} if key else {})}
    if text == "sse-s3":
        return {"ServerSideEncryption": "AES256"}
    raise RegistryError(
        f"storage.encryption (or {VARIABLE}) is {text!r}; write sse-s3, sse-kms or sse-kms:KEY, or leave it out"
    )


def encrypt_uploads(client: Any, text: str) -> None:
    """Whatever this boto3 client uploads from now on asks for it."""
    added = parameters(text)
    for operation in _OPERATIONS:
        client.meta.events.register(f"provide-client-params.s3.{operation}", lambda params, **_: {**params, **added})
