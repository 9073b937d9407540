"""What an S3 server refuses, as errors that say what to do about it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from conf_profile.errors import RegistryConflictError, RegistryError

MISSING_KEY: Final = {"NoSuchKey", "404"}
CUT_OBJECT: Final = {"InvalidRange", "416"}
# NoSuchUpload: somebody completed the version meanwhile and cleaned up after the others.
_LOST_RACE = {"PreconditionFailed", "ConditionalRequestConflict", "NoSuchUpload", "412", "409"}
_ADVICE = {
    "NoSuchBucket": "the bucket does not exist; create it, or correct the bucket's name",
    "SignatureDoesNotMatch": "the server refuses the secret; correct AWS_SECRET_ACCESS_KEY",
    "InvalidAccessKeyId": "the server does not know the access key; correct AWS_ACCESS_KEY_ID",
    "AccessDenied": "access denied; give this key the right to list, read and write the bucket",
    "403": "access denied; check the keys and their rights on the bucket",
}


@contextmanager
def explained(action: str, where: str) -> Iterator[None]:
    """Turns what boto3 raises in the block into a RegistryError with the cause and the remedy."""
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        yield
    except ClientError as error:
        raise _refused(f"cannot {action} in {where}", error) from error
    except BotoCoreError as error:
        raise RegistryError(f"cannot {action} in {where}: {_unreachable(error)}") from error


def code(error: BaseException | None) -> str:
    """S3's name for an error; empty where it has none."""
    response = getattr(error, "response", None) or {}
    return str(response.get("Error", {}).get("Code", ""))


def _refused(action: str, error: Any) -> RegistryError:
    name, said = code(error), error.response.get("Error", {}).get("Message", "")
    kind = RegistryConflictError if name in _LOST_RACE else RegistryError
    advice = _ADVICE.get(name, f"the server says {said!r}; try again, a finished part is kept")
    return kind(f"{action}: {advice} ({name})")


def _unreachable(error: Exception) -> str:
    from botocore.exceptions import (
        ConnectionError,
        HTTPClientError,
        NoCredentialsError,
        PartialCredentialsError,
    )

    if isinstance(error, NoCredentialsError | PartialCredentialsError):
        return "no keys; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
    if isinstance(error, ConnectionError | HTTPClientError):
        return f"the server does not answer; check the endpoint and whether the server runs ({error})"
    return str(error)
