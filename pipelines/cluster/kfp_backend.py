"""A KFP backend through its own client: upload a version, run it now or on a schedule, look at runs and their logs.

Everything that exists already is taken as it is, so that a call can be repeated. What the backend refuses becomes a
PipelineError that says what to look at. Which recurring run may be deleted when is decided in `schedules`.
"""

from __future__ import annotations

import contextlib
import io
import json
import warnings
from collections import deque
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from conf_profile.errors import PipelineError, RunNotFoundError
from pipelines.cluster.kfp_connection import (
    TIMEOUT_SECONDS,
    TOKEN,
    TOKEN_FILE,
    address_of,
    api_client,
    credentials,
    explain_errors,
    health,
    version_warning,
)

__all__ = ["ENDED_STATES", "TOKEN", "TOKEN_FILE", "Backend", "Version", "connect"]
ENDED_STATES = frozenset({"SUCCEEDED", "FAILED", "CANCELED", "SKIPPED"})
"""States of a run that do not change any more."""
_EQUALS = 1
_PAGE = 100
_LOG_BLOCK_BYTES = 64 << 10


@dataclass(frozen=True)
class Version:
    """An uploaded version of the pipeline."""

    pipeline_id: str
    version_id: str
    uploaded: bool


@dataclass(frozen=True)
class RunSettings:
    """Where a run is listed, who it runs as, and where its artefacts go; empty: as the backend has it."""

    experiment: str
    service_account: str | None = None
    pipeline_root: str | None = None


