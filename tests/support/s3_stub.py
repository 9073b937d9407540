"""A small S3 server on 127.0.0.1 whose habits a test chooses: for stores that cannot run here.

It keeps objects in memory, looks at the access key alone and believes every signature; whatever is asked beyond what
`ObjectStore` needs is answered 501.
"""

from __future__ import annotations

import base64
import datetime
import hashlib
import re
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

Headers = dict[str, str]
_ANY_KEY: Callable[[str], bool] = lambda key: True  # noqa: E731


@dataclass
class Habits:
    """What a server does otherwise than Amazon's; `accepts` says which access keys have not expired."""

    knows_checksums: bool = True
    knows_trailers: bool = True
    refuses_checksums: bool = False
    honours_if_none_match: bool = True
    honours_if_match: bool = True
    refuses_unencrypted: bool = False
    buckets_of_others: tuple[str, ...] = ()
    lists_uploads: bool = True
    forbids_writing: bool = False
    forbids_deleting: bool = False
    accepts: Callable[[str], bool] = _ANY_KEY


@dataclass
class S3Stub:
    """`seen` are the requests that came: method, path with query, headers (lower case)."""

    url: str
    habits: Habits
    buckets: dict[str, dict[str, bytes]] = field(default_factory=dict)
    seen: list[tuple[str, str, Headers]] = field(default_factory=list)
    parts: dict[str, dict[int, bytes]] = field(default_factory=dict)
    lock: threading.RLock = field(default_factory=threading.RLock)

    def methods(self) -> list[str]:
        return [method for method, *_ in self.seen]


class Refusal(Exception):
    def __init__(self, status: int, name: str, message: str = "no") -> None:
        super().__init__(name)
        self.status, self.body = status, f"<Error><Code>{name}</Code><Message>{message}</Message></Error>".encode()


@contextmanager
def s3_stub(habits: Habits, certificate: Path | None = None) -> Iterator[S3Stub]:
    """A server with one bucket, `bucket`; with a certificate (key and chain) it speaks TLS."""
    stub = S3Stub("", habits, {"bucket": {}})
    server = _Server(("127.0.0.1", 0), _handler(stub))
    if certificate:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    stub.url = f"{'https' if certificate else 'http'}://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    try:
        yield stub
    finally:
        server.shutdown()
        server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that does not trust the certificate goes away."""


def _handler(stub: S3Stub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self) -> None:
            headers = {name.lower(): value for name, value in self.headers.items()}
            body = self.read_body(headers)
            try:
                with stub.lock:
                    stub.seen.append((self.command, self.path, headers))
                    status, extra, content = _respond(stub, self.command, self.path, headers, body)
            except Refusal as refusal:
                status, extra, content = refusal.status, {}, refusal.body
            self.send_response(status)
            for name, value in {**extra, **({} if status == 204 else {"Content-Length": str(len(content))})}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)

        do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = answer

        def read_body(self, headers: Headers) -> bytes:
            if headers.get("transfer-encoding") != "chunked":
                return self.rfile.read(int(headers.get("content-length") or 0))
            content = b""
            while size := int(self.rfile.readline().split(b";")[0], 16):
                content += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return content

        def log_message(self, *_: object) -> None:
            """Not into the tests' output."""

    return Handler


