"""Before a release is installed, upgraded or synchronised: refuses names that another release has, and makes the online
store's password where there is none. TASK is JSON: release, objects, container, password, credentials.

It asks the API server with the pod's own token. Status 3 is a refusal, which another try would not change.
"""

import json
import os
import secrets
import ssl
import string
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import NoReturn

REFUSED = 3
RELEASE = "conf-profile/release"
KEPT = {
    "helm.sh/resource-policy": "keep",
    "argocd.argoproj.io/sync-options": "Prune=false",
    "argocd.argoproj.io/compare-options": "IgnoreExtraneous",
}
"""On the password's Secret: a chart before this one rendered it, so that Helm and Argo CD would delete it now."""
CONTAINERS = "/apis/serving.kserve.io/v1alpha1/clusterstoragecontainers"
LENGTH = 32


class Api:
    """The API server at an address, asked with the token of a folder."""

    def __init__(self, server: str, credentials: str) -> None:
        folder = Path(credentials)
        self.server, self.token = server, (folder / "token").read_text()
        secure = server.startswith("https:")
        self.context = ssl.create_default_context(cafile=str(folder / "ca.crt")) if secure else None

    def send(self, method: str, path: str, body: "dict | None" = None, absent: int = 404) -> "dict | None":
        """The answer; None where its status is `absent`. SystemExit with the API server's own words otherwise."""
        kind = "application/merge-patch+json" if method == "PATCH" else "application/json"
        request = urllib.request.Request(
            self.server + path,
            json.dumps(body).encode() if body else None,
            {"Authorization": f"Bearer {self.token}", "Content-Type": kind},
            method=method,
        )
        try:
            with urllib.request.urlopen(request, timeout=30, context=self.context) as response:
                return json.load(response)
        except urllib.error.HTTPError as error:
            if error.code == absent:
                return None
            sys.exit(f"{method} {path}: status {error.code}: {error.read().decode(errors='replace')}")
        except OSError as error:
            sys.exit(f"{method} {path}: the API server does not answer: {error}")


def refuse(message: str) -> NoReturn:
    print(message, file=sys.stderr)
    sys.exit(REFUSED)


def owner(found: dict) -> str:
    """NAMESPACE/NAME of the release that an object belongs to; empty where nothing on it says so."""
    notes = found["metadata"].get("annotations") or {}
    helm = [notes.get(f"meta.helm.sh/release-{part}", "") for part in ("namespace", "name")]
    return notes.get(RELEASE) or ("/".join(helm) if all(helm) else "")


def check_names(api: Api, release: str, objects: list) -> None:
    """Refuses where an object that this release makes is another one's."""
    for path in objects:
        found = api.send("GET", path)
        if found and owner(found) not in ("", release):
            refuse(
                f"{path} belongs to the release {owner(found)}, and {release} would overwrite it: "
                "give this release another name, a fullnameOverride, or a namespace of its own (pipelines.namespace)"
            )


def check_container(api: Api, release: str, own: dict) -> None:
    """Refuses where another release's storage initialiser has this name, or fetches this model."""
    for found in (api.send("GET", CONTAINERS) or {"items": []})["items"]:
        name, other = found["metadata"]["name"], owner(found)
        if other == release:
            continue
        if name == own["name"] and other:
            refuse(
                f"ClusterStorageContainer {name} belongs to the release {other}, and {release} would overwrite it: "
                "give this release a fullnameOverride"
            )
        formats = [each.get("regex") for each in found["spec"].get("supportedUriFormats") or ()]
        if name != own["name"] and own["regex"] in formats:
            refuse(
                f"serving.storageContainer.create: ClusterStorageContainer {name} of another release fetches "
                f"{own['model']} in this cluster already, and KServe would take either: set "
                "serving.storageContainer.create=false to use that one, or give this release an s3.bucket or s3.model "
                "of its own"
            )


def make_password(api: Api, release: str, wanted: dict) -> None:
    """A password that is there stays. What belongs to no manifest must not be deleted with one."""
    secrets_path = f"/api/v1/namespaces/{wanted['namespace']}/secrets"
    path = f"{secrets_path}/{wanted['name']}"
    found = api.send("GET", path)
    if not found:
        metadata = {"name": wanted["name"], "labels": wanted["labels"], "annotations": {**KEPT, RELEASE: release}}
        body = {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": {wanted["key"]: password()}}
        # Somebody else may have made it meanwhile.
        if api.send("POST", secrets_path, body, absent=409):
            print(f"made the Secret {wanted['name']}")
            return
        found = api.send("GET", path) or {"metadata": {}}
    change: dict = {}
    notes = found["metadata"].get("annotations") or {}
    if missing := {key: value for key, value in KEPT.items() if key not in notes}:
        change["metadata"] = {"annotations": missing}
    if not (found.get("data") or {}).get(wanted["key"]):
        change["stringData"] = {wanted["key"]: password()}
    if change:
        api.send("PATCH", path, change)
    print(f"the Secret {wanted['name']} has {'a new' if 'stringData' in change else 'its'} password")


def password() -> str:
    return "".join(secrets.choice(string.ascii_letters + string.digits) for _ in range(LENGTH))


def main(task: dict, server: str) -> None:
    api = Api(server, task["credentials"])
    check_names(api, task["release"], task["objects"])
    if task["container"]:
        check_container(api, task["release"], task["container"])
    if task["password"]:
        make_password(api, task["release"], task["password"])


if __name__ == "__main__":
    # An address of version 6 stands in brackets.
    host = os.environ["KUBERNETES_SERVICE_HOST"]
    address = f"[{host}]" if ":" in host else host
    main(json.loads(sys.argv[1]), f"https://{address}:{os.environ['KUBERNETES_SERVICE_PORT']}")
