"""Puts a version of the registry into service on a cluster, and takes it back if it does not do what was measured.

The InferenceService is pinned to the version; once the new pods are ready and the old ones gone, smoke profiles are
sent through the transformer and compared with the evaluation's answers. On any failure the champion pointer (if it
names this version) and the InferenceService are put back. That no request is lost meanwhile is the chart's doing: new
pods are ready before old ones go.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from conf_profile.errors import (
    ConfProfileError,
    RegistryError,
    RolloutConflictError,
    RolloutError,
    RolloutLostError,
)
from conf_profile.registry.format import ModelURI, Version, parse_uri
from conf_profile.rollout import smoke
from conf_profile.rollout import state as rollout_state
from conf_profile.rollout.smoke import SmokeProfile

if TYPE_CHECKING:
    from conf_profile.registry.registry import Registry
    from conf_profile.rollout.serving_cluster import RolloutLock, ServingCluster

POLL_SECONDS = 2.0
SMOKE_SECONDS = 60.0
"""How long answers may be another version's, or missing, after all pods are ready."""
REQUEST_SECONDS = 30.0
TRANSIENT_STATUSES = frozenset({502, 503, 504})

ReportLine = Callable[[str], None]
"""Is told, in one line, what is being done."""


@dataclass(frozen=True)
class Serving:
    """What serves the model: an InferenceService, and how it is reached.

    `url` empty: the transformer's own address in the cluster. `model` is the name in the API; `users` are asked for
    besides the smoke profiles; `ready_seconds` is for the new pods.
    """

    name: str
    namespace: str = "default"
    url: str = ""
    model: str = "conf-profile"
    users: Sequence[str] = ()
    ready_seconds: float = 1500.0

    @property
    def address(self) -> str:
        return self.url or f"http://{self.name}-transformer.{self.namespace}"


def roll_out(
    models: Registry, serving: Serving, wanted: str | None, tell: ReportLine, move_pointer: bool = False
) -> Version:
    """Puts a version (None: the champion) into service and gives it back.

    `move_pointer` makes it the champion first, which is a rollback. RolloutError says why it is not in service, and
    what is served now.
    """
    from conf_profile.rollout.serving_cluster import ServingCluster

    cluster = ServingCluster(serving.namespace, serving.name)
    version = models.complete(wanted)
    profiles = smoke_profiles(models, version)
    _require_served_model(models, cluster)
    with cluster.rollout(version.name) as lock:
        before = _choose_fallback_uri(models, cluster, lock)
        lock.note(before)
        return _Rollout(models, cluster, lock, serving, version, profiles, before, tell).run(move_pointer)


def smoke_profiles(models: Registry, version: Version) -> Sequence[SmokeProfile]:
    """What the promotion kept with the version; a version without is asked for any well-formed answer."""
    if smoke.SMOKE not in version.files:
        return smoke.UNMEASURED_PROFILES
    found = smoke.parse(models.read(version, smoke.SMOKE), models.uri(version.name))
    return found or smoke.UNMEASURED_PROFILES


def check_answers(
    serving: Serving, version: str, profiles: Sequence[SmokeProfile], renew: Callable[[], None] = lambda: None
) -> None:
    """RolloutError unless this version answers, as it did at the evaluation. `renew` is called while it does not."""
    deadline = time.monotonic() + SMOKE_SECONDS
    while True:
        answer = _request_profiles(serving, smoke.request(profiles, serving.users))
        problem = answer if isinstance(answer, str) else _other_versions(answer, version)
        if not problem:
            break
        if time.monotonic() > deadline:
            raise RolloutError(f"{serving.address}: {problem}")
        renew()
        time.sleep(POLL_SECONDS)
    faults = smoke.faults(answer, profiles)
    if faults:
        raise RolloutError(f"{serving.address}: {'; '.join(faults)}")


def _require_served_model(models: Registry, cluster: ServingCluster) -> ModelURI:
    """What it serves; RolloutError unless that is a version of this model."""
    served = rollout_state.served_model(cluster.read())
    if (served.bucket, served.model) != (models.bucket, models.model):
        raise RolloutError(f"{cluster} serves {served}, not {models.uri()}; name its bucket and model")
    return served


