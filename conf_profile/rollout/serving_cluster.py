"""One InferenceService in a cluster: read it, patch it, see its pods, and be the only one who rolls it out.

The cluster is the one of KUBECONFIG, or the one that this pod runs in. The lock is a Lease beside the InferenceService
(an annotation on it would start new pods): whoever was killed loses it after a minute, and what had been served before
stands in it, so that the next rollout still knows.

An API server that is away is asked again where the environment gives a budget (`transient`). A write of the lease whose
answer was lost is known by its time; the InferenceService is changed only while the lease is not another rollout's.
"""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

from conf_profile.errors import RolloutConflictError, RolloutError, RolloutLostError
from conf_profile.rollout import state as rollout_state
from conf_profile.transient import Outage, retry_seconds

KIND = ("serving.kserve.io", "v1beta1")
PLURAL = "inferenceservices"
LEASE_SECONDS = 60
RENEW_SECONDS = 15
REQUEST_SECONDS = 30
FIELD_MANAGER = "conf-profile-rollout"
"""Who owns what a rollout changes; rules of Argo CD may name it."""
BEFORE_ANNOTATION = "conf-profile/before"
"""Annotation of the Lease: what an unfinished rollout found."""
VERSION_ANNOTATION = "conf-profile/version"
"""The version that it was putting into service."""
_TIME = "%Y-%m-%dT%H:%M:%S.%fZ"
_ADVICE = {
    401: "log in again: the credentials have expired or are wrong",
    403: "ask for the rights of the chart's role NAME-rollout",
}
_STATUS_NOT_IMPLEMENTED = 501

T = TypeVar("T")


@contextmanager
def explain_errors(action: str) -> Iterator[None]:
    """Turns what the client raises in the block into a RolloutError that says what to do."""
    from kubernetes.client import ApiException
    from kubernetes.config import ConfigException
    from urllib3.exceptions import HTTPError

    try:
        yield
    except ApiException as error:
        kind = RolloutConflictError if error.status == 409 else RolloutError
        advice = f"; {_ADVICE[error.status]}" if error.status in _ADVICE else ""
        raise kind(f"cannot {action}: {_message(error)}{advice}") from error
    except HTTPError as error:
        raise RolloutError(f"cannot {action}: the API server does not answer ({type(error).__name__})") from error
    except ConfigException as error:
        raise RolloutError(f"cannot {action}: no cluster: set KUBECONFIG, or run in a pod ({error})") from error


def transient_cause(error: BaseException) -> str:
    """Class or status of what `explain_errors` tells of an API server that is away; empty for its other answers."""
    from kubernetes.client import ApiException
    from urllib3.exceptions import HTTPError, MaxRetryError, SSLError

    cause = error.__cause__
    if isinstance(cause, ApiException):
        status = int(cause.status or 0)
        return f"status {status}" if status == 429 or (status >= 500 and status != _STATUS_NOT_IMPLEMENTED) else ""
    if isinstance(cause, MaxRetryError):
        cause = cause.reason
    return type(cause).__name__ if isinstance(cause, HTTPError) and not isinstance(cause, SSLError) else ""


