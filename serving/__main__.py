"""`python -m serving --settings FILE`: the transformer as a KServe model server.

KServe's own flags (--http_port, --model_name, --predictor_host, ...) are understood too; --model_name and
--predictor_host go over the file.
"""

from __future__ import annotations

import gc
import logging
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from conf_profile.errors import ConfProfileError
from serving import settings, termination
from serving.model import model_source
from serving.telemetry import logs, tracing

if TYPE_CHECKING:
    from serving.transformer.transformer import ProfileTransformer
    from serving.transformer.versions import ServedVersion

logger = logging.getLogger(__name__)

# Where vLLM is installed beside, kserve imports it for 20 s and then drops its own OpenAI routes.
sys.modules.setdefault("vllm", None)  # type: ignore[arg-type]


def main() -> None:
    """Builds the transformer and serves until SIGTERM; what a user can put right ends with status 2."""
    from kserve.model_server import parser
    from prometheus_client import REGISTRY

    from serving.telemetry.drift import DriftCollector
    from serving.transformer import rest

    # KServe always names the model; a process that somebody starts by hand has the name of its settings.
    parser.set_defaults(model_name=None)
    parser.add_argument("--help", "-h", action="help", help="show this and end: kserve's parser has no such flag")
    parser.add_argument("--settings", type=Path, required=True, help="YAML: serving/settings.py")
    parser.add_argument("--host", help="listen on this address alone; default: on all")
    given, _ = parser.parse_known_args()
    try:
        configured = settings.read(given.settings)
        configured = configured.model_copy(update={"name": given.model_name or configured.name})
        model = build(configured, given.predictor_host)
    except ConfProfileError as error:
        termination.report_error("serving", error)
        sys.exit(2)
    logs.configure()
    tracing.configure(configured.traces_endpoint, configured.name)
    if configured.web:
        _show_page(model)
    REGISTRY.register(DriftCollector(lambda: model.served.drift))
    _reload_on_hangup(model, given.settings, given.predictor_host)
    _freeze_loaded_objects()
    rest.serve(model, given.host)


def _freeze_loaded_objects() -> None:
    """What is loaded by now stays, and is much: a request must not wait while all of it is looked at."""
    gc.collect()
    gc.freeze()


def _show_page(model: ProfileTransformer) -> None:
    """kserve serves whatever its one application has, and adds its own routes when it starts."""
    from kserve.model_server import app

    from serving.web import routes

    routes.register(app, model)


def _reload_on_hangup(model: ProfileTransformer, file: Path, predictor_host: str | None) -> None:
    """SIGHUP: reads the settings again and changes over. Settings that are wrong change nothing, and say so."""

    def reload(*_: object) -> None:
        try:
            model.replace(load_version(settings.read(file), predictor_host))
            logger.info("changed over to the model in %s", file)
        except ConfProfileError as error:
            logger.error("not changed over: %s", error)

    signal.signal(signal.SIGHUP, reload)


def build(given: settings.Settings, predictor_host: str | None = None) -> ProfileTransformer:
    """The transformer of these settings; features are warmed before it says that it is ready."""
    from serving.transformer.features import OnlineFeatures
    from serving.transformer.transformer import ProfileTransformer

    repository = given.features.repository
    return ProfileTransformer(load_version(given, predictor_host), OnlineFeatures(repository) if repository else None)


def load_version(given: settings.Settings, predictor_host: str | None = None) -> ServedVersion:
    """The model version of these settings and the way to its predictor."""
    from serving.telemetry.drift import DriftMonitor
    from serving.transformer.predictor_client import PredictorClient, asks_by_version
    from serving.transformer.versions import OtherVersions, ServedVersion

    if predictor_host:
        url = predictor_host if "://" in predictor_host else f"http://{predictor_host}"
        given = given.model_copy(update={"predictor": given.predictor.model_copy(update={"url": url})})
    source = model_source.open_source(given.model)
    model = source.load()
    logger.info("serving %s", model.version)
    others = OtherVersions(source, given) if asks_by_version(given.predictor, model) else None
    return ServedVersion(model, PredictorClient(given.predictor, model), given, DriftMonitor(model), others)


if __name__ == "__main__":
    main()
