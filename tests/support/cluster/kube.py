"""kubectl and helm as the cluster tests call them: against one cluster, in namespaces that end with the test.

Everything goes through the two programs, so that the tests see what a user sees. Nothing here waits without a deadline.
"""

from __future__ import annotations

import json
import os
import secrets
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import tenacity
import yaml

from charts.chart import CHART
from conf_profile.config_layers import merge

RESTRICTED = {
    f"pod-security.kubernetes.io/{mode}": "restricted" for mode in ("enforce", "warn", "audit")
}  # fmt: skip
CONTAINERS = "clusterstoragecontainers.serving.kserve.io"
CLUSTER_ROLES = ("clusterroles", "clusterrolebindings")
_COMMAND_SECONDS = 900
_LOG_LINES = 60
Found = TypeVar("Found")


class CommandError(Exception):
    """A command that failed; its text is what a user would have seen."""


@dataclass
class Cluster:
    """The cluster that KUBECONFIG names. `open` are the namespaces in use, `closed` those that were deleted."""

    kubeconfig: str
    open: list[Namespace] = field(default_factory=list)
    closed: set[str] = field(default_factory=set)

    def kubectl(self, *arguments: str, given: str = "", check: bool = True) -> str:
        """What `kubectl ARGUMENTS` prints, with `given` as its input; CommandError if it fails and `check` is set."""
        return self._run("kubectl", arguments, given, check)

    def helm(self, *arguments: str, given: str = "", check: bool = True) -> str:
        return self._run("helm", arguments, given, check)

    def serves(self, resource: str) -> bool:
        """Whether there is such a kind of object, e.g. `inferenceservices.serving.kserve.io`."""
        return resource in self.kubectl("api-resources", "--output=name", "--cached=false").split()

    def kinds(self) -> set[tuple[str, str]]:
        """(apiVersion, kind) of every kind of object that there is."""
        rows = self.kubectl("api-resources", "--no-headers", "--cached=false").splitlines()
        return {(version, kind) for version, _, kind in (row.split()[-3:] for row in rows)}

    def apply(self, *documents: Mapping[str, Any]) -> str:
        """Cluster-wide objects; those of a namespace go through `Namespace.apply`."""
        return self.kubectl("apply", "--filename=-", given=yaml.safe_dump_all(documents))

    def get(self, *arguments: str) -> Any:
        """The object, or the list of objects."""
        return _items(self.kubectl("get", *arguments, "--output=json"))

    @contextmanager
    def namespace(self) -> Iterator[Namespace]:
        """A namespace that enforces Pod Security `restricted`, deleted afterwards."""
        made = Namespace(self, f"conf-profile-test-{secrets.token_hex(4)}")
        self.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": made.name, "labels": RESTRICTED}})
        self.open.append(made)
        try:
            # The controllers make these; a pod cannot be created before.
            until(
                "the namespace's own objects",
                lambda: made.kubectl("get", "serviceaccount/default", "configmap/kube-root-ca.crt", check=False),
            )
            yield made
        finally:
            self.open.remove(made)
            self.closed.add(made.name)
            self.kubectl("delete", "namespace", made.name, "--wait=false")
            # What is not in a namespace does not go with one.
            kinds = [*CLUSTER_ROLES, *([CONTAINERS] if self.serves(CONTAINERS) else [])]
            names = self.kubectl("get", ",".join(kinds), "--output=name").split()
            if ours := [name for name in names if f"/{made.name}-" in name]:
                self.kubectl("delete", *ours)

    def ending(self) -> set[str]:
        """Namespaces of ours that are deleted and not yet gone."""
        return self.closed & {namespace["metadata"]["name"] for namespace in self.get("namespaces")}

    def _run(self, program: str, arguments: Sequence[str], given: str, check: bool) -> str:
        done = subprocess.run(
            [program, *arguments],
            input=given,
            capture_output=True,
            text=True,
            timeout=_COMMAND_SECONDS,
            env={**os.environ, "KUBECONFIG": self.kubeconfig},
        )
        if done.returncode == 0:
            return done.stdout
        if check:
            raise CommandError(f"{program} {' '.join(arguments)}\n{done.stdout}{done.stderr}")
        return ""


