"""A KFP backend through its own client: connect, upload a version, run it now or on a schedule.

Everything that exists already is taken as it is, so that a call can be repeated. What the backend refuses becomes a
PipelineError that says what to look at.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from conf_profile.errors import PipelineError

TOKEN = "KFP_TOKEN"
"""Environment variable with a bearer token, where the backend asks for one."""
CONNECT_SECONDS = 5.0
_EQUALS = 1
_PAGE = 100
_DOWN = (
    "Check the address (--endpoint or KFP_ENDPOINT), that the backend runs (kubectl get pods -A -l app=ml-pipeline), "
    "and from outside the cluster the port-forward (kubectl -n kubeflow port-forward svc/ml-pipeline-ui 8080:80)"
)
_ADVICE = {
    401: f"it does not know you; set {TOKEN} to a valid token",
    403: "you may not do that; check --namespace and the rights of the token's account there",
    404: "there is no KFP API of version v2beta1 at this address; give the one that ends before /apis",
}


@dataclass(frozen=True)
class Version:
    """An uploaded version of the pipeline."""

    pipeline_id: str
    version_id: str
    uploaded: bool


@dataclass(frozen=True)
class Backend:
    """A backend that has answered. `namespace` is None where it does not keep users apart."""

    client: Any
    endpoint: str
    namespace: str | None

    def upload(self, package: Path, pipeline: str, version: str) -> Version:
        """Uploads the package as this version of the pipeline, unless a version of that name is there."""
        with self._asking("upload the pipeline"):
            pipeline_id = self._pipeline(pipeline)
            found = self._version(pipeline_id, version)
            if found is not None:
                return Version(pipeline_id, found, uploaded=False)
            made = self.client.upload_pipeline_version(str(package), version, pipeline_id=pipeline_id)
            return Version(pipeline_id, str(made.pipeline_version_id), uploaded=True)

    def experiment(self, name: str) -> str:
        """The id of an experiment, which is made if it is missing."""
        with self._asking("make the experiment"):
            return str(self.client.create_experiment(name, namespace=self.namespace).experiment_id)

    def run(
        self, version: Version, experiment: str, name: str, arguments: Mapping[str, Any], service_account: str | None
    ) -> str:
        """Starts a run; its id."""
        with self._asking("start the run"):
            started = self.client.run_pipeline(
                experiment, name, params=dict(arguments), pipeline_id=version.pipeline_id,
                version_id=version.version_id, service_account=service_account,
            )  # fmt: skip
            return str(started.run_id)

    def schedule(
        self, version: Version, experiment: str, name: str, cron: str, arguments: Mapping[str, Any],
        service_account: str | None,
    ) -> str:  # fmt: skip
        """One recurring run of this name; earlier ones end once it is there. Its id."""
        with self._asking("schedule the run"):
            earlier = self._recurring(experiment, name)
            made = self.client.create_recurring_run(
                experiment, name, cron_expression=cron, max_concurrency=1, no_catchup=True, params=dict(arguments),
                pipeline_id=version.pipeline_id, version_id=version.version_id, service_account=service_account,
            )  # fmt: skip
            self._end(earlier)
            return str(made.recurring_run_id)

    def end_schedule(self, experiment: str, name: str) -> int:
        """Ends the recurring runs of this name in an experiment, which need not be there; how many there were.

        A run of theirs that is under way goes on.
        """
        with self._asking("end the recurring run"):
            there = self.client.list_experiments(filter=_named(experiment), page_size=_PAGE, namespace=self.namespace)
            ids = [str(each.experiment_id) for each in there.experiments or () if each.display_name == experiment]
            found = [recurring_run for each in ids for recurring_run in self._recurring(each, name)]
            self._end(found)
            return len(found)

    def get_run(self, run_id: str) -> Any:
        """The run as it is now."""
        with self._asking("look at the run"):
            return self.client.get_run(run_id)

    def link(self, run_id: str) -> str:
        """The run's page."""
        return f"{self.endpoint}/#/runs/details/{run_id}"

    def _pipeline(self, name: str) -> str:
        found = self.client.list_pipelines(filter=_named(name), page_size=_PAGE, namespace=self.namespace)
        for pipeline in found.pipelines or ():
            if pipeline.display_name == name:
                return str(pipeline.pipeline_id)
        body = self.client.api_models.V2beta1Pipeline(display_name=name, name=name, namespace=self.namespace)
        return str(self.client.pipelines.pipeline_service_create_pipeline(body).pipeline_id)

    def _version(self, pipeline_id: str, name: str) -> str | None:
        found = self.client.list_pipeline_versions(pipeline_id, filter=_named(name), page_size=_PAGE)
        named = (each for each in found.pipeline_versions or () if each.display_name == name)
        return next((str(each.pipeline_version_id) for each in named), None)

    def _recurring(self, experiment: str, name: str) -> list[str]:
        found = self.client.list_recurring_runs(experiment_id=experiment, filter=_named(name), page_size=_PAGE)
        return [str(each.recurring_run_id) for each in found.recurring_runs or () if each.display_name == name]

    def _end(self, recurring_runs: Sequence[str]) -> None:
        for recurring_run in recurring_runs:
            self.client.delete_recurring_run(recurring_run)

    @contextlib.contextmanager
    def _asking(self, what: str) -> Iterator[None]:
        # The client prints links of its own.
        with _explained(self.endpoint, what), contextlib.redirect_stdout(io.StringIO()):
            yield


