"""One bucket of an S3 server: conditional writes, streaming reads with their hash, errors that help.

Knows nothing of models; `registry` gives the keys their meaning. Every write is conditional and carries a
SHA-256 checksum, so the server refuses a body that was damaged on its way. It stands in a header, never in a trailer,
which many servers do not know; AWS_REQUEST_CHECKSUM_CALCULATION=when_required leaves it out, and the signature, which
covers the body, remains. Retries are botocore's standard
mode, bounded; a read that breaks in the middle starts again. Where the environment gives a budget (`transient`), what
passes by itself is tried again beyond that. A write that was sent more than once and then finds an object there counts
as done if that object is what was written: its first reply was lost.

Large objects are written in parts here, since no library does that on a condition: s3transfer 0.19, behind boto3's
upload_file, passes no If-None-Match on, and obstore's multipart uploads always overwrite.
"""

from __future__ import annotations

import base64
import hashlib
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, TypeVar
from urllib.parse import urlsplit

from conf_profile.config import DEFAULT_BUCKET
from conf_profile.errors import RegistryConflictError, RegistryError
from conf_profile.storage import encryption as uploads_encryption
from conf_profile.storage import object_address
from conf_profile.storage.object_address import REGION
from conf_profile.storage.object_errors import (
    CUT_OBJECT,
    MISSING_KEY,
    UNKNOWN_REQUEST,
    code,
    explain_errors,
    transient_cause,
    was_repeated,
)
from conf_profile.storage.object_parts import fetch_in_order
from conf_profile.transient import Outage, retry_seconds

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
_log = logging.getLogger(__name__)

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


def connect(
    bucket: str,
    endpoint: str | None = None,
    region: str | None = None,
    encryption: str | None = None,
    access_key: str | None = None,
    secret_key: str | None = None,
) -> ObjectStore:
    """A bucket at the given endpoint, else the environment's; nothing is asked of the server yet.

    RegistryError where no endpoint is named, and at Amazon for the bucket that nobody has chosen.
    """
    found = object_address.find_endpoint(endpoint)
    if found == object_address.AWS and bucket == DEFAULT_BUCKET:
        raise RegistryError(
            f"bucket {bucket!r} at Amazon's S3: all its customers share the names of buckets, and this one is not "
            "yours; name your own (storage.bucket, on a cluster s3.bucket)"
        )
    wanted = object_address.find_region(region)
    return ObjectStore(s3_client(found, wanted, access_key, secret_key, encryption=encryption), bucket)


def open_location(uri: str, create: bool = False) -> tuple[ObjectStore, str]:
    """The bucket of `s3://BUCKET/PREFIX[?endpoint=URL&region=NAME]`, and the prefix without slashes around it.

    `create` makes a missing bucket. RegistryError for another form, and where the server cannot be reached.
    """
    store, prefix = locate(uri)
    store.ensure_bucket(create)
    return store, prefix


def locate(uri: str, access_key: str | None = None, secret_key: str | None = None) -> tuple[ObjectStore, str]:
    """As `open_location`, without a look into the bucket: keys that may read one object may not list all."""
    place = object_address.parse(uri)
    store = connect(place.bucket, place.endpoint, place.region, place.encryption, access_key, secret_key)
    return store, place.key


def s3_client(
    endpoint: str,
    region: str,
    access_key: str | None = None,
    secret_key: str | None = None,
    attempts: int = 4,
    read_timeout: float = 60.0,
    encryption: str | None = None,
) -> Any:
    """A boto3 client; without keys boto3 finds them in the environment, the profile or the machine's role.

    `endpoint` is a URL, or `aws`: then boto3 finds it, too. Without a region the profile's is used. RegistryError where
    boto3 cannot use its settings.
    """
    from botocore.exceptions import BotoCoreError

    try:
        client = _make_client(endpoint, region, access_key, secret_key, attempts, read_timeout)
    except (BotoCoreError, ValueError) as error:
        raise RegistryError(
            f"the store at {endpoint} cannot be used: {error}; correct the endpoint, or AWS's variables and profile"
        ) from error
    # Not of the environment where the keys are given: they are another store's.
    if text := encryption or ("" if access_key else uploads_encryption.find(None)):
        uploads_encryption.encrypt_uploads(client, text)
    return client