@dataclass(frozen=True)
class Namespace:
    """One namespace of the cluster."""

    cluster: Cluster
    name: str

    def kubectl(self, *arguments: str, given: str = "", check: bool = True) -> str:
        return self.cluster.kubectl(f"--namespace={self.name}", *arguments, given=given, check=check)

    def apply(self, *documents: Mapping[str, Any], options: Sequence[str] = ()) -> str:
        return self.kubectl("apply", "--filename=-", *options, given=yaml.safe_dump_all(documents))

    def get(self, *arguments: str) -> Any:
        return _items(self.kubectl("get", *arguments, "--output=json"))

    def pods(self, selector: str = "") -> list[dict[str, Any]]:
        """Pods that are not being deleted."""
        found = self.get("pods", f"--selector={selector}")
        return [pod for pod in found if "deletionTimestamp" not in pod["metadata"]]

    def wait(self, condition: str, *what: str, seconds: int = 120) -> None:
        """`kubectl wait --for=CONDITION`; what it waits for must be there."""
        self.kubectl("wait", f"--for={condition}", *what, f"--timeout={seconds}s")

    def secret(self, name: str, **values: str) -> None:
        self.apply({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": values})

    def events(self, *arguments: str) -> list[dict[str, Any]]:
        return self.get("events", *arguments)

    def release(self, name: str = "prod") -> Release:
        return Release(self, name)

    def report(self) -> str:
        """Events, objects and logs, for whoever has to find out why a test failed."""
        parts = [
            self.kubectl("get", "events", "--sort-by=.metadata.creationTimestamp", check=False),
            self.kubectl("get", "all,inferenceservices,persistentvolumeclaims", "--output=wide", check=False)
            or self.kubectl("get", "all", "--output=wide", check=False),
        ]
        for pod in self.get("pods"):
            parts += [self._logs(pod["metadata"]["name"], status) for status in _statuses(pod)]
        return "\n\n".join(part for part in parts if part.strip())

    def _logs(self, pod: str, status: Mapping[str, Any]) -> str:
        arguments = ("logs", pod, f"--container={status['name']}", f"--tail={_LOG_LINES}")
        texts = [self.kubectl(*arguments, check=False)]
        if status["restartCount"]:
            texts.insert(0, self.kubectl(*arguments, "--previous", check=False))
        return f"== {pod} {status['name']}: {json.dumps(status['state'])}\n" + "\n-- started again --\n".join(texts)


@dataclass(frozen=True)
class Release:
    """The chart, installed under a name."""

    namespace: Namespace
    name: str

    @property
    def fullname(self) -> str:
        """What the chart's objects are called."""
        return self.name if "conf-profile" in self.name else f"{self.name}-conf-profile"

    @property
    def model(self) -> str:
        """Its model, unless the values name another: whatever else the cluster serves is none of ours."""
        return self.namespace.name

    def install(self, *layers: Mapping[str, Any], options: Sequence[str] = (), chart: Path = CHART) -> str:
        """Installs or upgrades with these values, later ones over earlier ones; what helm says."""
        values = yaml.safe_dump(merge({"s3": {"model": self.model}}, *layers))
        return self._helm("upgrade", "--install", self.name, str(chart), "--values=-", *options, given=values)

    def rendered(self, *layers: Mapping[str, Any], chart: Path = CHART) -> list[dict[str, Any]]:
        """The objects of these values, without asking the cluster."""
        values = yaml.safe_dump(merge({"s3": {"model": self.model}}, *layers))
        text = self._helm("template", self.name, str(chart), "--values=-", given=values)
        return [document for document in yaml.safe_load_all(text) if document]

    def helm(self, verb: str, *arguments: str) -> str:
        """`helm VERB RELEASE ARGUMENTS`: rollback, test, uninstall, get notes, ..."""
        return self._helm(*verb.split(), self.name, *arguments)

    def _helm(self, *arguments: str, given: str = "") -> str:
        return self.namespace.cluster.helm(f"--namespace={self.namespace.name}", *arguments, given=given)


def until(what: str, probe: Callable[[], Found], seconds: float = 60) -> Found:
    """The first truthy result of `probe`, asked again and again; AssertionError after so many seconds."""
    try:
        return tenacity.Retrying(
            retry=tenacity.retry_if_result(lambda found: not found),
            stop=tenacity.stop_after_delay(seconds),
            wait=tenacity.wait_fixed(0.3),
        )(probe)
    except tenacity.RetryError as error:
        raise AssertionError(f"{what}: not within {seconds:g} s") from error


def _items(text: str) -> Any:
    found = json.loads(text)
    return found["items"] if found["kind"] == "List" else found


def _statuses(pod: Mapping[str, Any]) -> list[dict[str, Any]]:
    status = pod["status"]
    return [*status.get("initContainerStatuses", []), *status.get("containerStatuses", [])]