def _choose_fallback_uri(models: Registry, cluster: ServingCluster, lock: RolloutLock) -> str:
    """The URI to return to."""
    served = _require_served_model(models, cluster)
    unfinished = lock.unfinished
    return unfinished.before if unfinished and served.version == unfinished.version else str(served)


@dataclass(frozen=True)
class _Rollout:
    """One rollout while the lock is held."""

    models: Registry
    cluster: ServingCluster
    lock: RolloutLock
    serving: Serving
    version: Version
    profiles: Sequence[SmokeProfile]
    before: str
    tell: ReportLine

    def run(self, move_pointer: bool) -> Version:
        try:
            if move_pointer:
                self.models.rollback(self.version.name)
            self._put_into_service()
        except ConfProfileError as error:
            raise RolloutError(f"{self.version.name} is not in service: {error}; {self._put_back()}") from error
        except BaseException:
            self._put_back()
            raise
        return self.version

    def _put_into_service(self) -> None:
        self._pin(self.models.uri(self.version.name))
        self.tell(f"asking for {len(self.profiles) + len(self.serving.users)} smoke profiles")
        check_answers(self.serving, self.version.name, self.profiles, self.lock.renew)

    def _put_back(self) -> str:
        """Pointer first: an InferenceService that names no version takes the champion's. Says what is served now.

        Nothing is touched where another rollout has taken over: what it put into service would be undone.
        """
        try:
            self.lock.hold()
        except (RolloutLostError, RolloutConflictError):
            return "nothing was put back, the other rollout decides what is served"
        except RolloutError:
            # The cluster is away, or has forgotten all of it; the pointer is not in it.
            pass
        pointer = self._restore_pointer(parse_uri(self.before))
        if self.before == self.models.uri(self.version.name):
            return f"it was in service before and stays there; {pointer}"
        try:
            self._pin(self.before)
        except RolloutError as error:
            return f"{pointer}; {self.cluster} could not be put back to {self.before}: {error}"
        return f"{pointer}; {self.cluster} serves {self.before} as before"

    def _pin(self, uri: str) -> None:
        """Until new pods are ready and old ones gone; RolloutError where that is hopeless or takes too long."""
        self.tell(f"{self.cluster}: {uri}")
        self.cluster.pin(uri)
        deadline, told = time.monotonic() + self.serving.ready_seconds, ""
        while (now := self.cluster.progress(uri)).waiting:
            if now.failed:
                raise RolloutError(now.failed)
            if time.monotonic() > deadline:
                raise RolloutError(f"after {self.serving.ready_seconds:.0f} s: {now.waiting}")
            if now.waiting != told:
                told = now.waiting
                self.tell(told)
            self.lock.renew()
            time.sleep(POLL_SECONDS)

    def _restore_pointer(self, before: ModelURI) -> str:
        try:
            champion = self.models.require_champion()
            target = before.version or champion.previous
            if champion.version != self.version.name:
                return f"the champion is {champion.version}"
            if target in (None, champion.version):
                return f"the champion stays {champion.version}: there is none to return to"
            return f"the champion is {self.models.rollback(target).version} again"
        except RegistryError as error:
            return f"the champion pointer could not be put back: {error}"


def _other_versions(answer: dict[str, Any], version: str) -> str:
    others = sorted(smoke.versions(answer) - {version})
    return f"{', '.join(others)} answers, not {version}" if others else ""


def _request_profiles(serving: Serving, body: dict[str, Any]) -> Any:
    """The answer, or in a text why there is none yet. RolloutError for what waiting does not help."""
    import httpx

    url = f"{serving.address.rstrip('/')}/v1/models/{serving.model}:predict"
    try:
        answer = httpx.post(url, json=body, timeout=REQUEST_SECONDS)
    except httpx.TransportError as error:
        return f"the transformer does not answer ({type(error).__name__}); is this its address from here (--url)?"
    if answer.status_code in TRANSIENT_STATUSES:
        return f"status {answer.status_code}: {answer.text[:200]}"
    if answer.status_code != 200:
        raise RolloutError(f"{url}: status {answer.status_code}: {answer.text[:200]}")
    try:
        found = answer.json()
        smoke.versions(found)
    except (ValueError, LookupError, TypeError) as error:
        raise RolloutError(f"{url}: does not answer as a transformer of ours does ({error!r})") from error
    return found
