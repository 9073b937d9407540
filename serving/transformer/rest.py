"""KServe's REST server as this transformer needs it.

Left out are routes that it does not serve (explain, v2 inference, versions by number) or that would let any caller end
it (load and unload of the model repository), and what KServe does for every request and nobody reads. Errors are logged
by kind and place: KServe's own handlers write messages too, and a message may quote what a user wrote.

`kserve.ModelServer.start` makes its server itself and lets nobody choose routes, middlewares, address or event loop.
The public way around it is to make the server that it would make: a `RESTServer`, whose `create_application` hands out
the whole application and whose `run` serves it.
"""

from __future__ import annotations

import logging
from typing import Any

import kserve
from fastapi import Request
from fastapi.responses import JSONResponse
from kserve import model_server
from kserve.constants.constants import FASTAPI_APP_IMPORT_STRING
from kserve.errors import InvalidInput, ModelNotFound, ModelNotReady
from starlette.middleware.body_limit import RequestBodyLimitMiddleware

from serving.telemetry import logs

UNSERVED_ROUTES = frozenset(
    {
        "/v1/models/{model_name}:explain",
        "/v2/models/{model_name}/infer",
        "/v2/models/{model_name}/versions/{model_version}",
        "/v2/models/{model_name}/versions/{model_version}/ready",
        "/v2/models/{model_name}/versions/{model_version}/infer",
        "/v2/repository/models/{model_name}/load",
        "/v2/repository/models/{model_name}/unload",
    }
)
MAX_BODY_BYTES = 32 * 2**20
"""Of one request: hundreds of users with all their features fit many times. A longer one is refused (413) unread."""
RETRY_SECONDS = 1


def serve(model: kserve.Model, host: str | None) -> None:
    """Serves the model until SIGTERM and the end of the last request; `host`: on this address alone, default on all.

    On uvloop. asyncio's own loop sends head and body of each answer apart.
    """
    server = kserve.ModelServer(enable_grpc=False, enable_latency_logging=False)
    server.register_model(model)
    # uvicorn catches SIGTERM and raises it again after the last request: then KServe stops the model.
    server.register_signal_handler()
    rest = RESTServer(
        FASTAPI_APP_IMPORT_STRING,
        server.dataplane,
        server.model_repository_extension,
        server.http_port,
        access_log_format=server.access_log_format,
        grace_period=server.grace_period,
        event_loop="uvloop",
        timeout_keep_alive=server.timeout_keep_alive,
        ssl_certfile=server.ssl_certfile,
        ssl_keyfile=server.ssl_keyfile,
    )
    rest.config.host = host or rest.config.host
    rest.run()


class RESTServer(model_server.RESTServer):  # type: ignore[misc]  # kserve is not analysed
    """KServe's server with less in its application, a limit to bodies, and errors that quote nobody."""

    def create_application(self) -> None:
        """Completes the one application that KServe has, before uvicorn loads it."""
        super().create_application()
        app = model_server.app
        app.router.routes[:] = [
            route for route in app.router.routes if getattr(route, "path", "") not in UNSERVED_ROUTES
        ]
        if not self.access_log_format:
            # The transformer itself logs each request, as JSON. Without a handler uvicorn does not even try.
            app.user_middleware.clear()
            access = logging.getLogger("uvicorn.access")
            access.handlers, access.propagate = [], False
        app.add_middleware(RequestBodyLimitMiddleware, max_body_size=MAX_BODY_BYTES)
        logs.suppress_messages("kserve", "uvicorn.error")
        app.add_exception_handler(InvalidInput, _status(400))
        app.add_exception_handler(ModelNotFound, _status(404))
        app.add_exception_handler(ModelNotReady, _status(503))
        app.add_exception_handler(Exception, _internal_error)


def _status(status: int) -> Any:
    """Answers with the error's message; whoever comes too early is told to come again."""
    headers = {"Retry-After": str(RETRY_SECONDS)} if status == 503 else None

    async def answer(_: Request, error: Exception) -> JSONResponse:
        return JSONResponse({"error": str(error)}, status, headers)

    return answer


async def _internal_error(_: Request, error: Exception) -> JSONResponse:
    """A fault of ours. uvicorn logs where it happened."""
    return JSONResponse({"error": f"internal error ({type(error).__name__})"}, 500)
