"""HTTP to one endpoint: kept connections, the environment's proxy and certificates, and how a request failed.

aiohttp, as in serving: httpx looks through all connections for each request (encode/httpcore#1035). What aiohttp would
look up for each request is looked up once: the proxy (HTTP_PROXY, HTTPS_PROXY, ALL_PROXY, NO_PROXY) and the certificate
authorities (SSL_CERT_FILE, SSL_CERT_DIR, REQUESTS_CA_BUNDLE, else certifi's). No .netrc is read.

It knows no retries, no JSON and no budget.
"""

from __future__ import annotations

import os
import ssl
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import aiohttp
from yarl import URL

from conf_profile.errors import TeacherError
from conf_profile.transient import is_caused_by

CONNECT_SECONDS = 10.0
LONGEST_BODY = 64 * 2**20
"""Bytes; no answer is that long, and a server that never ends must not fill the memory."""
BODY_BYTES, TOKEN_BYTES = 2**20, 1024
"""What a body has at most besides its tokens, and for each of these, which may be an event of a stream."""
KEEP_SECONDS = 4.0
"""Idle connections are closed after so long: many servers close them after 5 s, and what is sent at that moment is
lost."""
CA_FILES = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE")
CA_FOLDER = "SSL_CERT_DIR"
EVENT_STREAM = "text/event-stream"
_LAST_EVENT = b"data: [DONE]"
PROXY_REFUSAL = 407
_JSON = {"Content-Type": "application/json"}
_CERTIFICATE_REMEDY = (
    "name the file of its certificate authority in the environment variable SSL_CERT_FILE, or correct the host in "
    "teacher.base_url"
)


class NotConnectedError(Exception):
    """There was no connection: nothing was sent. `outage` names the error, for the log."""

    def __init__(self, reason: str, outage: str) -> None:
        super().__init__(reason)
        self.outage = outage


class BrokenAnswerError(Exception):
    """The request may have been received, but no whole answer came.

    `outage` names the error, for the log; it is empty for what answers in another protocol.
    """

    def __init__(self, reason: str, outage: str) -> None:
        super().__init__(reason)
        self.outage = outage