class ServingCluster:
    """The InferenceService of this name. Every method raises RolloutError with the cause and the remedy."""

    def __init__(self, namespace: str, name: str) -> None:
        from kubernetes import client, config

        # The client itself reads the variable when it is imported, and not again.
        given = os.environ.get("KUBECONFIG")
        with explain_errors("find the cluster"):
            config.load_config(**({"config_file": given} if given else {}))
        self.namespace, self.name = namespace, name
        self._client = client.ApiClient()
        self._services = client.CustomObjectsApi(self._client)
        self._apps = client.AppsV1Api(self._client)
        self._core = client.CoreV1Api(self._client)
        self.leases = client.CoordinationV1Api(self._client)
        self._lock: RolloutLock | None = None
        self._outage = Outage(f"the API server for {self}", retry_seconds())

    def __str__(self) -> str:
        return f"InferenceService {self.namespace}/{self.name}"

    def request(self, action: str, once: Callable[[], T]) -> T:
        """What `once` asks of the API server, for what may be repeated: explained, and tried again."""

        def call_explained() -> T:
            with explain_errors(action):
                return once()

        return self._outage.call(action, call_explained, transient_cause)

    def read(self) -> dict[str, Any]:
        """The InferenceService as it is."""
        return self.request(f"read {self}", self._read)

    def _read(self) -> dict[str, Any]:
        found = self._services.get_namespaced_custom_object(
            *KIND, self.namespace, PLURAL, self.name, _request_timeout=REQUEST_SECONDS
        )
        return dict(found)

    def owner(self) -> dict[str, Any]:
        """The InferenceService as an owner: what is its is deleted with it."""
        found = self.read()
        kept = {key: found[key] for key in ("apiVersion", "kind")}
        return kept | {key: found["metadata"][key] for key in ("name", "uid")}

    def pin(self, uri: str) -> None:
        """Makes predictor and transformer use the model of this URI."""
        tries = 0

        def patch_once() -> None:
            nonlocal tries
            tries += 1
            if tries > 1 and self._lock:
                self._lock.refuse_if_lost()
            # Read anew: a try whose answer was lost may have changed it.
            self._patch(rollout_state.make_pin_patch(self._read(), uri))

        self.request(f"change {self}", patch_once)

    def _patch(self, patch: list[dict[str, Any]]) -> None:
        group, version = KIND
        # CustomObjectsApi would call the list a merge patch.
        self._client.call_api(
            f"/apis/{group}/{version}/namespaces/{self.namespace}/{PLURAL}/{self.name}",
            "PATCH",
            query_params=[("fieldManager", FIELD_MANAGER)],
            header_params={"Content-Type": "application/json-patch+json", "Accept": "application/json"},
            body=patch,
            auth_settings=["BearerToken"],
            response_type="object",
            _request_timeout=REQUEST_SECONDS,
        )

    def progress(self, uri: str) -> rollout_state.Progress:
        """How far its pods are with the model of this URI."""
        selector = f"serving.kserve.io/inferenceservice={self.name}"
        service = self.read()
        if overwritten := rollout_state.describe_overwrite(service, uri):
            return rollout_state.Progress(failed=overwritten, waiting=overwritten)
        names = [f"{self.name}-{component}" for component in rollout_state.components(service)]

        def read_once() -> tuple[list[Any], Any]:
            deployments = [
                self._apps.read_namespaced_deployment(name, self.namespace, _request_timeout=REQUEST_SECONDS)
                for name in names
            ]
            return deployments, self._core.list_namespaced_pod(
                self.namespace, label_selector=selector, _request_timeout=REQUEST_SECONDS
            )

        deployments, pods = self.request(f"see the pods of {self}", read_once)
        as_json = self._client.sanitize_for_serialization
        return rollout_state.progress(uri, as_json(deployments), as_json(pods.items))

    @contextmanager
    def rollout(self, version: str) -> Iterator[RolloutLock]:
        """The one rollout at this time; RolloutConflictError names the other one."""
        self._lock = lock = RolloutLock(self, version)
        lock.take()
        try:
            yield lock
        except BaseException:
            # Why it failed is what must be read; a lease that stays ends by itself.
            with suppress(RolloutError):
                lock.release()
            raise
        lock.release()


@dataclass(frozen=True)
class UnfinishedRollout:
    """What a rollout that was killed had begun: the version that it was putting into service, and what it found."""

    version: str
    before: str


