"""What an S3 server refuses, as errors that say what to do about it, and which of them pass by themselves."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from conf_profile.errors import RegistryConflictError, RegistryError
from conf_profile.transient import is_caused_by

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


# S3 answers RequestTimeout with status 400 although a slow connection is meant.
_TRANSIENT_CODES: Final = {"RequestTimeout", "RequestTimeoutException", "SlowDown", "Throttling", "ThrottlingException"}
_TRANSIENT_STATUSES: Final = {408, 429}
_STATUS_NOT_IMPLEMENTED: Final = 501


@contextmanager
def explain_errors(action: str, where: str) -> Iterator[None]:
    """Turns what boto3 raises in the block into a RegistryError with the cause and the remedy."""
    from botocore.exceptions import BotoCoreError, ClientError
    from botocore.parsers import ResponseParserError

    try:
        yield
    except ResponseParserError as error:
        raise RegistryError(
            f"cannot {action} in {where}: the answer is cut, or not S3's; check the endpoint ({type(error).__name__})"
        ) from error
    except ClientError as error:
        raise _refusal_error(f"cannot {action} in {where}", error) from error
    except BotoCoreError as error:
        raise RegistryError(f"cannot {action} in {where}: {_describe_unreachable(error)}") from error


def is_refusal(error: BaseException) -> bool:
    """Whether an error of ours says that the keys may not do it."""
    return code(error.__cause__) in ("AccessDenied", "403")


def code(error: BaseException | None) -> str:
    """S3's name for an error; empty where it has none."""
    response = getattr(error, "response", None) or {}
    return str(response.get("Error", {}).get("Code", ""))


def transient_cause(error: BaseException) -> str:
    """Class or status of what passes by itself: no connection, a time-out, a cut body, 5xx, throttling; else empty.

    `error` is what `explain_errors` raises, or its cause.
    """
    cause = error.__cause__ if isinstance(error, RegistryError) else error
    response = getattr(cause, "response", None)
    if isinstance(response, dict):
        return _is_transient_answer(code(cause), response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    return type(cause).__name__ if _is_lost_connection(cause) else ""


def was_repeated(error: BaseException) -> bool:
    """Whether the client had sent the request before, by itself: then the first one may have been carried out."""
    response = getattr(error.__cause__, "response", None)
    return isinstance(response, dict) and response.get("ResponseMetadata", {}).get("RetryAttempts", 0) > 0


def _is_transient_answer(name: str, status: int) -> str:
    passes = (
        name in _TRANSIENT_CODES
        or status in _TRANSIENT_STATUSES
        or (status >= 500 and status != _STATUS_NOT_IMPLEMENTED)
    )
    return f"{status} {name}" if passes else ""


def _is_lost_connection(error: BaseException | None) -> bool:
    from botocore.exceptions import ConnectionError, HTTPClientError, IncompleteReadError, SSLError
    from botocore.parsers import ResponseParserError

    if isinstance(error, SSLError):
        # A certificate that does not hold will not hold later; a handshake that was cut may go through.
        return is_caused_by(error, ssl.SSLEOFError, ssl.SSLZeroReturnError)
    return isinstance(error, ConnectionError | HTTPClientError | IncompleteReadError | ResponseParserError)


def _refusal_error(action: str, error: Any) -> RegistryError:
    name, said = code(error), error.response.get("Error", {}).get("Message", "")
    kind = RegistryConflictError if name in _LOST_RACE else RegistryError
    advice = _ADVICE.get(name, f"the server says {said!r}; try again, a finished part is kept")
    return kind(f"{action}: {advice} ({name})")


def _describe_unreachable(error: Exception) -> str:
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
