"""How a KFP backend is reached: its address, who asks, which version answers, and what its refusals mean.

What is asked of it stands in `kfp_backend`.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from conf_profile.errors import BackendUnreachableError, PipelineError, RunNotFoundError

TOKEN = "KFP_TOKEN"
"""Environment variable with a bearer token, where the backend asks for one."""
TOKEN_FILE = "KFP_TOKEN_FILE"
"""Environment variable with the path of a file that holds the token; it is read before each request."""
TRIED_VERSIONS = ("2.17",)
"""Minor versions of KFP's backend on which this pipeline was run. `submit` warns on others."""
TIMEOUT_SECONDS = (5.0, 60.0)
"""To connect, and to read. The client takes a pair; of one float it makes nothing."""
_UNREACHABLE_ADVICE = (
    "Check the address (--endpoint or KFP_ENDPOINT), that the backend runs (kubectl get pods -A -l app=ml-pipeline), "
    "and from outside the cluster the port-forward (kubectl -n kubeflow port-forward svc/ml-pipeline-ui 8080:80)"
)
_TRANSIENT_STATUSES = (429, 502, 503, 504)
_ADVICE = {
    401: f"it does not know you; set {TOKEN} or {TOKEN_FILE} to a valid token",
    403: "you may not do that; check --namespace and the rights of the token's account there",
    404: "there is no KFP API of version v2beta1 at this address; give the one that ends before /apis",
}


@dataclass(frozen=True)
class Health:
    """What a backend says of itself. `version` is empty where it does not tell it."""

    multi_user: bool
    version: str


def address_of(endpoint: str) -> str:
    """The endpoint without a slash at its end; PipelineError for what is no HTTP address."""
    if not endpoint.startswith(("http://", "https://")):
        raise PipelineError(f"{endpoint!r} is not an address of KFP; expected e.g. http://127.0.0.1:8080")
    return endpoint.rstrip("/")


def api_client(address: str, patient: bool = True) -> Any:
    """kfp_server_api's client with the identity of the environment; `patient`: it tries each request four times."""
    import kfp_server_api

    configuration = kfp_server_api.Configuration(host=address)
    if not patient:
        configuration.retries = False
    configuration.api_key_prefix["authorization"] = "Bearer"
    configuration.refresh_api_key_hook = _refresh
    # The client sends nothing, and calls no hook, where it had no token to begin with.
    _refresh(configuration)
    return kfp_server_api.ApiClient(configuration)


def token() -> str:
    """The bearer token of the environment, of the named file, or of the pod's projected volume; else empty."""
    from kfp.client import KF_PIPELINES_SA_TOKEN_ENV, KF_PIPELINES_SA_TOKEN_PATH

    if given := os.environ.get(TOKEN):
        return given
    if named := os.environ.get(TOKEN_FILE):
        return _read_token(Path(named))
    projected = Path(os.environ.get(KF_PIPELINES_SA_TOKEN_ENV) or KF_PIPELINES_SA_TOKEN_PATH)
    return _read_token(projected) if projected.is_file() else ""


def credentials() -> dict[str, Any]:
    """What kfp.Client takes to send the token, if there is one."""

    class Credentials:
        refresh_api_key_hook = staticmethod(_refresh)

    return {"credentials": Credentials()} if token() else {}


def health(address: str) -> Health:
    """What /healthz says, which is also the first look at whether this is KFP at all, and KFP 2."""
    import kfp_server_api

    service = kfp_server_api.HealthzServiceApi(api_client(address, patient=False))
    try:
        # The client's own type drops the version, and it would take a page of HTML for an answer without any field.
        answer = service.healthz_service_get_healthz(_request_timeout=TIMEOUT_SECONDS, _preload_content=False)
    except kfp_server_api.ApiException as error:
        if error.status == 404:
            _refuse_version_1(address)
        raise
    except AttributeError as error:
        # The client decodes the body of a refusal, and a failed TLS handshake has none.
        raise PipelineError(f"{address}: no TLS connection: {error.__context__}; check the certificate") from error
    found = _fields(address, answer)
    tag = str(found.get("tag_name") or "")
    version = "" if tag == "unknown" else tag
    if (major := re.match(r"v?(\d+)\.", version)) and int(major[1]) < 2:
        raise PipelineError(_version_error_text(address, version))
    return Health(bool(found.get("multi_user")), version)


