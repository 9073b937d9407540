"""What an S3 server refuses, as errors that say what to do about it, and which of them pass by themselves."""

from __future__ import annotations

import os
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final, TypeVar

from conf_profile.errors import RegistryConflictError, RegistryError
from conf_profile.transient import is_caused_by

E = TypeVar("E", bound=BaseException)
MISSING_KEY: Final = {"NoSuchKey", "404"}
CUT_OBJECT: Final = {"InvalidRange", "416"}
UNKNOWN_REQUEST: Final = {"NotImplemented", "501"}
# NoSuchUpload: somebody completed the version meanwhile and cleaned up after the others.
_LOST_RACE = {"PreconditionFailed", "ConditionalRequestConflict", "NoSuchUpload", "412", "409"}
_EXPIRY_ADVICE = "the keys have expired; get new ones, or use a role, whose keys renew themselves; then run again"
_REGION_ADVICE = (
    "the bucket lies in another region{region}; set storage.region (on a cluster s3.region) and its endpoint"
)
_FOREIGN_BUCKET_ADVICE = "the bucket is another account's; choose another name (storage.bucket, on a cluster s3.bucket)"
_UNKNOWN_REQUEST_ADVICE = (
    "the store does not know the request ({said}); where that is about checksums, set "
    "AWS_REQUEST_CHECKSUM_CALCULATION=when_required (on a cluster s3.checksums), else use another store"
)
_ADVICE = {
    "NoSuchBucket": "the bucket does not exist; create it, or correct the bucket's name",
    "SignatureDoesNotMatch": "the server refuses the secret; correct AWS_SECRET_ACCESS_KEY",
    "InvalidAccessKeyId": "the server does not know the access key; correct AWS_ACCESS_KEY_ID",
    "AccessDenied": "access denied; give this key the right to list, read and write the bucket",
    "403": "access denied; check the keys and their rights on the bucket",
    "400": "the server refuses the request; a server that speaks TLS has an endpoint with https://",
    "BucketAlreadyExists": _FOREIGN_BUCKET_ADVICE,
    "BucketNameUnavailable": _FOREIGN_BUCKET_ADVICE,
    "ExpiredToken": _EXPIRY_ADVICE,
    "ExpiredTokenException": _EXPIRY_ADVICE,
    "TokenRefreshRequired": _EXPIRY_ADVICE,
    "PermanentRedirect": _REGION_ADVICE,
    "AuthorizationHeaderMalformed": _REGION_ADVICE,
    "IllegalLocationConstraintException": _REGION_ADVICE,
    "NotImplemented": _UNKNOWN_REQUEST_ADVICE,
    "501": _UNKNOWN_REQUEST_ADVICE,
}
_REFUSAL_CODES = {"AccessDenied", "403"}
_ENCRYPTION_HINT = (
    "; a bucket that takes encrypted uploads alone needs storage.encryption (CONF_PROFILE_S3_ENCRYPTION, on a cluster "
    "s3.encryption)"
)
_HINTS = {
    "ListObjectsV2": "; it may be another account's, then choose another name (storage.bucket)",
    "PutObject": _ENCRYPTION_HINT,
    "CreateMultipartUpload": _ENCRYPTION_HINT,
}
"""What an access that was denied may mean beside the keys' rights, by the operation."""
_ROLE = "AssumeRole"
_TOKEN_FILE = "AWS_WEB_IDENTITY_TOKEN_FILE"


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
    except FileNotFoundError as error:
        if not error.filename or error.filename != os.environ.get(_TOKEN_FILE):
            raise
        raise RegistryError(f"cannot {action} in {where}: {_TOKEN_FILE} names no file ({error}); correct it") from error


def is_refusal(error: BaseException) -> bool:
    """Whether an error of ours says that the keys may not do it."""
    return code(error.__cause__) in _REFUSAL_CODES


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

    if isinstance(error, SSLError) or describe_certificate(error):
        # A certificate that does not hold will not hold later; a handshake that was cut may go through.
        return is_caused_by(error, ssl.SSLEOFError, ssl.SSLZeroReturnError)
    return isinstance(error, ConnectionError | HTTPClientError | IncompleteReadError | ResponseParserError)


def describe_certificate(error: BaseException | None) -> str:
    """What does not fit of a TLS connection and what to do about it; empty where that is not the fault."""
    from urllib3.util.ssl_match_hostname import CertificateError

    if (found := _find_cause(error, ssl.SSLCertVerificationError)) is not None:
        why = found.verify_message or found.reason
        return (
            f"the server's certificate is not trusted here ({why}); put the certificate of its authority into a file "
            "that AWS_CA_BUNDLE names (on a cluster: s3.caConfigMap)"
        )
    if (misnamed := _find_cause(error, CertificateError)) is not None:
        return f"the server's certificate is for another name ({misnamed}); use the name that it bears in the endpoint"
    if (unreadable := _find_cause(error, FileNotFoundError, PermissionError, IsADirectoryError)) is not None:
        return f"AWS_CA_BUNDLE names a file that cannot be read ({unreadable}); correct it, or put the file there"
    cut = is_caused_by(error, ssl.SSLEOFError, ssl.SSLZeroReturnError)
    if not cut and (found_other := _find_cause(error, ssl.SSLError)) is not None:
        if found_other.reason == "NO_CERTIFICATE_OR_CRL_FOUND":
            return "the file that AWS_CA_BUNDLE names holds no certificate; put the authority's there, as PEM"
        return f"the server does not speak TLS as expected ({found_other.reason}); see whether its endpoint is http://"
    return ""


def _find_cause(error: BaseException | None, *kinds: type[E]) -> E | None:
    while error is not None:
        if isinstance(error, kinds):
            return error
        error = error.__cause__ or error.__context__
    return None


def _refusal_error(action: str, error: Any) -> RegistryError:
    name, operation = code(error), str(getattr(error, "operation_name", ""))
    said = str(error.response.get("Error", {}).get("Message", ""))
    kind = RegistryConflictError if name in _LOST_RACE else RegistryError
    if operation.startswith(_ROLE):
        return RegistryError(
            f"{action}: the role is refused ({name}: {said}); check AWS_ROLE_ARN, the token that "
            "AWS_WEB_IDENTITY_TOKEN_FILE names, and whom the role trusts"
        )
    advice = _ADVICE.get(name, "the server says {said!r}; try again, a finished part is kept")
    hint = _HINTS.get(operation, "") if name in _REFUSAL_CODES else ""
    return kind(f"{action}: {advice.format(said=said, region=_region(error))}{hint} ({name})")


def _region(error: Any) -> str:
    headers = error.response.get("ResponseMetadata", {}).get("HTTPHeaders", {})
    found = error.response.get("Error", {}).get("Region") or headers.get("x-amz-bucket-region")
    return f", {found}" if found else ""


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
        certificate = describe_certificate(error)
        return certificate or f"the server does not answer; check the endpoint and whether the server runs ({error})"
    return str(error)