def connect(endpoint: str, namespace: str | None) -> Backend:
    """A backend that answers within seconds; PipelineError says what to check where it does not."""
    address = endpoint.rstrip("/")
    if not address.startswith(("http://", "https://")):
        raise PipelineError(f"{endpoint!r} is not an address of KFP; expected e.g. http://127.0.0.1:8080")
    with _explained(address, "look for the backend"):
        apart = _keeps_users_apart(address)
    if apart and not namespace:
        raise PipelineError(f"{address}: this KFP keeps users apart; give your namespace with --namespace")
    with _explained(address, "connect"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from kfp import Client

        client = Client(host=address, **_identity())
    return Backend(client, address, namespace if apart else None)


def _keeps_users_apart(address: str) -> bool:
    """What /healthz says; it is also the first look at whether this is KFP at all."""
    import kfp_server_api

    configuration = kfp_server_api.Configuration(host=address)
    configuration.retries = False
    if token := os.environ.get(TOKEN):
        configuration.api_key["authorization"] = token
        configuration.api_key_prefix["authorization"] = "Bearer"
    service = kfp_server_api.HealthzServiceApi(kfp_server_api.ApiClient(configuration))
    # The client would take a page of HTML for an answer without any field.
    answer = service.healthz_service_get_healthz(_request_timeout=CONNECT_SECONDS, _preload_content=False)
    try:
        return bool(json.loads(answer.data).get("multi_user"))
    except (ValueError, AttributeError) as error:
        raise PipelineError(f"{address}: this is not KFP, or it asks for a login first ({TOKEN})") from error


def _identity() -> dict[str, Any]:
    """A token of the environment, else the one that a pod of the cluster is given for KFP, else none."""
    if token := os.environ.get(TOKEN):
        return {"existing_token": token}
    from kfp.client import KF_PIPELINES_SA_TOKEN_ENV, KF_PIPELINES_SA_TOKEN_PATH, ServiceAccountTokenVolumeCredentials

    if Path(os.environ.get(KF_PIPELINES_SA_TOKEN_ENV) or KF_PIPELINES_SA_TOKEN_PATH).is_file():
        return {"credentials": ServiceAccountTokenVolumeCredentials()}
    return {}


@contextlib.contextmanager
def _explained(address: str, what: str) -> Iterator[None]:
    import kfp_server_api
    import urllib3

    try:
        yield
    except kfp_server_api.ApiException as error:
        advice = _ADVICE.get(error.status, "see the log of ml-pipeline")
        raise PipelineError(f"{address}: KFP cannot {what} ({error.status} {_said(error)}): {advice}") from error
    except (urllib3.exceptions.HTTPError, TimeoutError) as error:
        raise PipelineError(f"{address}: KFP does not answer ({error}). {_DOWN}") from error


def _said(error: Any) -> str:
    """The backend's own words, without the stack of its Go code."""
    read: Callable[[Any], Any] = json.loads
    try:
        message = read(error.body)["message"]
    except (ValueError, LookupError, TypeError):
        message = error.reason
    return " ".join(str(message).split())[:300]


def _named(name: str) -> str:
    predicate = {"operation": _EQUALS, "key": "display_name", "stringValue": name}
    return json.dumps({"predicates": [predicate]})