def version_warning(version: str) -> str:
    """What to tell a user of a backend of this version; empty where it was tried."""
    tried = f"this pipeline was tried on {', '.join(TRIED_VERSIONS)}"
    if not version:
        return f"this KFP does not tell its version; {tried}"
    minor = ".".join(version.lstrip("v").split(".")[:2])
    return "" if minor in TRIED_VERSIONS else f"this is KFP {version}; {tried}"


@contextlib.contextmanager
def explain_errors(address: str, what: str, run_id: str = "") -> Iterator[None]:
    """Turns what the client raises into a PipelineError; with `run_id`, 404 means that there is no such run."""
    import kfp_server_api
    import urllib3

    try:
        yield
    except kfp_server_api.ApiException as error:
        if error.status == 404 and run_id:
            raise RunNotFoundError(
                f"{address}: there is no run {run_id}: it was never here, or somebody has deleted it; "
                "`conf-profile runs list` shows what there is"
            ) from error
        advice = _ADVICE.get(error.status, "see the log of ml-pipeline")
        # What stands before an API server answers in its place while that one restarts.
        kind = BackendUnreachableError if error.status in _TRANSIENT_STATUSES else PipelineError
        raise kind(f"{address}: KFP cannot {what} ({error.status} {_message(error)}): {advice}") from error
    except (urllib3.exceptions.HTTPError, TimeoutError) as error:
        raise BackendUnreachableError(f"{address}: KFP does not answer ({error}). {_UNREACHABLE_ADVICE}") from error


def _refresh(configuration: Any) -> None:
    # A projected token is renewed under the same name, so it is read anew for each request.
    if found := token():
        configuration.api_key["authorization"] = found


def _read_token(path: Path) -> str:
    try:
        found = path.read_text(encoding="utf-8").strip()
    except OSError as error:
        raise PipelineError(f"{path}: cannot read KFP's token: {error.strerror}; correct {TOKEN_FILE}") from error
    if not found:
        raise PipelineError(f"{path}: the file of KFP's token is empty; correct {TOKEN_FILE}")
    return found


def _refuse_version_1(address: str) -> None:
    """Raises where API v1beta1 answers and v2beta1 does not."""
    import kfp_server_api

    client = api_client(address, patient=False)
    try:
        answer = client.call_api(
            "/apis/v1beta1/healthz", "GET", auth_settings=["Bearer"], _preload_content=False,
            _return_http_data_only=True, _request_timeout=TIMEOUT_SECONDS,
        )  # fmt: skip
    except kfp_server_api.ApiException:
        return
    raise PipelineError(_version_error_text(address, str(_fields(address, answer).get("tag_name") or "1.x")))


def _version_error_text(address: str, version: str) -> str:
    return (
        f"{address}: this is KFP {version}, which has no API v2beta1; the pipeline needs KFP 2 "
        f"(tried: {', '.join(TRIED_VERSIONS)})"
    )


def _fields(address: str, answer: Any) -> dict[str, Any]:
    try:
        return dict(json.loads(answer.data))
    except (ValueError, TypeError) as error:
        raise PipelineError(f"{address}: this is not KFP, or it asks for a login first ({TOKEN})") from error


def _message(error: Any) -> str:
    """The backend's own words, without the stack of its Go code."""
    read: Callable[[Any], Any] = json.loads
    try:
        found = read(error.body)
        message = found.get("message") or found["error_message"]
    except (ValueError, LookupError, TypeError, AttributeError):
        message = error.reason
    return " ".join(str(message).split())[:300]
