"""Addresses of objects as steps are given them, and which server they are on: text alone, no request.

    s3://BUCKET/KEY[?endpoint=URL&region=NAME]

What an address does not say is the environment's.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from urllib.parse import parse_qs, urlencode, urlsplit

from conf_profile.errors import RegistryError

SCHEME = "s3://"
REGION = "us-east-1"


@dataclass(frozen=True)
class ObjectAddress:
    """An object, or a folder of them; `endpoint` and `region` are empty where they are the environment's."""

    bucket: str
    key: str
    endpoint: str = ""
    region: str = ""

    def __str__(self) -> str:
        query = urlencode({name: value for name in ("endpoint", "region") if (value := getattr(self, name))})
        return f"{SCHEME}{self.bucket}/{self.key}" + (f"?{query}" if query else "")


def is_remote(place: str) -> bool:
    """Whether a place is in a store, rather than a path of this machine."""
    return place.startswith(SCHEME)


def parse(uri: str) -> ObjectAddress:
    """The parts of an address; RegistryError for another form."""
    parts = urlsplit(uri)
    if parts.scheme != "s3" or not parts.netloc:
        raise RegistryError(f"{uri!r} is not an S3 address; expected s3://BUCKET/PREFIX")
    query = {name: values[-1] for name, values in parse_qs(parts.query).items()}
    return ObjectAddress(parts.netloc, parts.path.strip("/"), query.get("endpoint", ""), query.get("region", ""))


def environment_endpoint() -> str:
    """The endpoint that AWS's variables name; empty where they name none."""
    return os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or ""


def find_endpoint(given: str | None) -> str:
    """The given endpoint, else the environment's; RegistryError where there is none."""
    found = given or environment_endpoint()
    if not found:
        raise RegistryError(
            "no S3 endpoint: set storage.endpoint or AWS_ENDPOINT_URL (on a cluster: by the secret that "
            "pipelines.s3Secret names), or start a local server"
        )
    return found


def find_region(given: str | None) -> str:
    """The given region, else the environment's, else S3's first one."""
    return given or os.environ.get("AWS_DEFAULT_REGION") or REGION
