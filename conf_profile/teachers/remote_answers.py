"""Paid answers outlive the machine: a folder of kept answers that is copied to an object store as it grows.

    PREFIX/FILE/OFFSET-ATTEMPT    the lines that a writer's FILE grew by, OFFSET bytes after its beginning; an ATTEMPT
                                  whose reply was lost may have stored them too, and repeated lines do no harm

A step that starts on an empty disk fetches what its writer and others have kept, appends locally as ever, and what is
new is uploaded every few seconds and at the end, also after a failure. Nobody changes an object but an erasure. Whoever
is killed loses the answers of the last seconds, nothing else. Parts that have expired, or lost somebody's lines, leave
a gap, and what comes after them keeps its place.
"""

from __future__ import annotations

import logging
import tempfile
import threading
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from fnmatch import fnmatch
from pathlib import Path

from conf_profile.errors import RegistryError
from conf_profile.storage import object_store
from conf_profile.storage.object_address import is_remote
from conf_profile.storage.object_store import ObjectStore
from conf_profile.teachers.answers import file_name

SECONDS_BETWEEN_UPLOADS = 10.0
_PARALLEL_DOWNLOADS = 8
_log = logging.getLogger(__name__)


@contextmanager
def folder_of(place: str | Path, fingerprint: str, writer: str, unrelated: str) -> Iterator[Path]:
    """The folder to open an `AnswerStore` on: `place` itself, or a copy of it where it is an s3:// address.

    The other arguments are the store's. RegistryError where the object store cannot be read, or not be written at
    the end.
    """
    if not is_remote(str(place)):
        yield Path(place)
        return
    store, prefix = object_store.open_location(str(place), create=True)
    with tempfile.TemporaryDirectory(prefix="answers-") as temporary:
        folder = Path(temporary)
        _fetch(store, prefix, folder, fingerprint, writer, unrelated)
        upload = _Upload(store, prefix, folder / file_name(fingerprint, writer))
        try:
            yield folder
        finally:
            upload.finish()


def _fetch(store: ObjectStore, prefix: str, folder: Path, fingerprint: str, writer: str, unrelated: str) -> None:
    """Joins the parts of every file that the store will read: this writer's own, and those of other divisions."""
    own, others = file_name(fingerprint, writer), file_name(fingerprint, unrelated)
    for name in store.folders(f"{prefix}/" if prefix else ""):
        if fnmatch(name, file_name(fingerprint, "*")) and (name == own or not fnmatch(name, others)):
            _join(store, _join_key(prefix, name), folder / name)


def _join(store: ObjectStore, prefix: str, target: Path) -> None:
    # Of two attempts at one offset the longer one holds the later lines, and of a spending the last line counts.
    parts = sorted(store.sizes(f"{prefix}/").items(), key=lambda part: (part[0].rpartition("-")[0], part[1]))
    with tempfile.TemporaryDirectory(dir=target.parent) as folder, ThreadPoolExecutor(_PARALLEL_DOWNLOADS) as pool:
        paths = [Path(folder) / str(number) for number in range(len(parts))]
        list(pool.map(lambda part, path: store.download(part[0], path, part[1]), parts, paths))
        with target.open("wb") as out:
            for path in paths:
                out.write(path.read_bytes())


class _Upload:
    """Copies what a growing file gains, in a thread of its own, until `finish`."""

    def __init__(self, store: ObjectStore, prefix: str, path: Path) -> None:
        self._store = store
        self._prefix = _join_key(prefix, path.name)
        self._path = path
        self._done = path.stat().st_size if path.exists() else 0
        # Not the local length where parts have expired or lost somebody's lines: what is new must sort behind them.
        self._gap = max(0, _end(store, self._prefix) - self._done)
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def finish(self) -> None:
        """Stops the thread and uploads the rest; RegistryError where that cannot be done."""
        self._stopped.set()
        self._thread.join()
        self._upload()

    def _run(self) -> None:
        while not self._stopped.wait(SECONDS_BETWEEN_UPLOADS):
            try:
                self._upload()
            except RegistryError as error:
                _log.warning("kept answers are not copied yet, the next try follows: %s", error)

    def _upload(self) -> None:
        lines = self._new_lines()
        if not lines:
            return
        # A name of its own for each attempt: under an earlier one, whose reply was lost, fewer lines may be stored.
        key = f"{self._prefix}/{self._done + self._gap:015d}-{uuid.uuid4().hex[:12]}"
        if not self._store.write_new(key, lines) and self._store.size(key) != len(lines):
            raise RegistryError(f"s3://{self._store.bucket}/{key}: is refused, and is not there; run again")
        self._done += len(lines)

    def _new_lines(self) -> bytes:
        if not self._path.exists():
            return b""
        with self._path.open("rb") as file:
            file.seek(self._done)
            new = file.read()
        return new[: new.rfind(b"\n") + 1]


def _end(store: ObjectStore, prefix: str) -> int:
    """Where the last part ends, in bytes after the file's beginning."""
    parts = store.sizes(f"{prefix}/").items()
    return max((int(key.rpartition("/")[2].partition("-")[0]) + size for key, size in parts), default=0)


def _join_key(prefix: str, name: str) -> str:
    return f"{prefix}/{name}" if prefix else name
