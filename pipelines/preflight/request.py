"""What the checks are asked about: the run as it is declared, before anything of it has started."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from conf_profile.config import StorageConfig
from conf_profile.errors import RegistryError
from conf_profile.storage import object_address
from conf_profile.storage.object_address import ObjectAddress
from pipelines.resources import Resources, S3Secret

_LOCAL_HOSTS = ("localhost", "::1", "0.0.0.0")


@dataclass(frozen=True)
class PreflightRequest:
    """The run as declared.

    `namespace` is the runs' (empty: that of this pod, else unknown); `service_account` empty: KFP's own. `addresses`
    and `labels_addresses` are table -> `s3://BUCKET/KEY[?endpoint=URL&region=NAME]`; an empty address is a table that
    the data set does not have. `labels_secret` without a name: the labels are read with the steps' own keys.
    `makes_bucket`: the caller makes a missing `storage.bucket` afterwards. `has_steps_keys`: this process has been
    given the steps' keys, as the chart's upload job is. `starts_run`: a run is started after the checks.
    `allows_unjudged`: its model may be promoted without labels.
    """

    image: str
    namespace: str | None
    service_account: str | None
    resources: Resources
    steps: tuple[str, ...]
    addresses: Mapping[str, str]
    labels_addresses: Mapping[str, str]
    storage: StorageConfig
    labels_secret: S3Secret = field(default_factory=S3Secret)
    kfp_endpoint: str = ""
    makes_bucket: bool = False
    has_steps_keys: bool = False
    starts_run: bool = True
    allows_unjudged: bool = False


def parse_address(uri: str) -> ObjectAddress | None:
    """The parts of an object's address; None for anything else."""
    try:
        found = object_address.parse(uri)
    except RegistryError:
        return None
    return found if found.key else None


def is_local(url: str) -> bool:
    """Whether an address leads to the machine that uses it."""
    host = urlsplit(url).hostname or ""
    return host in _LOCAL_HOSTS or host.startswith("127.")
