"""What a bucket keeps under a prefix, with times and versions: in a versioned bucket also what was replaced or deleted.

For whoever must find everything that is there (an erasure, a sweep of what has expired). Whoever reads models or
tables wants `object_store` alone.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from conf_profile.errors import RegistryError
from conf_profile.storage.object_errors import code, explain_errors
from conf_profile.storage.object_store import ObjectStore

_KEYS_OF_ONE_REQUEST = 1000
"""The most that S3's DeleteObjects takes."""
_UNSUPPORTED_CODES = {"NotImplemented", "MethodNotAllowed", "501", "405"}


@dataclass(frozen=True)
class ObjectVersion:
    """One version of an object, or a mark that it was deleted.

    `version` is None for the current object of a bucket that was never versioned. `size` is in bytes.
    """

    key: str
    etag: str
    size: int
    modified: datetime
    version: str | None = None
    is_latest: bool = True
    is_marker: bool = False


@dataclass(frozen=True)
class UnfinishedUpload:
    """A multipart upload that nobody has completed: its parts are stored, and no reader sees them."""

    key: str
    upload_id: str
    initiated: datetime


def is_versioned(store: ObjectStore) -> bool:
    """Whether the bucket may hold versions that were replaced: versioning is on, or was."""
    try:
        with _errors(store, "ask for the versioning"):
            return bool(store.client.get_bucket_versioning(Bucket=store.bucket).get("Status"))
    except RegistryError as error:
        if code(error.__cause__) in _UNSUPPORTED_CODES:
            return False
        raise


def list_current(store: ObjectStore, prefix: str) -> Iterator[ObjectVersion]:
    """The objects under a prefix as a reader sees them."""
    with _errors(store, f"list {prefix}"):
        for page in store.client.get_paginator("list_objects_v2").paginate(Bucket=store.bucket, Prefix=prefix):
            for entry in page.get("Contents", ()):
                yield ObjectVersion(entry["Key"], entry["ETag"], entry["Size"], entry["LastModified"])


def list_all(store: ObjectStore, prefix: str) -> Iterator[ObjectVersion]:
    """Every version under a prefix, the current ones and marks of deletion among them."""
    with _errors(store, f"list the versions of {prefix}"):
        for page in store.client.get_paginator("list_object_versions").paginate(Bucket=store.bucket, Prefix=prefix):
            for entry in page.get("Versions", ()):
                yield _version(entry, entry["ETag"], entry["Size"])
            for entry in page.get("DeleteMarkers", ()):
                yield _version(entry, "", 0, is_marker=True)


def list_older(store: ObjectStore, prefix: str) -> Iterator[ObjectVersion]:
    """The versions under a prefix that were replaced or deleted, and still are stored."""
    return (found for found in list_all(store, prefix) if not found.is_latest and not found.is_marker)


def delete(store: ObjectStore, versions: Sequence[ObjectVersion]) -> None:
    """Deletes these versions, or the objects where they have none. RegistryError for one that the server keeps."""
    for first in range(0, len(versions), _KEYS_OF_ONE_REQUEST):
        some = versions[first : first + _KEYS_OF_ONE_REQUEST]
        names = [{"Key": one.key} | ({"VersionId": one.version} if one.version else {}) for one in some]
        with _errors(store, f"delete {len(some)} objects"):
            answer = store.client.delete_objects(Bucket=store.bucket, Delete={"Objects": names, "Quiet": True})
        for refused in answer.get("Errors", ()):
            raise RegistryError(
                f"cannot delete {refused['Key']} in bucket {store.bucket!r} at {store.endpoint}: "
                f"{refused.get('Message', '')} ({refused.get('Code', '')}); give this key the right to delete objects "
                "and their versions, and see whether the bucket locks them"
            )


def unfinished_uploads(store: ObjectStore, prefix: str) -> Iterator[UnfinishedUpload]:
    """The multipart uploads under a prefix that nobody has completed."""
    with _errors(store, f"list unfinished uploads under {prefix}"):
        for page in store.client.get_paginator("list_multipart_uploads").paginate(Bucket=store.bucket, Prefix=prefix):
            for entry in page.get("Uploads", ()):
                yield UnfinishedUpload(entry["Key"], entry["UploadId"], entry["Initiated"])


def abort(store: ObjectStore, upload: UnfinishedUpload) -> None:
    """Drops the parts of an upload; one that has ended meanwhile is left alone."""
    with _errors(store, f"drop the unfinished upload of {upload.key}"):
        try:
            store.client.abort_multipart_upload(Bucket=store.bucket, Key=upload.key, UploadId=upload.upload_id)
        except store.client.exceptions.NoSuchUpload:
            return


class ObjectFile(io.RawIOBase):
    """One version of an object as a file that is read where it is asked for, a request for each read.

    RegistryConflictError from a read of an object that was replaced since it was listed.
    """

    def __init__(self, store: ObjectStore, found: ObjectVersion) -> None:
        super().__init__()
        self._store = store
        self._found = found
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._found.size}[whence]
        self._position = base + offset
        return self._position

    def readinto(self, buffer: Any) -> int:
        wanted = max(0, min(len(buffer), self._found.size - self._position))
        if not wanted:
            return 0
        body = self._range(self._position, self._position + wanted)
        buffer[: len(body)] = body
        self._position += len(body)
        return len(body)

    def _range(self, start: int, end: int) -> bytes:
        found = self._found
        which = {"VersionId": found.version} if found.version else {"IfMatch": found.etag}
        with _errors(self._store, f"read {found.key}"):
            answer = self._store.client.get_object(
                Bucket=self._store.bucket, Key=found.key, Range=f"bytes={start}-{end - 1}", **which
            )
            return bytes(answer["Body"].read())


def _version(entry: dict[str, Any], etag: str, size: int, is_marker: bool = False) -> ObjectVersion:
    modified, version = entry["LastModified"], entry.get("VersionId")
    return ObjectVersion(entry["Key"], etag, size, modified, version, entry["IsLatest"], is_marker)


def _errors(store: ObjectStore, action: str) -> AbstractContextManager[None]:
    return explain_errors(action, f"bucket {store.bucket!r} at {store.endpoint}")