@dataclass(frozen=True)
class Backend:
    """A backend that has answered. `namespace` is None where it does not keep users apart."""

    client: Any
    api: Any
    endpoint: str
    namespace: str | None
    version: str

    @property
    def warning(self) -> str:
        """What to tell of the backend's version; empty where it was tried."""
        return version_warning(self.version)

    def upload(self, package: Path, pipeline: str, version: str) -> Version:
        """Uploads the package as this version of the pipeline, unless a version of that name is there."""
        with self._explain_errors("upload the pipeline"):
            pipeline_id = self._pipeline(pipeline)
            found = self._version(pipeline_id, version)
            if found is not None:
                return Version(pipeline_id, found, uploaded=False)
            made = self.client.upload_pipeline_version(str(package), version, pipeline_id=pipeline_id)
            return Version(pipeline_id, str(made.pipeline_version_id), uploaded=True)

    def experiment(self, name: str) -> str:
        """The id of an experiment, which is made if it is missing."""
        with self._explain_errors("make the experiment"):
            return str(self.client.create_experiment(name, namespace=self.namespace).experiment_id)

    def find_experiment(self, name: str) -> str | None:
        """The id of an experiment, or None where there is none of this name."""
        with self._explain_errors("look for the experiment"):
            there = self.client.list_experiments(filter=_name_filter(name), page_size=_PAGE, namespace=self.namespace)
        return next((str(each.experiment_id) for each in there.experiments or () if each.display_name == name), None)

    def run(self, version: Version, name: str, arguments: Mapping[str, Any], settings: RunSettings) -> str:
        """Starts a run; its id."""
        experiment = self.experiment(settings.experiment)
        with self._explain_errors("start the run"):
            started = self.client.run_pipeline(
                experiment, name, params=dict(arguments), pipeline_id=version.pipeline_id,
                version_id=version.version_id, pipeline_root=settings.pipeline_root,
                service_account=settings.service_account,
            )  # fmt: skip
            return str(started.run_id)

    def get_run(self, run_id: str) -> Any:
        """The run as it is now; RunNotFoundError where there is none."""
        with explain_errors(self.endpoint, "look at the run", run_id):
            return self._runs.run_service_get_run(run_id, _request_timeout=TIMEOUT_SECONDS)

    def list_runs(self, experiment_id: str) -> Iterator[Any]:
        """The runs of an experiment, the newest first."""
        page = ""
        while True:
            with explain_errors(self.endpoint, "list the runs"):
                found = self._runs.run_service_list_runs(
                    experiment_id=experiment_id, page_token=page, page_size=_PAGE, sort_by="created_at desc",
                    _request_timeout=TIMEOUT_SECONDS,
                )  # fmt: skip
            yield from found.runs or ()
            page = found.next_page_token or ""
            if not page:
                return

    def terminate(self, run_id: str) -> None:
        """Stops a run; it takes KFP some seconds."""
        with explain_errors(self.endpoint, "stop the run", run_id):
            self._runs.run_service_terminate_run(run_id, _request_timeout=TIMEOUT_SECONDS)

    def pipeline_spec(self, run: Any) -> Mapping[str, Any]:
        """The compiled pipeline of a run; empty where the backend does not tell it."""
        spec, reference = run.pipeline_spec, run.pipeline_version_reference
        if not spec and reference and reference.pipeline_version_id:
            with self._explain_errors("read the pipeline of the run"):
                spec = self.client.get_pipeline_version(
                    reference.pipeline_id, reference.pipeline_version_id
                ).pipeline_spec
        found: Mapping[str, Any] = spec or {}
        # With a part for Kubernetes the pipeline stands one level deeper.
        return dict(found.get("pipeline_spec", found))

    def node_log(self, run_id: str, node: str, last_bytes: int) -> bytes:
        """The end of the log of one node of a run. PipelineError where KFP does not have it."""
        with explain_errors(self.endpoint, f"read the log of node {node}"):
            answer = self.api.call_api(
                "/apis/v1alpha1/runs/{run}/nodes/{node}/log", "GET", path_params={"run": run_id, "node": node},
                auth_settings=["Bearer"], _preload_content=False, _return_http_data_only=True,
                _request_timeout=TIMEOUT_SECONDS,
            )  # fmt: skip
            if "html" in (answer.headers.get("Content-Type") or ""):
                raise PipelineError(f"{self.endpoint}: KFP's page passes no logs on; use the address of ml-pipeline")
            blocks = deque(answer.stream(_LOG_BLOCK_BYTES), maxlen=2 + last_bytes // _LOG_BLOCK_BYTES)
        return b"".join(blocks)[-last_bytes:]

    def recurring_runs(self, experiment_id: str, name: str) -> list[Any]:
        """The recurring runs of this name, enabled or not."""
        with self._explain_errors("list the recurring runs"):
            found = self.client.list_recurring_runs(
                experiment_id=experiment_id, filter=_name_filter(name), page_size=_PAGE
            )
        return [each for each in found.recurring_runs or () if each.display_name == name]

    def has_recurring_run(self, recurring_run_id: str) -> bool:
        """Whether it is there still."""
        try:
            with explain_errors(self.endpoint, "look at the recurring run", recurring_run_id):
                self._recurring.recurring_run_service_get_recurring_run(
                    recurring_run_id, _request_timeout=TIMEOUT_SECONDS
                )
        except RunNotFoundError:
            return False
        return True

    def create_recurring_run(
        self, version: Version, name: str, cron: str, not_before: datetime | None, arguments: Mapping[str, Any],
        settings: RunSettings,
    ) -> str:  # fmt: skip
        """Makes a recurring run whose own runs never overlap, and starts none before `not_before`; its id."""
        experiment = self.experiment(settings.experiment)
        with self._explain_errors("schedule the run"):
            made = self.client.create_recurring_run(
                experiment, name, cron_expression=cron, start_time=not_before, max_concurrency=1, no_catchup=True,
                params=dict(arguments), pipeline_id=version.pipeline_id, version_id=version.version_id,
                pipeline_root=settings.pipeline_root, service_account=settings.service_account,
            )  # fmt: skip
            return str(made.recurring_run_id)

    def disable(self, recurring_run_id: str) -> None:
        """It starts no run any more; one that is under way goes on."""
        with self._explain_errors("disable the recurring run"):
            self.client.disable_recurring_run(recurring_run_id)

    def enable(self, recurring_run_id: str) -> None:
        """It starts runs again."""
        with self._explain_errors("enable the recurring run"):
            self.client.enable_recurring_run(recurring_run_id)

    def delete_recurring_run(self, recurring_run_id: str) -> None:
        """Deletes it, and with it a run of its that is under way, which KFP then lists as RUNNING for ever."""
        with self._explain_errors("delete the recurring run"):
            self.client.delete_recurring_run(recurring_run_id)

    def list_running(self, experiment_id: str, recurring_runs: Collection[str]) -> list[Any]:
        """The runs of these recurring runs that have not ended."""
        if not recurring_runs:
            return []
        runs = self.list_runs(experiment_id)
        return [run for run in runs if run.recurring_run_id in recurring_runs and run.state not in ENDED_STATES]

    def link(self, run_id: str) -> str:
        """The run's page."""
        return f"{self.endpoint}/#/runs/details/{run_id}"

    @property
    def _runs(self) -> Any:
        import kfp_server_api

        return kfp_server_api.RunServiceApi(self.api)

    @property
    def _recurring(self) -> Any:
        import kfp_server_api

        return kfp_server_api.RecurringRunServiceApi(self.api)

    def _pipeline(self, name: str) -> str:
        found = self.client.list_pipelines(filter=_name_filter(name), page_size=_PAGE, namespace=self.namespace)
        for pipeline in found.pipelines or ():
            if pipeline.display_name == name:
                return str(pipeline.pipeline_id)
        body = self.client.api_models.V2beta1Pipeline(display_name=name, name=name, namespace=self.namespace)
        return str(self.client.pipelines.pipeline_service_create_pipeline(body).pipeline_id)

    def _version(self, pipeline_id: str, name: str) -> str | None:
        found = self.client.list_pipeline_versions(pipeline_id, filter=_name_filter(name), page_size=_PAGE)
        named = (each for each in found.pipeline_versions or () if each.display_name == name)
        return next((str(each.pipeline_version_id) for each in named), None)

    @contextlib.contextmanager
    def _explain_errors(self, what: str) -> Iterator[None]:
        # The client prints links of its own.
        with explain_errors(self.endpoint, what), contextlib.redirect_stdout(io.StringIO()):
            yield


def connect(endpoint: str, namespace: str | None) -> Backend:
    """A backend that answers within seconds; PipelineError says what to check where it does not."""
    address = address_of(endpoint)
    with explain_errors(address, "look for the backend"):
        found = health(address)
    if found.multi_user and not namespace:
        raise PipelineError(f"{address}: this KFP keeps users apart; give your namespace with --namespace")
    with explain_errors(address, "connect"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from kfp import Client

        client = Client(host=address, **credentials())
    return Backend(client, api_client(address), address, namespace if found.multi_user else None, found.version)


def _name_filter(name: str) -> str:
    predicate = {"operation": _EQUALS, "key": "display_name", "stringValue": name}
    return json.dumps({"predicates": [predicate]})
