"""One bucket of an S3 server: conditional writes, streaming reads with their hash, errors that help.

Knows nothing of models; `registry` gives the keys their meaning. Every write is conditional and carries a
SHA-256 checksum, so the server refuses a body that was damaged on its way. Retries are botocore's standard
mode, bounded; a read that breaks in the middle starts again.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, TypeVar
from urllib.parse import parse_qs, urlsplit

from conf_profile.errors import RegistryConflictError, RegistryError
from conf_profile.object_errors import CUT_OBJECT, MISSING_KEY, code, explained
from conf_profile.object_parts import in_order

REGION = "us-east-1"
MULTIPART_THRESHOLD = 64 << 20
PART_BYTES = 16 << 20
_MAX_PARTS = 9000
_PARALLEL_PARTS = 4
READ_PART_BYTES = 8 << 20
"""A larger object is fetched in parts of this size, several at once, and hashed as they arrive in order."""
_BLOCK_BYTES = 256 << 10
"""Larger blocks are mapped anew by the allocator each time, which costs as much processor time as the download."""
_CONNECTIONS = 32
_READ_ATTEMPTS = 3

T = TypeVar("T")


@dataclass(frozen=True)
class StoredObject:
    """A small object and the ETag that a conditional write needs."""

    body: bytes
    etag: str


@dataclass(frozen=True)
class Digest:
    """What a file or an object holds."""

    sha256: str
    size: int


def find_endpoint(given: str | None) -> str:
    """The given endpoint, else the environment's; RegistryError where there is none."""
    found = given or os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    if not found:
        raise RegistryError(
            "no S3 endpoint: set storage.endpoint or AWS_ENDPOINT_URL (on a cluster: by the secret that "
            "pipelines.s3Secret names), or start a local server"
        )
    return found


def open_location(uri: str, create: bool = False) -> tuple[ObjectStore, str]:
    """The bucket of `s3://BUCKET/PREFIX[?endpoint=URL&region=NAME]`, and the prefix without slashes around it.

    `create` makes a missing bucket. RegistryError for another form, and where the server cannot be reached.
    """
    parts = urlsplit(uri)
    if parts.scheme != "s3" or not parts.netloc:
        raise RegistryError(f"{uri!r} is not an S3 address; expected s3://BUCKET/PREFIX")
    query = {name: values[-1] for name, values in parse_qs(parts.query).items()}
    store = ObjectStore(s3_client(find_endpoint(query.get("endpoint")), query.get("region", REGION)), parts.netloc)
    store.ensure_bucket(create)
    return store, parts.path.strip("/")


def s3_client(
    endpoint: str,
    region: str,
    access_key: str | None = None,
    secret_key: str | None = None,
    attempts: int = 4,
    read_timeout: float = 60.0,
) -> Any:
    """A boto3 client; without keys boto3 finds them in the environment, the profile or the machine's role."""
    import boto3
    from botocore.config import Config

    # A proxy of the environment leads away from this machine.
    local = urlsplit(endpoint).hostname in ("127.0.0.1", "localhost", "::1")
    config = Config(
        proxies={} if local else None,
        retries={"mode": "standard", "total_max_attempts": attempts},
        connect_timeout=5,
        read_timeout=read_timeout,
        max_pool_connections=_CONNECTIONS,
        # What is read is compared with the manifest's hash; a second checksum would cost as much again.
        response_checksum_validation="when_required",
        s3={"addressing_style": "auto" if "amazonaws.com" in endpoint else "path"},
    )
    # Not the default session: it would keep the keys that the process first had.
    return boto3.session.Session().client(
        "s3", endpoint_url=endpoint, region_name=region, config=config,
        aws_access_key_id=access_key, aws_secret_access_key=secret_key,
    )  # fmt: skip


def digest_of(source: Path | bytes) -> Digest:
    """Hash and size of a file or of bytes."""
    if isinstance(source, bytes):
        return Digest(hashlib.sha256(source).hexdigest(), len(source))
    with source.open("rb") as file:
        return Digest(hashlib.file_digest(file, "sha256").hexdigest(), source.stat().st_size)


