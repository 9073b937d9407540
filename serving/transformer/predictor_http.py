"""The predictor's HTTP side: kept connections, or a new one where the kept ones may all lead to a pod that is ending.

aiohttp, whose client costs a fifth of httpx's time for a request. It knows no retries, no deadlines and no JSON; what
it does know is how a request failed, because that decides whether it may be sent again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import aiohttp

KEEP_SECONDS = 4.0
"""Idle connections are closed after so long: vLLM's server closes them after 5 s, and what is sent at that moment is
lost."""
JSON = {"Content-Type": "application/json"}


class NotConnectedError(Exception):
    """There was no connection: nothing was sent."""


class WentAwayError(Exception):
    """The connection ended before the answer began."""


class BrokeOffError(Exception):
    """The answer broke off, or is not HTTP."""


@dataclass(frozen=True)
class Response:
    """A whole answer."""

    status: int
    body: bytes


class PredictorHTTP:
    """Connections to one address; they are opened by the event loop that first asks, and `close` ends them."""

    def __init__(self, url: str, connections: int) -> None:
        self._url, self._connections = url.rstrip("/"), connections
        self._sessions: dict[bool, aiohttp.ClientSession] = {}

    async def post(self, path: str, body: bytes, headers: Mapping[str, str], anew: bool) -> Response:
        """Sends JSON; raises NotConnectedError, WentAwayError, BrokeOffError. `anew`: over a new connection."""
        return await self._send("POST", path, anew, data=body, headers={**headers, **JSON})

    async def get(self, path: str, seconds: float) -> Response:
        """Raises like `post`, and TimeoutError after `seconds`."""
        return await self._send("GET", path, False, timeout=aiohttp.ClientTimeout(seconds))

    async def close(self) -> None:
        """Ends all connections."""
        for session in self._sessions.values():
            await session.close()

    async def _send(self, method: str, path: str, anew: bool, **given: Any) -> Response:
        try:
            answer = await self._session(anew).request(method, self._url + path, **given)
        except aiohttp.ClientConnectorError as error:
            raise NotConnectedError(str(error)) from error
        except aiohttp.ClientConnectionError as error:
            raise WentAwayError(_describe(error)) from error
        except aiohttp.ClientError as error:
            raise BrokeOffError(_describe(error)) from error
        try:
            return Response(answer.status, await answer.read())
        except aiohttp.ClientError as error:
            raise BrokeOffError(_describe(error)) from error
        finally:
            answer.release()

    def _session(self, anew: bool) -> aiohttp.ClientSession:
        if anew not in self._sessions:
            kept: dict[str, Any] = {"force_close": True} if anew else {"keepalive_timeout": KEEP_SECONDS}
            self._sessions[anew] = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=self._connections, **kept),
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=None),
                # A predictor has no sessions, and callers must not share one.
                cookie_jar=aiohttp.DummyCookieJar(),
            )
        return self._sessions[anew]


def _describe(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"
