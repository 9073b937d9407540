"""What the checks are asked about: the run as it is declared, before anything of it has started."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import parse_qs, urlsplit

from conf_profile.config import StorageConfig
from pipelines.resources import Resources, S3Secret, StepName

_LOCAL_HOSTS = ("localhost", "::1", "0.0.0.0")


@dataclass(frozen=True)
class PreflightRequest:
    """The run as declared.

    `namespace` is the runs' (empty: that of this pod, else unknown); `service_account` empty: KFP's own. `addresses`
    and `labels_addresses` are table -> `s3://BUCKET/KEY[?endpoint=URL&region=NAME]`; an empty address is a table that
    the data set does not have. `labels_secret` without a name: the labels are read with the steps' own keys.
    `makes_bucket`: the caller makes a missing `storage.bucket` afterwards.
    """

    image: str
    namespace: str | None
    service_account: str | None
    resources: Resources
    steps: tuple[StepName, ...]
    addresses: Mapping[str, str]
    labels_addresses: Mapping[str, str]
    storage: StorageConfig
    labels_secret: S3Secret = field(default_factory=S3Secret)
    kfp_endpoint: str = ""
    makes_bucket: bool = False


@dataclass(frozen=True)
class Address:
    """An object's address; `endpoint` and `region` are empty where the address names none."""

    bucket: str
    key: str
    endpoint: str = ""
    region: str = ""


def parse_address(uri: str) -> Address | None:
    """The parts of an S3 address; None for anything else."""
    parts = urlsplit(uri)
    if parts.scheme != "s3" or not parts.netloc or not parts.path.strip("/"):
        return None
    query = {name: values[-1] for name, values in parse_qs(parts.query).items()}
    return Address(parts.netloc, parts.path.strip("/"), query.get("endpoint", ""), query.get("region", ""))


def is_local(url: str) -> bool:
    """Whether an address leads to the machine that uses it."""
    host = urlsplit(url).hostname or ""
    return host in _LOCAL_HOSTS or host.startswith("127.")