def _respond(stub: S3Stub, method: str, path: str, headers: Headers, body: bytes) -> tuple[int, Headers, bytes]:
    habits, parts = stub.habits, urlsplit(path)
    bucket, _, key = unquote(parts.path).lstrip("/").partition("/")
    query = {name: values[0] for name, values in parse_qs(parts.query, keep_blank_values=True).items()}
    found = re.search(r"Credential=([^/]+)/", headers.get("authorization", ""))
    if not habits.accepts(found.group(1) if found else ""):
        raise Refusal(400, "ExpiredToken", "The provided token has expired.")
    if bucket in habits.buckets_of_others:
        raise Refusal(409, "BucketAlreadyExists") if method == "PUT" and not key else Refusal(403, "AccessDenied")
    if method == "PUT" and not key and not query:
        stub.buckets.setdefault(bucket, {})
        return 200, {}, b""
    if bucket not in stub.buckets:
        raise Refusal(404, "NoSuchBucket")
    objects = stub.buckets[bucket]
    if not key:
        if "uploads" in query and habits.lists_uploads:
            return 200, {}, b"<ListMultipartUploadsResult/>"
        if method == "HEAD":
            return 200, {}, b""
        if "list-type" not in query:
            raise Refusal(501, "NotImplemented")
        return 200, {}, _listing(objects, query)
    if method in ("PUT", "POST"):
        _check_upload(habits, headers, creates="uploadId" not in query)
    return _ROUTES[method](stub, objects, key, query, headers, body)


def _check_upload(habits: Habits, headers: Headers, creates: bool) -> None:
    if habits.forbids_writing:
        raise Refusal(403, "AccessDenied")
    if not habits.knows_trailers and ({"x-amz-trailer", "x-amz-decoded-content-length"} & set(headers)):
        raise Refusal(501, "NotImplemented", "aws-chunked")
    if habits.refuses_checksums and any("checksum" in name for name in headers):
        raise Refusal(501, "NotImplemented", "Unsupported header 'x-amz-checksum-sha256'")
    if habits.refuses_unencrypted and creates and "x-amz-server-side-encryption" not in headers:
        raise Refusal(403, "AccessDenied")


def _put(
    stub: S3Stub, objects: dict[str, bytes], key: str, query: Headers, headers: Headers, body: bytes
) -> tuple[int, Headers, bytes]:
    checksum = headers.get("x-amz-checksum-sha256")
    computed = base64.b64encode(hashlib.sha256(body).digest()).decode()
    if stub.habits.knows_checksums and checksum not in (None, computed):
        raise Refusal(400, "BadDigest")
    answer = {"ETag": _etag(body)}
    if stub.habits.knows_checksums and checksum:
        answer["x-amz-checksum-sha256"] = computed
    if "uploadId" in query:
        stub.parts[query["uploadId"]][int(query["partNumber"])] = body
    else:
        _check_conditions(stub.habits, objects, key, headers)
        objects[key] = body
    return 200, answer, b""


def _post(
    stub: S3Stub, objects: dict[str, bytes], key: str, query: Headers, headers: Headers, body: bytes
) -> tuple[int, Headers, bytes]:
    if "uploads" in query:
        upload = f"upload-{len(stub.parts)}"
        stub.parts[upload] = {}
        text = f"<InitiateMultipartUploadResult><UploadId>{upload}</UploadId></InitiateMultipartUploadResult>"
        return 200, {}, text.encode()
    if not stub.habits.knows_checksums and b"Checksum" in body:
        raise Refusal(400, "MalformedXML")
    _check_conditions(stub.habits, objects, key, headers)
    parts = stub.parts.pop(query["uploadId"])
    objects[key] = b"".join(parts[number] for number in sorted(parts))
    text = f"<CompleteMultipartUploadResult><ETag>{_etag(objects[key])}</ETag></CompleteMultipartUploadResult>"
    return 200, {}, text.encode()


def _get(
    stub: S3Stub, objects: dict[str, bytes], key: str, query: Headers, headers: Headers, body: bytes
) -> tuple[int, Headers, bytes]:
    if key not in objects:
        raise Refusal(404, "NoSuchKey")
    content = objects[key]
    wanted = re.fullmatch(r"bytes=(\d+)-(\d+)", headers.get("range", ""))
    if wanted:
        content = content[int(wanted[1]) : int(wanted[2]) + 1]
    return 206 if wanted else 200, {"ETag": _etag(objects[key])}, content


def _delete(
    stub: S3Stub, objects: dict[str, bytes], key: str, query: Headers, headers: Headers, body: bytes
) -> tuple[int, Headers, bytes]:
    if stub.habits.forbids_deleting:
        raise Refusal(403, "AccessDenied")
    if "uploadId" in query:
        stub.parts.pop(query["uploadId"], None)
    else:
        objects.pop(key, None)
    return 204, {}, b""


