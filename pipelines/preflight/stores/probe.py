"""One request to an object store, and what it came to: a code, and the region that the store names.

It reads at most one byte. A GET serves where a HEAD would, since the answer to a HEAD has no code: a wrong secret, an
unknown key and a missing right would all be 403.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from conf_profile.errors import RegistryError
from conf_profile.storage import object_store
from conf_profile.storage.object_errors import CUT_OBJECT, code, describe_certificate
from pipelines.preflight.stores.keys import StoreKeys

_ATTEMPTS = 2
_READ_SECONDS = 15.0
UNREACHABLE_STORE = "does not answer"
UNTRUSTED_CERTIFICATE = "certificate"
NO_KEYS = "no keys"
OTHER_FAILURE = "other"
_REGION_HEADER = "x-amz-bucket-region"


@dataclass(frozen=True)
class Place:
    """A bucket where the steps look for it."""

    endpoint: str
    region: str
    bucket: str

    def __str__(self) -> str:
        return f"bucket {self.bucket!r} at {self.endpoint}"


@dataclass(frozen=True)
class Outcome:
    """`code` is S3's name of the refusal or one of this module's; empty where the request was answered."""

    code: str = ""
    region: str = ""
    detail: str = ""


class StoreProbe:
    """A bucket as certain keys see it."""

    def __init__(self, place: Place, keys: StoreKeys) -> None:
        self._place, self._keys = place, keys

    @cached_property
    def _client(self) -> Any:
        place, keys = self._place, self._keys
        return object_store.s3_client(
            place.endpoint, place.region, keys.access_key, keys.secret_key, _ATTEMPTS, _READ_SECONDS
        )

    def list(self) -> Outcome:
        """Lists one object, which every step does before it reads."""
        return _outcome(lambda: self._client.list_objects_v2(Bucket=self._place.bucket, MaxKeys=1))

    def read(self, key: str) -> Outcome:
        """Reads the first byte of an object. An empty one has none, which is no refusal."""
        found = _outcome(lambda: self._first_byte(key))
        # The bucket's region was seen when it was listed.
        return Outcome() if not found.code or found.code in CUT_OBJECT else found

    def _first_byte(self, key: str) -> Mapping[str, Any]:
        answer: Mapping[str, Any] = self._client.get_object(Bucket=self._place.bucket, Key=key, Range="bytes=0-0")
        answer["Body"].close()
        return answer


def _outcome(request: Callable[[], Mapping[str, Any]]) -> Outcome:
    from botocore import exceptions

    try:
        return Outcome(region=_region(request()))
    except exceptions.ClientError as error:
        return Outcome(code(error), _region(error.response), str(error.response.get("Error", {}).get("Message", "")))
    except (exceptions.NoCredentialsError, exceptions.PartialCredentialsError) as error:
        return Outcome(NO_KEYS, detail=str(error))
    except (exceptions.ConnectionError, exceptions.HTTPClientError) as error:
        certificate = describe_certificate(error)
        return Outcome(UNTRUSTED_CERTIFICATE if certificate else UNREACHABLE_STORE, detail=certificate or str(error))
    except (exceptions.BotoCoreError, RegistryError) as error:
        return Outcome(OTHER_FAILURE, detail=str(error))


def _region(answer: Mapping[str, Any]) -> str:
    headers = answer.get("ResponseMetadata", {}).get("HTTPHeaders", {})
    return str(headers.get(_REGION_HEADER) or answer.get("Error", {}).get("Region") or "")
