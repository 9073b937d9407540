"""Where a cluster's runs leave users' rows, as options say it: the steps' bucket, and KFP's artefacts."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from conf_profile.cli.models import Storage, is_remote, local_folder, storage_config
from conf_profile.errors import ConfigError

if TYPE_CHECKING:
    from conf_profile.erasure.store import Place
    from conf_profile.storage.object_store import ObjectStore

ACCESS_KEY = "CONF_PROFILE_ARTEFACTS_ACCESS_KEY_ID"
SECRET_KEY = "CONF_PROFILE_ARTEFACTS_SECRET_ACCESS_KEY"
"""Environment variables with the keys of the artefacts' store, where they are not those of the steps'."""


def artefacts_option(command: Callable[..., None]) -> Callable[..., None]:
    """Adds --artefacts; the command receives the addresses as a tuple."""

    @click.option(
        "--artefacts",
        multiple=True,
        metavar="s3://BUCKET/PREFIX[?endpoint=URL&region=NAME]",
        help="Where KFP keeps the runs' artefacts; without an endpoint in the store of the bucket. Keys of its own: "
        f"{ACCESS_KEY} and {SECRET_KEY} in the environment. May be repeated.",
    )
    @functools.wraps(command)
    def with_artefacts(**given: Any) -> None:
        command(**given)

    return with_artefacts


@contextmanager
def open_bucket(storage: Storage) -> Iterator[ObjectStore]:
    """The steps' bucket at the endpoint, or the run's own on a local server for as long as the block runs."""
    from conf_profile.storage.local_s3 import local_s3
    from conf_profile.storage.object_store import ObjectStore, connect, s3_client

    config = storage_config(storage)
    if is_remote(storage):
        store = connect(config.bucket, config.endpoint, config.region)
        store.ensure_bucket(create=False)
        yield store
        return
    with local_s3(local_folder(storage.run)) as access:
        client = s3_client(access.endpoint, access.region, access.access_key, access.secret_key)
        yield ObjectStore(client, config.bucket)


def open_artefacts(addresses: Sequence[str], beside: ObjectStore) -> list[Place]:
    """The places of artefacts. RegistryError for what is no address, ConfigError for one that would include models."""
    from conf_profile.erasure import retention

    keys = os.environ.get(ACCESS_KEY), os.environ.get(SECRET_KEY)
    places = [_place(address, beside, keys) for address in addresses]
    for place in places:
        if place.store.bucket == beside.bucket and place.prefix in retention.EXPIRING_PREFIXES:
            raise ConfigError(f"--artefacts {place.uri}: holds no artefacts; it is looked after without being named")
        retention.folder(place.prefix)
    return places


def open_own_tables(addresses: Sequence[str], beside: ObjectStore) -> list[Place]:
    """The places of the user's own tables. RegistryError for what is no address."""
    return [_place(address, beside, (None, None)) for address in addresses]


def _place(address: str, beside: ObjectStore, keys: tuple[str | None, str | None]) -> Place:
    from conf_profile.erasure.store import Place
    from conf_profile.storage import object_address
    from conf_profile.storage.object_store import ObjectStore, s3_client

    found, client = object_address.parse(address), beside.client
    if found.endpoint or found.region or any(keys):
        client = s3_client(found.endpoint or beside.endpoint, found.region or str(client.meta.region_name), *keys)
    place = Place(ObjectStore(client, found.bucket), f"{found.key}/".lstrip("/"))
    place.store.ensure_bucket(create=False)
    return place
