"""`python -m serving --settings FILE`: the transformer as a KServe model server.

KServe's own flags (--http_port, --predictor_host, ...) are understood too; --predictor_host goes over the file.
"""

from __future__ import annotations

import logging
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from conf_profile.errors import ConfProfileError
from serving import bundle, logs, settings, tracing

if TYPE_CHECKING:
    from serving.transformer import ProfileTransformer, Served

logger = logging.getLogger(__name__)

# Where vLLM is installed beside, kserve imports it for 20 s and then drops its own OpenAI routes.
sys.modules.setdefault("vllm", None)  # type: ignore[arg-type]


def main() -> None:
    """Builds the transformer and serves until SIGTERM; what a user can put right ends with status 2."""
    import kserve
    from kserve.model_server import parser

    parser.add_argument("--settings", type=Path, required=True, help="YAML: serving/settings.py")
    parser.add_argument("--host", help="listen on this address alone; default: on all")
    given, _ = parser.parse_known_args()
    try:
        configured = settings.read(given.settings)
        model = build(configured, given.predictor_host)
    except ConfProfileError as error:
        print(f"serving: {error}", file=sys.stderr)
        sys.exit(2)
    logs.configure()
    tracing.configure(configured.traces_endpoint, configured.name)
    if given.host:
        _listen_on(given.host)
    if configured.web:
        _show_page(model)
    _reload_on_hangup(model, given.settings, given.predictor_host)
    kserve.ModelServer(enable_grpc=False, enable_latency_logging=False).start([model])


def _listen_on(host: str) -> None:
    """kserve listens on every address and has no flag for another."""
    from kserve import model_server

    class OneAddress(model_server.RESTServer):  # type: ignore[misc]  # kserve is not analysed
        def __init__(self, *args: object, **kwargs: object) -> None:
            super().__init__(*args, **kwargs)
            self.config.host = host

    model_server.RESTServer = OneAddress


def _show_page(model: ProfileTransformer) -> None:
    """kserve serves whatever its one application has, and adds its own routes when it starts."""
    from kserve.model_server import app

    from serving.web import routes

    routes.register(app, model)


def _reload_on_hangup(model: ProfileTransformer, file: Path, predictor_host: str | None) -> None:
    """SIGHUP: reads the settings again and changes over. Settings that are wrong change nothing, and say so."""

    def reload(*_: object) -> None:
        try:
            model.replace(served(settings.read(file), predictor_host))
            logger.info("changed over to the model in %s", file)
        except ConfProfileError as error:
            logger.error("not changed over: %s", error)

    signal.signal(signal.SIGHUP, reload)


def build(given: settings.Settings, predictor_host: str | None = None) -> ProfileTransformer:
    """The transformer of these settings; features are warmed before it says that it is ready."""
    from serving.features import OnlineFeatures
    from serving.transformer import ProfileTransformer

    repository = given.features.repository
    return ProfileTransformer(served(given, predictor_host), OnlineFeatures(repository) if repository else None)


def served(given: settings.Settings, predictor_host: str | None = None) -> Served:
    """The model version of these settings and the way to its predictor."""
    from serving.drift import DriftMonitor
    from serving.predictor_client import PredictorClient
    from serving.transformer import Served

    if predictor_host:
        url = predictor_host if "://" in predictor_host else f"http://{predictor_host}"
        given = given.model_copy(update={"predictor": given.predictor.model_copy(update={"url": url})})
    model = bundle.load(given.model)
    return Served(model, PredictorClient(given.predictor, model), given, DriftMonitor(model))


if __name__ == "__main__":
    main()