_ROUTES = {"PUT": _put, "POST": _post, "GET": _get, "HEAD": _get, "DELETE": _delete}


def _check_conditions(habits: Habits, objects: dict[str, bytes], key: str, headers: Headers) -> None:
    if habits.honours_if_none_match and headers.get("if-none-match") == "*" and key in objects:
        raise Refusal(412, "PreconditionFailed")
    wanted = headers.get("if-match")
    if habits.honours_if_match and wanted is not None and (key not in objects or wanted != _etag(objects[key])):
        raise Refusal(412, "PreconditionFailed")


def _listing(objects: dict[str, bytes], query: Headers) -> bytes:
    prefix, mark = query.get("prefix", ""), query.get("delimiter", "")
    names, folders = [], set()
    for name in sorted(name for name in objects if name.startswith(prefix)):
        rest = name.removeprefix(prefix)
        if mark and mark in rest:
            folders.add(prefix + rest.partition(mark)[0] + mark)
        else:
            names.append(name)
    entries = [f"<Contents><Key>{name}</Key><Size>{len(objects[name])}</Size></Contents>" for name in names]
    entries += [f"<CommonPrefixes><Prefix>{name}</Prefix></CommonPrefixes>" for name in sorted(folders)]
    return f"<ListBucketResult><IsTruncated>false</IsTruncated>{''.join(entries)}</ListBucketResult>".encode()


def _etag(body: bytes) -> str:
    return f'"{hashlib.md5(body, usedforsecurity=False).hexdigest()}"'


@dataclass
class RoleStub:
    """STS for one role by web identity: each look gives new keys, and only the last few of them are good.

    `tokens` are those that were shown.
    """

    url: str
    issued: int = 0
    tokens: list[str] = field(default_factory=list)
    refuses: bool = False

    def accepts(self, access_key: str) -> bool:
        """Whether an access key has not expired yet. Requests under way together may have different ones."""
        number = access_key.removeprefix("ROLE")
        return number.isdigit() and int(number) > self.issued - _GOOD_KEYS


_GOOD_KEYS = 6
_LIFE = datetime.timedelta(seconds=60)
"""Less than botocore keeps keys for, so that it asks for new ones each time."""


@contextmanager
def role_stub() -> Iterator[RoleStub]:
    stub = RoleStub("")

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            form = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
            stub.tokens.append(form["WebIdentityToken"][0])
            status, body = (403, _ROLE_REFUSED) if stub.refuses else (200, issue())
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Not into the tests' output."""

    def issue() -> bytes:
        stub.issued += 1
        until = (datetime.datetime.now(datetime.UTC) + _LIFE).strftime("%Y-%m-%dT%H:%M:%SZ")
        return (
            "<AssumeRoleWithWebIdentityResponse><AssumeRoleWithWebIdentityResult><Credentials>"
            f"<AccessKeyId>ROLE{stub.issued}</AccessKeyId><SecretAccessKey>secret</SecretAccessKey>"
            f"<SessionToken>token</SessionToken><Expiration>{until}</Expiration></Credentials><AssumedRoleUser>"
            "<AssumedRoleId>id</AssumedRoleId><Arn>arn:aws:sts::1:assumed-role/r/s</Arn></AssumedRoleUser>"
            "</AssumeRoleWithWebIdentityResult></AssumeRoleWithWebIdentityResponse>"
        ).encode()

    server = _Server(("127.0.0.1", 0), Handler)
    stub.url = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    try:
        yield stub
    finally:
        server.shutdown()
        server.server_close()


_ROLE_REFUSED = (
    b"<ErrorResponse><Error><Code>AccessDenied</Code><Message>Not authorized to perform "
    b"sts:AssumeRoleWithWebIdentity</Message></Error></ErrorResponse>"
)