class ObjectStore:
    """One bucket. Every method raises RegistryError with the cause and the remedy."""

    def __init__(self, client: Any, bucket: str) -> None:
        self.client = client
        self.bucket = bucket
        self.endpoint = str(client.meta.endpoint_url)

    def ensure_bucket(self, create: bool) -> None:
        """Checks address, keys and bucket with one request; makes a missing bucket if `create`."""
        try:
            with self._errors("look into the bucket"):
                self.client.list_objects_v2(Bucket=self.bucket, MaxKeys=1)
        except RegistryError as error:
            if not (create and code(error.__cause__) == "NoSuchBucket"):
                raise
            self._create_bucket()

    def read(self, key: str) -> StoredObject | None:
        """A small object, or None where there is none."""
        return self._read_attempts(key, self._read_once)

    def digest(self, key: str) -> Digest | None:
        """Hash and size of what the server really gives back, or None where there is no object."""
        return self._read_attempts(key, self._digest_once)

    def download(self, key: str, target: Path, size: int) -> Digest | None:
        """Writes the object to `target` and returns what was written, hashed on its way; None where there is none.

        `size` is what it should have, in bytes: a large object comes in several parts at once, and what it has beyond
        that is not read.
        """
        target.parent.mkdir(parents=True, exist_ok=True)

        def once(name: str) -> Digest:
            with target.open("wb") as file:
                return self._digest_once(name, file)

        if size <= READ_PART_BYTES:
            return self._read_attempts(key, once)
        with target.open("wb") as file:
            return self._digest_parts(key, size, file)

    def etag(self, key: str) -> str | None:
        """What changes whenever the object's content does, or None where there is no object."""
        return self._read_attempts(key, lambda name: str(self.client.head_object(Bucket=self.bucket, Key=name)["ETag"]))

    def size(self, key: str) -> int | None:
        """Bytes of an object, or None where there is none."""
        return next((size for name, size in self._list(key) if name == key), None)

    def sizes(self, prefix: str) -> dict[str, int]:
        """Key -> bytes of all objects under a prefix."""
        return dict(self._list(prefix))

    def folders(self, prefix: str) -> list[str]:
        """The names directly under `prefix` (which ends with a slash), sorted."""
        with self._errors(f"list {prefix}"):
            pages = self.client.get_paginator("list_objects_v2").paginate(
                Bucket=self.bucket, Prefix=prefix, Delimiter="/"
            )
            found = [entry["Prefix"] for page in pages for entry in page.get("CommonPrefixes", ())]
        return sorted(name.removeprefix(prefix).rstrip("/") for name in found)

    def write_new(self, key: str, source: Path | bytes) -> bool:
        """Writes an object that must not exist; False where one was there first (If-None-Match: *)."""
        if isinstance(source, Path) and source.stat().st_size >= MULTIPART_THRESHOLD:
            return self._won(key, lambda: self._write_parts(key, source))
        if isinstance(source, bytes):
            return self._put(key, source, IfNoneMatch="*")
        with source.open("rb") as file:
            return self._put(key, file, IfNoneMatch="*")

    def replace(self, key: str, body: bytes, etag: str) -> bool:
        """Replaces the object that has this ETag; False where it has another one by now (If-Match)."""
        return self._put(key, body, IfMatch=etag)

    def abort_uploads(self, prefix: str) -> None:
        """Drops the parts of multipart uploads that nobody completed."""
        with self._errors(f"clean up unfinished uploads under {prefix}"):
            page = self.client.list_multipart_uploads(Bucket=self.bucket, Prefix=prefix)
            for upload in page.get("Uploads", ()):
                self._abort(upload["Key"], upload["UploadId"])

    def delete(self, key: str) -> None:
        """Deletes an object; one that is not there is no error."""
        with self._errors(f"delete {key}"):
            self.client.delete_object(Bucket=self.bucket, Key=key)

    def _create_bucket(self) -> None:
        region = self.client.meta.region_name
        where = {} if region == "us-east-1" else {"CreateBucketConfiguration": {"LocationConstraint": region}}
        with self._errors("create the bucket"):
            try:
                self.client.create_bucket(Bucket=self.bucket, **where)
            except self.client.exceptions.BucketAlreadyOwnedByYou:
                # Another process of ours created it between the two requests, which is as good.
                return

    def _list(self, prefix: str) -> Iterator[tuple[str, int]]:
        with self._errors(f"list {prefix}"):
            for page in self.client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=prefix):
                for entry in page.get("Contents", ()):
                    yield entry["Key"], entry["Size"]

    def _put(self, key: str, body: bytes | BinaryIO, **condition: str) -> bool:
        return self._won(
            key,
            lambda: self.client.put_object(
                Bucket=self.bucket, Key=key, Body=body, ChecksumAlgorithm="SHA256", **condition
            ),
        )

    def _won(self, key: str, write: Callable[[], object]) -> bool:
        try:
            with self._errors(f"write {key}"):
                write()
        except RegistryConflictError:
            return False
        return True

    def _write_parts(self, key: str, source: Path) -> None:
        upload = self.client.create_multipart_upload(Bucket=self.bucket, Key=key, ChecksumAlgorithm="SHA256")
        upload_id = upload["UploadId"]
        try:
            parts = self._upload_parts(key, source, upload_id)
            self.client.complete_multipart_upload(
                Bucket=self.bucket,
                Key=key,
                UploadId=upload_id,
                MultipartUpload={"Parts": parts},
                IfNoneMatch="*",
            )
        except BaseException as error:
            self._abort_after(error, key, upload_id)
            raise

    def _upload_parts(self, key: str, source: Path, upload_id: str) -> list[dict[str, Any]]:
        size = source.stat().st_size
        part_bytes = max(PART_BYTES, -(-size // _MAX_PARTS))

        def upload(number: int) -> dict[str, Any]:
            with source.open("rb") as file:
                file.seek((number - 1) * part_bytes)
                answer = self.client.upload_part(
                    Bucket=self.bucket, Key=key, UploadId=upload_id, PartNumber=number,
                    Body=file.read(part_bytes), ChecksumAlgorithm="SHA256",
                )  # fmt: skip
            return {"PartNumber": number, "ETag": answer["ETag"], "ChecksumSHA256": answer["ChecksumSHA256"]}

        pool = ThreadPoolExecutor(_PARALLEL_PARTS)
        try:
            return list(pool.map(upload, range(1, -(-size // part_bytes) + 1)))
        finally:
            # After a failure the parts that have not begun are not worth waiting for.
            pool.shutdown(cancel_futures=True)

    def _abort_after(self, error: BaseException, key: str, upload_id: str) -> None:
        from botocore.exceptions import BotoCoreError, ClientError

        if isinstance(error, BotoCoreError):
            # The server does not answer; a later publish of the same version cleans up.
            return
        try:
            self._abort(key, upload_id)
        except (BotoCoreError, ClientError) as abort_error:
            error.add_note(f"the parts of {key} stay behind: {abort_error}")

    def _abort(self, key: str, upload_id: str) -> None:
        try:
            self.client.abort_multipart_upload(Bucket=self.bucket, Key=key, UploadId=upload_id)
        except self.client.exceptions.NoSuchUpload:
            return

    def _read_attempts(self, key: str, once: Callable[[str], T]) -> T | None:
        from botocore.exceptions import IncompleteReadError, ReadTimeoutError, ResponseStreamingError

        for attempt in range(1, _READ_ATTEMPTS + 1):
            try:
                with self._errors(f"read {key}"):
                    return once(key)
            except RegistryError as error:
                if code(error.__cause__) in MISSING_KEY:
                    return None
                broken = (IncompleteReadError, ReadTimeoutError, ResponseStreamingError)
                if attempt == _READ_ATTEMPTS or not isinstance(error.__cause__, broken):
                    raise
        raise AssertionError("unreachable: the last attempt returns or raises")

    def _read_once(self, key: str) -> StoredObject:
        answer = self.client.get_object(Bucket=self.bucket, Key=key)
        return StoredObject(answer["Body"].read(), answer["ETag"])

    def _digest_once(self, key: str, sink: BinaryIO | None = None) -> Digest:
        sha256, size = hashlib.sha256(), 0
        for block in self.client.get_object(Bucket=self.bucket, Key=key)["Body"].iter_chunks(_BLOCK_BYTES):
            sha256.update(block)
            size += len(block)
            if sink is not None:
                sink.write(block)
        return Digest(sha256.hexdigest(), size)

    def _digest_parts(self, key: str, size: int, sink: BinaryIO) -> Digest | None:
        sha256, written = hashlib.sha256(), 0
        starts = iter(range(0, size, READ_PART_BYTES))
        for part in in_order(lambda start: self._part(key, start, size), starts, _PARALLEL_PARTS):
            if part is None:
                return None
            for block in part:
                sha256.update(block)
                sink.write(block)
                written += len(block)
        return Digest(sha256.hexdigest(), written)

    def _part(self, key: str, start: int, size: int) -> list[bytes] | None:
        wanted = f"bytes={start}-{min(start + READ_PART_BYTES, size) - 1}"

        def once(name: str) -> list[bytes]:
            try:
                answer = self.client.get_object(Bucket=self.bucket, Key=name, Range=wanted)
            except self.client.exceptions.ClientError as error:
                if code(error) in CUT_OBJECT:
                    return []
                raise
            return list(answer["Body"].iter_chunks(_BLOCK_BYTES))

        return self._read_attempts(key, once)

    def _errors(self, action: str) -> AbstractContextManager[None]:
        return explained(action, self._where())

    def _where(self) -> str:
        return f"bucket {self.bucket!r} at {self.endpoint}"
