"""Addresses of objects as steps are given them, and which server they are on: text alone, no request.

    s3://BUCKET/KEY[?endpoint=URL&region=NAME&encryption=sse-kms:KEY]

What an address does not say is the environment's. An endpoint is a URL, or `aws`: Amazon's own S3, whose address boto3
finds by itself.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from urllib.parse import parse_qs, urlencode, urlsplit

from conf_profile.errors import RegistryError

SCHEME = "s3://"
REGION = "us-east-1"
"""Where neither configuration, environment nor profile names one."""
AWS = "aws"
ENDPOINT_VARIABLE = "CONF_PROFILE_S3_ENDPOINT"
"""Environment variable with an endpoint where AWS's own variables name none: they cannot say `aws`."""
_QUERY = ("endpoint", "region", "encryption")


@dataclass(frozen=True)
class ObjectAddress:
    """An object, or a folder of them; what is empty of the rest is the environment's.

    `encryption` is what an upload asks for, see `encryption`.
    """

    bucket: str
    key: str
    endpoint: str = ""
    region: str = ""
    encryption: str = ""

    def __str__(self) -> str:
        query = urlencode({name: value for name in _QUERY if (value := getattr(self, name))})
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
    return ObjectAddress(parts.netloc, parts.path.strip("/"), *(query.get(name, "") for name in _QUERY))


def environment_endpoint() -> str:
    """The endpoint that the environment names, a URL or `aws`; empty where it names none.

    Keys that lie about name no endpoint: whoever has some for Amazon has not asked for anything there.
    """
    variables = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", ENDPOINT_VARIABLE)
    return next((found for name in variables if (found := os.environ.get(name))), "")


def find_endpoint(given: str | None) -> str:
    """The given endpoint, else the environment's; RegistryError where there is none."""
    found = given or environment_endpoint()
    if not found:
        raise RegistryError(
            "no S3 endpoint: set storage.endpoint or AWS_ENDPOINT_URL (on a cluster: by the secret that "
            f"pipelines.s3Secret names), or start a local server; for Amazon's own S3 set storage.endpoint to {AWS}"
        )
    return found


def find_region(given: str | None) -> str:
    """The given region, else the environment's; empty where there is none, and boto3 asks the profile."""
    # boto3 itself reads the first alone; the second is what roles of a cluster's accounts set beside it.
    return given or os.environ.get("AWS_DEFAULT_REGION") or os.environ.get("AWS_REGION") or ""