@dataclass(frozen=True)
class Response:
    """A whole answer; header names are looked up in any case."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def content_type(self) -> str:
        """Without its parameters, in lower case."""
        return self.headers.get("Content-Type", "").partition(";")[0].strip().lower()


class EndpointHTTP:
    """Connections to one address; use it as an asynchronous context manager."""

    def __init__(self, url: URL, key: str, connections: int, seconds: float, tokens: int) -> None:
        """`seconds` limits a whole request, `tokens` its answers together.

        TeacherError for a proxy or a certificate file that cannot be used.
        """
        self._url, self._seconds = url, seconds
        self._longest = min(LONGEST_BODY, BODY_BYTES + TOKEN_BYTES * tokens)
        self._headers = {**_JSON, "Authorization": f"Bearer {key}"} if key else dict(_JSON)
        self._connections = connections
        self._proxy = proxy_of(url)
        self._tls = tls_context() if "https" in (url.scheme, self._proxy and self._proxy.scheme) else None

    async def __aenter__(self) -> EndpointHTTP:
        connector = aiohttp.TCPConnector(
            limit=self._connections, keepalive_timeout=KEEP_SECONDS, ssl=self._tls if self._tls else True
        )
        self._session = aiohttp.ClientSession(
            connector=connector,
            headers=self._headers,
            timeout=aiohttp.ClientTimeout(total=self._seconds, connect=min(CONNECT_SECONDS, self._seconds)),
            cookie_jar=aiohttp.DummyCookieJar(),
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._session.close()

    async def post(self, body: bytes) -> Response:
        """Sends JSON. Raises NotConnectedError, BrokenAnswerError, or TeacherError for what stays as it is."""
        try:
            async with self._session.post(self._url, data=body, proxy=self._proxy, allow_redirects=False) as answer:
                if answer.status == PROXY_REFUSAL and self._proxy:
                    raise self._password_error(self._proxy)
                return Response(answer.status, answer.headers, await _read(answer, self._longest))
        except aiohttp.ClientConnectorError as error:
            raise self._unsent_error(error) from error
        except aiohttp.ConnectionTimeoutError as error:
            raise NotConnectedError(describe(error), type(error).__name__) from error
        except aiohttp.ClientHttpProxyError as error:
            if error.status == PROXY_REFUSAL and self._proxy:
                raise self._password_error(self._proxy) from error
            raise NotConnectedError(self._proxy_problem(error), type(error).__name__) from error
        except TimeoutError as error:
            reason = f"no whole answer within {self._seconds:g} s (teacher.timeout_seconds)"
            raise BrokenAnswerError(reason, "TimeoutError") from error
        except aiohttp.ClientResponseError as error:
            raise BrokenAnswerError(f"what answers there speaks no HTTP ({describe(error)})", "") from error
        except aiohttp.ClientError as error:
            raise BrokenAnswerError(describe(error), type(error).__name__) from error

    def _unsent_error(self, error: aiohttp.ClientConnectorError) -> Exception:
        if is_caused_by(error, ssl.SSLCertVerificationError):
            return TeacherError(
                f"{self._url.with_query(None)}: the certificate is not accepted: {_certificate_problem(error)}; "
                + _CERTIFICATE_REMEDY
            )
        through_proxy = isinstance(error, aiohttp.ClientProxyConnectionError)
        return NotConnectedError(self._proxy_problem(error) if through_proxy else describe(error), type(error).__name__)

    def _proxy_problem(self, error: aiohttp.ClientError) -> str:
        return f"the proxy {_without_password(self._proxy)} of the environment gives no connection: {describe(error)}"

    def _password_error(self, proxy: URL) -> TeacherError:
        return TeacherError(
            f"{_without_password(proxy)}: the proxy wants a name and a password (407); put them into its URL in the "
            "environment (HTTPS_PROXY=http://NAME:PASSWORD@HOST:PORT), or name the teacher's host in NO_PROXY"
        )


def proxy_of(url: URL) -> URL | None:
    """The proxy that the environment names for this address; None for none. TeacherError where it is of no use."""
    proxies = urllib.request.getproxies()
    port = f":{url.explicit_port}" if url.explicit_port else ""
    if urllib.request.proxy_bypass(f"{url.host}{port}"):
        return None
    given = proxies.get(url.scheme) or proxies.get("all")
    if not given:
        return None
    variable = f"{url.scheme if proxies.get(url.scheme) else 'all'}_proxy".upper()
    try:
        proxy = URL(given if "://" in given else f"http://{given}")
    except ValueError as error:
        raise TeacherError(f"the environment variable {variable} holds no URL: expected http://HOST:PORT") from error
    if proxy.scheme not in ("http", "https") or not proxy.host:
        raise TeacherError(
            f"the environment variable {variable} names a proxy that speaks {proxy.scheme or 'no HTTP'}; "
            "expected http://HOST:PORT (or name the teacher's host in NO_PROXY)"
        )
    return proxy


def tls_context() -> ssl.SSLContext:
    """Certificate authorities of the environment, else certifi's. TeacherError for a file that holds none."""
    variable = next((name for name in CA_FILES if os.environ.get(name)), "")
    folder = os.environ.get(CA_FOLDER)
    if not variable and folder:
        return ssl.create_default_context(capath=folder)
    if not variable:
        import certifi

        return ssl.create_default_context(cafile=certifi.where())
    path = os.environ[variable]
    try:
        # requests takes a folder in its variable, too.
        is_folder = Path(path).is_dir()
        return ssl.create_default_context(cafile=None if is_folder else path, capath=path if is_folder else None)
    except (OSError, ssl.SSLError) as error:
        raise TeacherError(
            f"the environment variable {variable} names {path}, which holds no certificates: "
            f"{error.strerror or error}; name a file in PEM form, or unset it"
        ) from error


def describe(error: BaseException) -> str:
    """An error's type and text in one line."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


async def _read(answer: aiohttp.ClientResponse, longest: int) -> bytes:
    """The body; of an event stream what comes until its last event, since some servers leave it open after that."""
    parts, size, stream = [], 0, EVENT_STREAM in answer.headers.get("Content-Type", "")
    async for part in answer.content.iter_any():
        parts.append(part)
        size += len(part)
        if size > longest:
            raise BrokenAnswerError(
                f"the answer has more than {longest / 2**20:.0f} MiB, more than teacher.max_tokens allows by far",
                "an endless answer",
            )
        if stream and _LAST_EVENT in b"".join(parts[-2:]):
            break
    return b"".join(parts)


def _without_password(proxy: URL | None) -> str:
    """What may be told of a proxy's address."""
    return str(proxy.with_user(None)) if proxy else ""


def _certificate_problem(error: BaseException) -> str:
    cause: BaseException | None = error
    # aiohttp's own error is of the type, too, but says less.
    while cause is not None and not getattr(cause, "verify_message", ""):
        cause = cause.__cause__ or cause.__context__
    return str(getattr(cause, "verify_message", error))