class RolloutLock:
    """The Lease NAME-rollout, held by this process while it renews it."""

    def __init__(self, cluster: ServingCluster, version: str) -> None:
        self._cluster, self._version = cluster, version
        self._name = f"{cluster.name}-rollout"
        self._holder = f"{socket.gethostname()}-{os.getpid()}"
        self._renewed = 0.0
        self._lease: dict[str, Any] = {}
        self.unfinished: UnfinishedRollout | None = None

    def take(self) -> None:
        """Becomes the holder; RolloutConflictError while somebody else is."""
        found = self._read()
        if found is None:
            body = self._body({})
            body["metadata"]["ownerReferences"] = [self._cluster.owner()]
            return self._write(body, create=True)
        self._refuse_if_held(found)
        notes = found["metadata"].get("annotations") or {}
        if BEFORE_ANNOTATION in notes and VERSION_ANNOTATION in notes:
            self.unfinished = UnfinishedRollout(notes[VERSION_ANNOTATION], notes[BEFORE_ANNOTATION])
        self._write({**self._body(notes), "metadata": found["metadata"]})

    def note(self, before: str) -> None:
        """Writes down what was served, for whoever comes after a kill."""
        self._lease["metadata"]["annotations"] = {VERSION_ANNOTATION: self._version, BEFORE_ANNOTATION: before}
        self._write(self._lease)

    def renew(self) -> None:
        """Stays the holder; to be called every few seconds."""
        if time.monotonic() - self._renewed > RENEW_SECONDS:
            self.hold()

    def hold(self) -> None:
        """Stays the holder from this moment; RolloutLostError, or RolloutConflictError, where another one is."""
        lease = self._read_held()
        lease["spec"]["renewTime"] = _now()
        self._write(lease)

    def release(self) -> None:
        """Lets others begin; RolloutLostError where one already has."""
        lease = self._read_held()
        lease["metadata"]["annotations"] = {}
        lease["spec"]["holderIdentity"] = ""
        self._write(lease)

    def _read_held(self) -> dict[str, Any]:
        """The lease as it is now: an earlier write may have arrived although its answer did not."""
        found = self._read()
        if found is None:
            raise RolloutError(f"{self._cluster}: the lease {self._name} is gone; was it uninstalled?")
        self._refuse_if_lost(found)
        return found

    def refuse_if_lost(self) -> None:
        """RolloutLostError where the lease is another rollout's by now; one request, not repeated."""
        found = self._read_once()
        if found is not None:
            self._refuse_if_lost(found)

    def _refuse_if_lost(self, lease: Mapping[str, Any]) -> None:
        if lease["spec"].get("holderIdentity") != self._holder:
            raise RolloutLostError(
                f"{self._cluster}: this rollout was silent for over {LEASE_SECONDS} s, and another one took its place"
            )

    def _refuse_if_held(self, lease: Mapping[str, Any]) -> None:
        spec = lease.get("spec") or {}
        holder, renewed = spec.get("holderIdentity"), spec.get("renewTime")
        if not holder or not renewed:
            return
        ends = datetime.fromisoformat(renewed) + timedelta(seconds=spec.get("leaseDurationSeconds") or LEASE_SECONDS)
        if ends > datetime.now(UTC):
            version = (lease["metadata"].get("annotations") or {}).get(VERSION_ANNOTATION, "a version")
            raise RolloutConflictError(
                f"{self._cluster}: {holder} is rolling out {version} since {spec.get('acquireTime')}; wait for its end "
                f"(a rollout that was killed is forgotten after {LEASE_SECONDS} s)"
            )

    def _body(self, notes: Mapping[str, str]) -> dict[str, Any]:
        now = _now()
        return {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {"name": self._name, "annotations": dict(notes)},
            "spec": {
                "holderIdentity": self._holder,
                "leaseDurationSeconds": LEASE_SECONDS,
                "acquireTime": now,
                "renewTime": now,
            },
        }

    def _read(self) -> dict[str, Any] | None:
        return self._cluster.request(f"read the lease {self._name}", self._read_once)

    def _read_once(self) -> dict[str, Any] | None:
        from kubernetes.client import ApiException

        try:
            found = self._cluster.leases.read_namespaced_lease(
                self._name, self._cluster.namespace, _preload_content=False, _request_timeout=REQUEST_SECONDS
            )
        except ApiException as error:
            if error.status == 404:
                return None
            raise
        return dict(json.loads(found.data))

    def _write(self, body: Mapping[str, Any], create: bool = False) -> None:
        leases, where = self._cluster.leases, self._cluster.namespace
        options = {"_preload_content": False, "_request_timeout": REQUEST_SECONDS}

        def write_once() -> dict[str, Any]:
            written = (
                leases.create_namespaced_lease(where, body, **options)
                if create
                else leases.replace_namespaced_lease(self._name, where, body, **options)
            )
            return dict(json.loads(written.data))

        try:
            self._lease = self._cluster.request(f"hold the lease {self._name}", write_once)
        except RolloutConflictError as error:
            self._lease = self._find_own_write(body, error)
        self._renewed = time.monotonic()

    def _find_own_write(self, body: Mapping[str, Any], error: RolloutConflictError) -> dict[str, Any]:
        """The lease that a write left whose answer was lost; RolloutConflictError where it is somebody else's."""
        found = self._read()
        if found is None or _state_of(found) != _state_of(body):
            raise RolloutConflictError(f"{self._cluster}: another rollout began at the same moment") from error
        return found


def _state_of(lease: Mapping[str, Any]) -> tuple[Any, ...]:
    """What tells one write of a lease from another: its times have microseconds."""
    spec = lease["spec"]
    return *map(spec.get, ("holderIdentity", "acquireTime", "renewTime")), lease["metadata"].get("annotations") or {}


def _now() -> str:
    return datetime.now(UTC).strftime(_TIME)


def _message(error: Any) -> str:
    """The API server's own words."""
    try:
        return str(json.loads(error.body)["message"])
    except (TypeError, ValueError, LookupError):
        return f"{error.status} {error.reason}"
