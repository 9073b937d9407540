"""Whether the steps can read their data: buckets, objects, and that the labels' Secret guards the labels.

Everything is asked with the keys that the steps will have, where the cluster tells them. Nothing is written: whether
the registry can be written is seen by the promotion alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache

from conf_profile.storage.object_address import ObjectAddress, environment_endpoint, find_region
from pipelines.preflight.cluster import ClusterState, is_in_pod
from pipelines.preflight.declared import LABELS_SECRET, STEPS_SECRET
from pipelines.preflight.finding import Finding
from pipelines.preflight.request import PreflightRequest, parse_address
from pipelines.preflight.stores import refusals
from pipelines.preflight.stores.keys import StoreKeys, find_keys, shared_keys
from pipelines.preflight.stores.probe import Place, StoreProbe

_REFUSED_CODES = ("AccessDenied", "403")


@dataclass
class Tables:
    """Tables of one bucket that are read with the same keys: table -> object's key."""

    place: Place
    keys: StoreKeys
    objects: dict[str, str] = field(default_factory=dict)


Probe = Callable[[Place, StoreKeys], StoreProbe]
"""One probe for each bucket and keys: to make a client costs more than a request."""


def store_findings(request: PreflightRequest, state: ClusterState) -> list[Finding]:
    """Every table's address and the registry's bucket, one request each."""
    steps_keys, labels_keys = _keys(request, state)
    data = _tables(request, request.addresses, steps_keys)
    labels = _tables(request, request.labels_addresses, labels_keys)
    probe = cache(StoreProbe)
    return [
        *_check_addresses({**request.addresses, **request.labels_addresses}),
        *_own_keys_notes(steps_keys, labels_keys),
        *_registry_findings(request, steps_keys, {tables.place for tables in data}, probe),
        *(found for tables in _select_askable(request, data, labels) for found in _table_findings(tables, probe)),
        *_guard_findings(request, labels, steps_keys, probe),
    ]


def _keys(request: PreflightRequest, state: ClusterState) -> tuple[StoreKeys, StoreKeys]:
    """Those that the steps read with, and those for the labels, which are the same without a Secret of their own."""
    found = find_keys(request.resources.pipelines.s3_secret, STEPS_SECRET, state)
    steps_keys = found if found.are_steps or not request.has_steps_keys else shared_keys(STEPS_SECRET)
    if not request.labels_secret.name:
        return steps_keys, steps_keys
    return steps_keys, find_keys(request.labels_secret, LABELS_SECRET, state)


def _select_askable(request: PreflightRequest, data: list[Tables], labels: list[Tables]) -> list[Tables]:
    """Without the labels' own keys, those of the steps must be refused there, and show nothing."""
    return [*data, *(tables for tables in labels if tables.keys.are_steps or not request.has_steps_keys)]


def _tables(request: PreflightRequest, addresses: Mapping[str, str], keys: StoreKeys) -> list[Tables]:
    found: dict[Place, Tables] = {}
    for table, uri in addresses.items():
        address = parse_address(uri)
        if address is not None:
            region = find_region(address.region or request.resources.s3.region)
            place = Place(_data_endpoint(address, request, keys), region, address.bucket)
            found.setdefault(place, Tables(place, keys)).objects[table] = address.key
    return list(found.values())


def _data_endpoint(address: ObjectAddress, request: PreflightRequest, keys: StoreKeys) -> str:
    """Where the steps find an object, but as seen from here: the caller may reach the same store by another name."""
    values = request.resources.s3.endpoint
    return address.endpoint or environment_endpoint() or keys.endpoint or values or request.storage.endpoint or ""


def _check_addresses(addresses: Mapping[str, str]) -> Iterator[Finding]:
    for table, uri in addresses.items():
        if uri and parse_address(uri) is None:
            yield Finding(
                "error",
                f"{table}: {uri!r} is no address that a pod can read",
                "give s3://BUCKET/KEY, with ?endpoint=URL&region=NAME where they differ from the steps' own",
            )


def _own_keys_notes(*keys: StoreKeys) -> Iterator[Finding]:
    for each in dict.fromkeys(keys):
        if not each.are_steps:
            yield Finding(
                "note",
                f"{each.setting}: the store was not asked with these keys, since {each.why_own}",
                "make sure that they may read what this command found",
            )


def _registry_findings(
    request: PreflightRequest, keys: StoreKeys, known: set[Place], probe: Probe
) -> Iterator[Finding]:
    storage = request.storage
    endpoint = storage.endpoint or environment_endpoint() or keys.endpoint or request.resources.s3.endpoint
    place = Place(endpoint, find_region(storage.region or request.resources.s3.region), storage.bucket)
    if not endpoint or place in known:
        return
    outcome = probe(place, keys).list()
    if outcome.code == "NoSuchBucket" and not request.starts_run:
        yield Finding("warning", f"the registry's {place} does not exist yet", "make it before a run is started")
    elif not (request.makes_bucket and outcome.code == "NoSuchBucket"):
        yield from refusals.explain(outcome, f"the registry's {place}", place, keys, _is_steps_view(place))


def _table_findings(tables: Tables, probe: Probe) -> Iterator[Finding]:
    place, keys = tables.place, tables.keys
    names = ", ".join(tables.objects)
    if not place.endpoint:
        yield Finding(
            "warning",
            f"{names}: not looked for, since no endpoint is known here",
            "set AWS_ENDPOINT_URL to where this machine reaches the store",
        )
        return
    bucket = probe(place, keys).list()
    # Keys may read an object and not list its bucket: then the reading tells.
    if bucket.code not in _REFUSED_CODES:
        yield from refusals.explain(bucket, f"{names}: {place}", place, keys, _is_steps_view(place))
        if bucket.code:
            return
    for table, key in tables.objects.items():
        subject = f"{table}: s3://{place.bucket}/{key}"
        yield from refusals.explain(probe(place, keys).read(key), subject, place, keys, _is_steps_view(place))


def _is_steps_view(place: Place) -> bool:
    """Whether a store that is silent here must be taken for one that the run cannot do without.

    An endpoint from the values or an address may be one that pods alone reach.
    """
    return is_in_pod() or place.endpoint == environment_endpoint()


def _guard_findings(
    request: PreflightRequest, labels: list[Tables], steps_keys: StoreKeys, probe: Probe
) -> Iterator[Finding]:
    """A warning where the labels' Secret guards nothing, since the steps' ordinary keys read the labels as well."""
    own, ordinary = request.labels_secret.name, request.resources.pipelines.s3_secret.name
    if not own:
        return
    if own == ordinary:
        yield _unguarded_finding(f"{LABELS_SECRET} and {STEPS_SECRET} name the same Secret, {own!r}", own)
    elif steps_keys.are_steps:
        read = [table for tables in labels for table in _list_readable(tables, probe, steps_keys)]
        if read:
            yield _unguarded_finding(
                f"{', '.join(read)}: {steps_keys.owner} may read what {LABELS_SECRET} is to guard", ordinary
            )


def _list_readable(tables: Tables, probe: Probe, keys: StoreKeys) -> list[str]:
    if not tables.place.endpoint:
        return []
    return [table for table, key in tables.objects.items() if not probe(tables.place, keys).read(key).code]


def _unguarded_finding(what: str, ordinary: str) -> Finding:
    return Finding(
        "warning",
        f"{what}, so that every step may read the labels",
        f"take the right to read below the labels' prefix from the keys of Secret {ordinary!r}",
    )
