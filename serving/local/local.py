"""The whole serving path on one machine: online features, vLLM on the champion, the transformer in front.

Where vLLM cannot be had, transformers answers in its place, behind the same API.

A supervisor starts the processes and, unless it serves one version for good, watches the registry. When the champion
changes, the new version is fetched and verified, a second vLLM loads and answers a first prompt, the transformer
changes over, and only after the last request of the old version is over does the old vLLM end: no request is dropped.
No library does this on one machine: vLLM exchanges LoRA adapters while it runs, but no weights, and KServe and BentoML
leave a change of version to a cluster's rollout.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import yaml

from conf_profile import tables
from conf_profile.config import FeaturesConfig, parse_section
from conf_profile.data.exact import exact_table
from conf_profile.dialogue import task as tasks
from conf_profile.errors import ConfProfileError, RegistryError, ServingError
from conf_profile.files import write_text
from conf_profile.registry.registry import Registry
from serving.local import processes
from serving.local.processes import Child, free_port
from serving.model import bundle
from serving.predictor import arguments, transformers_server
from serving.predictor.arguments import Engine, PredictorArguments, environment
from serving.settings import FeatureSettings, PredictorSettings, Settings, WriteBackSettings

PREDICTOR_SECONDS = 600.0
TRANSFORMER_SECONDS = 120.0
FIRST_ANSWER_SECONDS = 120.0
"""vLLM's first answer loads kernels and compiles the grammar, which takes far longer than any other."""


@dataclass(frozen=True)
class Options:
    """How to serve. `version`: this one for good; None: the champion, whichever it is."""

    port: int
    name: str = "conf-profile"
    version: str | None = None
    web: bool = False
    write_back: bool = False
    device: str = "cpu"
    engine: Engine = "vllm"
    threads: int = 1
    poll_seconds: float = 10.0
    deadline_seconds: float = 10.0
    thresholds: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True)
class Predictor:
    """A running vLLM and the version that it has loaded."""

    version: str
    folder: Path
    url: str
    child: Child
    judged: bool = True


class OtherFeaturesError(ServingError):
    """A version whose features the store does not have."""


class LocalServing:
    """Started by `start_serving`; `state` is what is printed when it is ready."""

    def __init__(self, registry: Registry, repository: Path | None, work: Path, options: Options) -> None:
        self._registry, self._repository, self._work, self._options = registry, repository, work, options
        self._refused = ""
        self._predictor = self._start_predictor(registry.show(options.version).name)
        try:
            self._transformer = self._start_transformer()
        except BaseException:
            self._predictor.child.stop()
            raise
        self._stopped = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._options.port}"

    @property
    def state(self) -> dict[str, Any]:
        """Addresses, model and version; the status of a version that nobody has judged."""
        return {
            "url": self.url,
            "predictor": self._predictor.url,
            "model": self._options.name,
            "version": self._predictor.version,
            **({} if self._predictor.judged else {"status": bundle.UNJUDGED_STATUS}),
            "web": f"{self.url}/web" if self._options.web else None,
        }

    def run(self) -> None:
        """Watches until `stop` is called; ServingError when one of the processes dies."""
        while not self._stopped.wait(self._options.poll_seconds):
            for child in (self._transformer, self._predictor.child):
                if child.process.poll() is not None:
                    raise ServingError(
                        f"{child.name} ended with status {child.process.returncode}: {child.last_words()}"
                    )
            champion = self._champion() if self._options.version is None else None
            if champion not in (None, self._predictor.version, self._refused):
                self._change_over(str(champion))

    def stop(self) -> None:
        """Ends `run`."""
        self._stopped.set()

    def close(self) -> None:
        """Ends every process: the transformer first, so that it accepts nothing that cannot be answered."""
        self._transformer.stop()
        self._predictor.child.stop()

    def _champion(self) -> str | None:
        """None where the registry cannot be asked now: what is served stays."""
        try:
            return self._registry.show().name
        except RegistryError as error:
            print(f"serve: the registry cannot be asked, going on with what is served: {error}", file=sys.stderr)
            return None

    def _change_over(self, version: str) -> None:
        print(f"serve: champion is now {version}; loading it beside {self._predictor.version}", file=sys.stderr)
        before = self._predictor
        try:
            self._require_same_features(version, before)
            self._predictor = self._start_predictor(version)
        except OtherFeaturesError as error:
            self._refused = version
            print(f"serve: {error}; going on with {before.version}", file=sys.stderr)
            return
        except ConfProfileError as error:
            print(f"serve: {version} cannot be served, going on with {before.version}: {error}", file=sys.stderr)
            return
        self._write_settings()
        self._transformer.hang_up()
        # Requests that began with the old version end within their deadline.
        time.sleep(self._options.deadline_seconds + 1.0)
        before.child.stop()
        print(json.dumps(self.state), flush=True)

    def _require_same_features(self, version: str, before: Predictor) -> None:
        """OtherFeaturesError where the feature store, which fits the version before, does not fit this one."""
        if self._repository is None:
            return
        folder = self._work / "models" / version
        self._registry.fill(version, folder)
        stored = bundle.load(before.folder).task.features.types
        if found := bundle.load(folder).task.features.differences(stored):
            raise OtherFeaturesError(
                f"{version} has other features than the feature store: {'; '.join(found)}; serve it from a run of its "
                "own"
            )

    def _start_predictor(self, version: str) -> Predictor:
        folder = self._work / "models" / version
        # Also a version that is there already: a file that was damaged since is found by its hash and fetched again.
        self._registry.fill(version, folder)
        # The transformer would refuse it, when the vLLM that it asks now is about to end.
        model = bundle.load(folder)
        model.check_thresholds(name for name, _ in self._options.thresholds)
        given = PredictorArguments(port=free_port(), device=self._options.device, served_name=self._options.name)  # type: ignore[arg-type]
        log = self._work / "logs" / f"predictor-{version}.log"
        program = (arguments if self._options.engine == "vllm" else transformers_server).command(folder, given)
        child = processes.start("the predictor", program, environment(given, self._options.threads), log)
        predictor = Predictor(version, folder, f"http://127.0.0.1:{given.port}", child, model.judged)
        try:
            child.wait_until(lambda: _answers(f"{predictor.url}/health"), PREDICTOR_SECONDS)
            _first_answer(predictor, self._options.name)
        except BaseException:
            child.stop()
            raise
        return predictor

    def _start_transformer(self) -> Child:
        file = self._write_settings()
        program = [sys.executable, "-m", "serving", "--settings", str(file), "--host", "127.0.0.1"]
        log = self._work / "logs" / "transformer.log"
        child = processes.start("the transformer", [*program, "--http_port", str(self._options.port)], {}, log)
        try:
            child.wait_until(lambda: _answers(f"{self.url}/v2/models/{self._options.name}/ready"), TRANSFORMER_SECONDS)
        except BaseException:
            child.stop()
            raise
        return child

    def _write_settings(self) -> Path:
        settings = Settings(
            name=self._options.name,
            model=str(self._predictor.folder),
            predictor=PredictorSettings(url=self._predictor.url, model=self._options.name),
            features=FeatureSettings(repository=self._repository),
            thresholds=dict(self._options.thresholds),
            deadline_seconds=self._options.deadline_seconds,
            web=self._options.web,
            write_back=WriteBackSettings(enabled=self._options.write_back),
        )
        file = self._work / "serving.yaml"
        write_text(file, yaml.safe_dump(settings.model_dump(mode="json"), sort_keys=False))
        return file


