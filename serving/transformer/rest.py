"""KServe's REST server as this transformer needs it.

Left out are routes that it does not serve (explain, v2 inference, versions by number) or that would let any caller end
it (load and unload of the model repository), and what KServe does for every request and nobody reads. Errors are logged
by kind and place: KServe's own handlers write messages too, and a message may quote what a user wrote.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

import uvloop
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from kserve import model_server
from kserve.errors import InvalidInput, ModelNotFound, ModelNotReady
from starlette.exceptions import HTTPException

from serving.telemetry import logs

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

NOT_SERVED = frozenset(
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
"""Of one request: hundreds of users with all their features fit many times."""
RETRY_SECONDS = 1


def install(host: str | None) -> None:
    """kserve.ModelServer starts this server from now on; `host`: listen on this address alone, default on all.

    On uvloop, which KServe takes for several workers only. asyncio's own loop sends head and body of each answer apart.
    """
    asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())
    # KServe looks at the thread's loop before it runs one of its own.
    asyncio.set_event_loop(asyncio.new_event_loop())

    class Server(RESTServer):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self.config.host = host or self.config.host

    model_server.RESTServer = Server


class RESTServer(model_server.RESTServer):  # type: ignore[misc]  # kserve is not analysed
    """The three steps in which KServe builds its application, each with less in it."""

    def _add_middlewares(self, app: FastAPI) -> None:
        app.add_middleware(LimitedBody)
        logs.keep_messages_out("kserve", "uvicorn.error")
        if self.access_log_format:
            super()._add_middlewares(app)
        else:
            # The transformer itself logs each request, as JSON. Without a handler uvicorn does not even try.
            access = logging.getLogger("uvicorn.access")
            access.handlers, access.propagate = [], False

    def _register_endpoints(self, app: FastAPI) -> None:
        super()._register_endpoints(app)
        app.router.routes[:] = [route for route in app.router.routes if getattr(route, "path", "") not in NOT_SERVED]

    def _add_exception_handlers(self, app: FastAPI) -> None:
        super()._add_exception_handlers(app)
        app.add_exception_handler(InvalidInput, _status(400))
        app.add_exception_handler(ModelNotFound, _status(404))
        app.add_exception_handler(ModelNotReady, _status(503))
        app.add_exception_handler(Exception, _failed)


class LimitedBody:
    """Refuses a body of more than MAX_BODY_BYTES (413) before it has all been read."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request; its length is counted, since a caller need not state it."""
        read = 0

        async def counted() -> Message:
            nonlocal read
            message = await receive()
            read += len(message.get("body", b""))
            if read > MAX_BODY_BYTES:
                raise HTTPException(413, f"the body has more than {MAX_BODY_BYTES} bytes")
            return message

        await self._app(scope, counted, send)


def _status(status: int) -> Any:
    """Answers with the error's message; whoever comes too early is told to come again."""
    headers = {"Retry-After": str(RETRY_SECONDS)} if status == 503 else None

    async def answer(_: Request, error: Exception) -> JSONResponse:
        return JSONResponse({"error": str(error)}, status, headers)

    return answer


async def _failed(_: Request, error: Exception) -> JSONResponse:
    """A fault of ours. uvicorn logs where it happened."""
    return JSONResponse({"error": f"internal error ({type(error).__name__})"}, 500)