def _make_client(
    endpoint: str, region: str, access_key: str | None, secret_key: str | None, attempts: int, read_timeout: float
) -> Any:
    import boto3
    from botocore.config import Config

    is_amazon = endpoint == object_address.AWS
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
        s3={"addressing_style": "auto" if is_amazon or "amazonaws.com" in endpoint else "path"},
    )
    # Not the default session: it would keep the keys that the process first had.
    session = boto3.session.Session()
    return session.client(
        "s3", endpoint_url=None if is_amazon else endpoint, region_name=region or session.region_name or REGION,
        config=config, aws_access_key_id=access_key, aws_secret_access_key=secret_key,
    )  # fmt: skip


def digest_of(source: Path | bytes) -> Digest:
    """Hash and size of a file or of bytes."""
    if isinstance(source, bytes):
        return Digest(hashlib.sha256(source).hexdigest(), len(source))
    with source.open("rb") as file:
        return Digest(hashlib.file_digest(file, "sha256").hexdigest(), source.stat().st_size)


class ObjectStore:
    """One bucket. Every method raises RegistryError with the cause and the remedy.

    Threads may share it: they wait together for a server that is away, see `transient`.
    """

    def __init__(self, client: Any, bucket: str, seconds: float | None = None) -> None:
        self.client = client
        self.bucket = bucket
        self.endpoint = str(client.meta.endpoint_url)
        self._sends_checksums = client.meta.config.request_checksum_calculation != "when_required"
        self._outage = Outage(self._location(), retry_seconds() if seconds is None else seconds)

    def without_retries(self) -> ObjectStore:
        """The same bucket for what can be left out: a server that is away is told at once."""
        return ObjectStore(self.client, self.bucket, 0)

    def request(self, action: str, once: Callable[[], T]) -> T:
        """What `once` does with the client, for a request that may be repeated: explained, and tried again.

        `action` completes "cannot ..." in messages and in the log.
        """

        def call_explained() -> T:
            with explain_errors(action, self._location()):
                return once()

        return self._outage.call(action, call_explained, transient_cause)

    def ensure_bucket(self, create: bool) -> None:
        """Checks address, keys and bucket with one request; makes a missing bucket if `create`."""
        try:
            self.request("list the objects", lambda: self.client.list_objects_v2(Bucket=self.bucket, MaxKeys=1))
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

        def download_once(name: str) -> Digest:
            with target.open("wb") as file:
                return self._digest_once(name, file)

        if size <= READ_PART_BYTES:
            return self._read_attempts(key, download_once)
        with target.open("wb") as file:
            return self._digest_parts(key, size, file)

    def etag(self, key: str) -> str | None:
        """What changes whenever the object's content does, or None where there is no object."""
        return self._read_attempts(key, lambda name: str(self.client.head_object(Bucket=self.bucket, Key=name)["ETag"]))

    def size(self, key: str) -> int | None:
        """Bytes of an object, or None where there is none."""

        def read_size(name: str) -> int:
            return int(self.client.head_object(Bucket=self.bucket, Key=name)["ContentLength"])

        return self._read_attempts(key, read_size)

    def sizes(self, prefix: str) -> dict[str, int]:
        """Key -> bytes of all objects under a prefix."""
        return dict(self._list(prefix))

    def folders(self, prefix: str) -> list[str]:
        """The names directly under `prefix` (which ends with a slash), sorted."""
        found = [entry["Prefix"] for page in self._pages(prefix, "/") for entry in page.get("CommonPrefixes", ())]
        return sorted(name.removeprefix(prefix).rstrip("/") for name in found)

    def write_new(self, key: str, source: Path | bytes) -> bool:
        """Writes an object that must not exist; False where another one was there first (If-None-Match: *)."""
        return self._write(key, source, IfNoneMatch="*")

    def replace(self, key: str, source: Path | bytes, etag: str) -> bool:
        """Replaces the object that has this ETag; False where it has another one by now (If-Match)."""
        return self._write(key, source, IfMatch=etag)

    def abort_uploads(self, prefix: str) -> None:
        """Drops the parts of multipart uploads that nobody completed, where the server can list them."""

        def abort_once() -> None:
            page = self.client.list_multipart_uploads(Bucket=self.bucket, Prefix=prefix)
            for upload in page.get("Uploads", ()):
                self._abort(upload["Key"], upload["UploadId"])

        try:
            self.request(f"clean up unfinished uploads under {prefix}", abort_once)
        except RegistryError as error:
            if code(error.__cause__) not in UNKNOWN_REQUEST:
                raise
            _log.info("%s: %s", prefix, error)

    def delete(self, key: str) -> None:
        """Deletes the object; nothing happens where there is none."""
        self.request(f"delete {key}", lambda: self.client.delete_object(Bucket=self.bucket, Key=key))

    def _create_bucket(self) -> None:
        region = self.client.meta.region_name
        where = {} if region == "us-east-1" else {"CreateBucketConfiguration": {"LocationConstraint": region}}

        def create_once() -> None:
            try:
                self.client.create_bucket(Bucket=self.bucket, **where)
            except self.client.exceptions.BucketAlreadyOwnedByYou:
                # Another process of ours created it between the two requests, which is as good.
                return

        self.request("create the bucket", create_once)

    def _list(self, prefix: str) -> Iterator[tuple[str, int]]:
        for page in self._pages(prefix):
            for entry in page.get("Contents", ()):
                yield entry["Key"], entry["Size"]

    def _pages(self, prefix: str, delimiter: str = "") -> Iterator[dict[str, Any]]:
        """The pages of a listing; one that is lost is asked for again, not those before it."""
        options = {"Prefix": prefix, **({"Delimiter": delimiter} if delimiter else {})}
        while True:
            asked = partial(self.client.list_objects_v2, Bucket=self.bucket, **options)
            page: dict[str, Any] = self.request(f"list {prefix}", asked)
            yield page
            if not page.get("IsTruncated"):
                return
            options["ContinuationToken"] = page["NextContinuationToken"]

    def _write(self, key: str, source: Path | bytes, **condition: str) -> bool:
        if isinstance(source, Path) and source.stat().st_size >= MULTIPART_THRESHOLD:
            return self._write_parts(key, source, **condition)
        return self._put(key, source, **condition)

    def _put(self, key: str, source: Path | bytes, **condition: str) -> bool:
        checksum = self._checksum(source)

        def put(body: bytes | BinaryIO) -> None:
            self.client.put_object(Bucket=self.bucket, Key=key, Body=body, **checksum, **condition)

        def write() -> None:
            if isinstance(source, bytes):
                return put(source)
            # Opened for each try: the one before has read some of it.
            with source.open("rb") as file:
                put(file)

        return self._write_if_absent(key, source, write)

    def _write_if_absent(self, key: str, source: Path | bytes, write: Callable[[], None]) -> bool:
        """Whether a conditional write has put `source` there, in whichever of its tries."""
        tries = 0

        def write_once() -> None:
            nonlocal tries
            tries += 1
            write()

        try:
            self.request(f"write {key}", write_once)
        except RegistryConflictError as error:
            return (tries > 1 or was_repeated(error)) and self.digest(key) == digest_of(source)
        return True

    def _checksum(self, source: Path | bytes) -> dict[str, str]:
        """boto3's parameter with the checksum of a body. Left to boto3, it would follow the body over HTTPS."""
        if not self._sends_checksums:
            return {}
        return {"ChecksumSHA256": base64.b64encode(bytes.fromhex(digest_of(source).sha256)).decode()}

    def _write_parts(self, key: str, source: Path, **condition: str) -> bool:
        algorithm = {"ChecksumAlgorithm": "SHA256"} if self._sends_checksums else {}
        try:
            upload = self.request(
                f"write {key}",
                lambda: self.client.create_multipart_upload(Bucket=self.bucket, Key=key, **algorithm),
            )
            return self._complete(key, source, upload["UploadId"], **condition)
        except RegistryConflictError:
            return False

    def _complete(self, key: str, source: Path, upload_id: str, **condition: str) -> bool:
        try:
            parts = self._upload_parts(key, source, upload_id)
            complete = partial(
                self.client.complete_multipart_upload, Bucket=self.bucket, Key=key, UploadId=upload_id,
                MultipartUpload={"Parts": parts}, **condition,
            )  # fmt: skip
            won = self._write_if_absent(key, source, complete)
        except BaseException as error:
            self._abort_after(error, key, upload_id)
            raise
        if not won:
            self.request(f"clean up after {key}", lambda: self._abort(key, upload_id))
        return won

    def _upload_parts(self, key: str, source: Path, upload_id: str) -> list[dict[str, Any]]:
        size = source.stat().st_size
        part_bytes = max(PART_BYTES, -(-size // _MAX_PARTS))

        def upload(number: int) -> dict[str, Any]:
            with source.open("rb") as file:
                file.seek((number - 1) * part_bytes)
                body = file.read(part_bytes)
            checksum = self._checksum(body)
            answer = self.request(
                f"write part {number} of {key}",
                lambda: self.client.upload_part(
                    Bucket=self.bucket, Key=key, UploadId=upload_id, PartNumber=number, Body=body, **checksum
                ),
            )
            # A server that returns none has kept none, and may not know the field.
            kept = {name: answer[name] for name in checksum if name in answer}
            return {"PartNumber": number, "ETag": answer["ETag"], **kept}

        numbers = iter(range(1, -(-size // part_bytes) + 1))
        return list(fetch_in_order(upload, numbers, _PARALLEL_PARTS))

    def _abort_after(self, error: BaseException, key: str, upload_id: str) -> None:
        from botocore.exceptions import BotoCoreError, ClientError

        if transient_cause(error):
            # The server is away; a later publish of the same version cleans up.
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
        return self._outage.call(f"read {key}", lambda: self._read_quickly(key, once), transient_cause)

    def _read_quickly(self, key: str, once: Callable[[str], T]) -> T | None:
        """A few tries at once where the body breaks on its way."""
        from botocore.exceptions import IncompleteReadError, ReadTimeoutError, ResponseStreamingError

        for attempt in range(1, _READ_ATTEMPTS + 1):
            try:
                with explain_errors(f"read {key}", self._location()):
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
        for part in fetch_in_order(lambda start: self._part(key, start, size), starts, _PARALLEL_PARTS):
            if part is None:
                return None
            for block in part:
                sha256.update(block)
                sink.write(block)
                written += len(block)
        return Digest(sha256.hexdigest(), written)

    def _part(self, key: str, start: int, size: int) -> list[bytes] | None:
        wanted = f"bytes={start}-{min(start + READ_PART_BYTES, size) - 1}"

        def read_part(name: str) -> list[bytes]:
            try:
                answer = self.client.get_object(Bucket=self.bucket, Key=name, Range=wanted)
            except self.client.exceptions.ClientError as error:
                if code(error) in CUT_OBJECT:
                    return []
                raise
            return list(answer["Body"].iter_chunks(_BLOCK_BYTES))

        return self._read_attempts(key, read_part)

    def _location(self) -> str:
        return f"bucket {self.bucket!r} at {self.endpoint}"
