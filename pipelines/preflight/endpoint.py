"""Endpoints that mean one thing on this machine and another in a pod."""

from __future__ import annotations

import os
from collections.abc import Iterator

from pipelines.preflight.cluster import is_in_pod
from pipelines.preflight.finding import Finding, Level
from pipelines.preflight.request import PreflightRequest, is_local, parse_address

_CERTIFICATES = "AWS_CA_BUNDLE"


def endpoint_findings(request: PreflightRequest) -> list[Finding]:
    """The object store's endpoint, as far as the declaration itself can be wrong."""
    return [*_check_local_addresses(request), *_check_missing_endpoint(request), *_check_certificates(request)]


def _check_local_addresses(request: PreflightRequest) -> Iterator[Finding]:
    settings: dict[str, list[str]] = {}
    for setting, endpoint in _steps_endpoints(request):
        if is_local(endpoint):
            settings.setdefault(endpoint, []).append(setting)
    for endpoint, names in settings.items():
        yield Finding(
            _certainty(request.kfp_endpoint),
            f"{', '.join(names)}: {endpoint} is this machine, but the steps run in pods, where it is the pod itself",
            "leave storage.endpoint empty, set AWS_ENDPOINT_URL here, and s3.endpoint in the values to the address by "
            "which pods reach the store",
        )


def _steps_endpoints(request: PreflightRequest) -> Iterator[tuple[str, str]]:
    """Setting and endpoint of everything that the steps take an endpoint from."""
    yield "storage.endpoint", request.storage.endpoint or ""
    if not request.resources.pipelines.s3_secret.endpoint_key:
        yield "s3.endpoint", request.resources.s3.endpoint
    for table, uri in {**request.addresses, **request.labels_addresses}.items():
        address = parse_address(uri)
        yield f"the address of {table}", address.endpoint if address else ""


def _certainty(kfp_endpoint: str) -> Level:
    """A KFP on this machine may be a port-forward, or a cluster whose pods share the machine's network."""
    return "error" if is_in_pod() or (kfp_endpoint and not is_local(kfp_endpoint)) else "warning"


def _check_missing_endpoint(request: PreflightRequest) -> Iterator[Finding]:
    s3, secret = request.resources.s3, request.resources.pipelines.s3_secret
    if not (request.storage.endpoint or s3.endpoint or secret.endpoint_key):
        yield Finding(
            "warning",
            "nothing tells the steps the endpoint of the object store, so that they look for it at Amazon",
            "set s3.endpoint in the values (--values), or storage.endpoint to aws where that is meant",
        )


def _check_certificates(request: PreflightRequest) -> Iterator[Finding]:
    bundle, s3 = os.environ.get(_CERTIFICATES), request.resources.s3
    endpoint = request.storage.endpoint or s3.endpoint
    if bundle and endpoint.startswith("https://") and not s3.ca_config_map:
        yield Finding(
            "note",
            f"this machine trusts {endpoint} by {_CERTIFICATES}={bundle}, which the steps do not have",
            "put the certificates into a ConfigMap and name it in s3.caConfigMap, unless a public authority signed the "
            "store's certificate",
        )