@contextmanager
def start_serving(registry: Registry, repository: Path | None, work: Path, options: Options) -> Iterator[LocalServing]:
    """Starts everything, and ends all of it with the block."""
    running = LocalServing(registry, repository, work, options)
    try:
        yield running
    finally:
        running.close()


def online_store(run: Path, work: Path) -> Path:
    """Feast's repository over a run's own data, its online store filled as of the run's moment."""
    from feature_repo import store as feature_store

    arguments = tables.read_json(run / "workspace" / "arguments.json", "give the folder of a run that has begun")
    repository = work / "features"
    # A run of an earlier release calls it so.
    declared = tasks.load(Path(arguments.get("task_uri") or arguments["taxonomy_uri"])).features
    store = feature_store.open_store(
        repository,
        exact_table(Path(arguments["behaviour_uri"]), tables.behaviour_table(declared), repository / "tables"),
        exact_table(Path(arguments["demographics_uri"]), tables.demographics_table(declared), repository / "tables"),
        parse_section(FeaturesConfig, arguments["features_config"]),
        declared,
    )
    feature_store.materialise(store, arguments["as_of"])
    return repository


def example_user(run: Path) -> str | None:
    """Somebody of the run's people who has consented, for the example that is printed."""
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    arguments = tables.read_json(run / "workspace" / "arguments.json", "give the folder of a run that has begun")
    sign_ups = pq.read_table(arguments["demographics_uri"], columns=["user_id", "consent"])
    consenting = sign_ups.filter(pc.field("consent")).column("user_id")
    return str(consenting[0].as_py()) if len(consenting) else None


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=2.0).status_code == httpx.codes.OK
    except httpx.HTTPError:
        return False


def _first_answer(predictor: Predictor, name: str) -> None:
    """One prompt with the model's own grammar, so that no caller waits for what is done once."""
    import asyncio

    from conf_profile.dialogue.prompts import UserFeatures
    from serving.transformer.predictor_client import PredictorClient, PredictorError, Question

    model = bundle.load(predictor.folder)

    async def ask() -> None:
        client = PredictorClient(PredictorSettings(url=predictor.url, model=name), model)
        try:
            question = Question(model.messages(UserFeatures("")), 1)
            await client.ask(question, time.monotonic() + FIRST_ANSWER_SECONDS, {})
        finally:
            await client.aclose()

    try:
        asyncio.run(ask())
    except PredictorError as error:
        raise ServingError(f"the predictor gave no first answer: {error}; {predictor.child.last_words()}") from error
