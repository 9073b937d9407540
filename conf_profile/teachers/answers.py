"""Paid answers are kept: each completion is on disk the moment it arrives, and none is asked for twice.

A store is a folder of append-only JSONL files. A file's name holds a hash of the teacher's fingerprint and
the name of its one writer (a shard); the store reads the files of all writers and appends to its own. An
answer is found by user, sample and a hash of the prompt, so a changed prompt is asked again. Texts stay on
disk, memory holds one small entry for each answer. Between the answers stands what they have cost so far.

It knows nothing of the answers' form: a malformed one is kept like any other.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Protocol, cast

from filelock import lock_descriptor

from conf_profile.dialogue.prompts import Message
from conf_profile.errors import TeacherError
from conf_profile.files import atomic_path, leftovers
from conf_profile.teachers.protocol import Completion, Request, Teacher

SECONDS_BETWEEN_SYNCS = 1.0
_ANSWER = frozenset({"user_id", "sample", "prompt", "text"})
_SPENDING_KEYS = frozenset({"spent", "job"})
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class AskCounts:
    """How many completions were asked for and arrived, and how many had been kept before."""

    asked: int
    kept_before: int


class Watcher(Protocol):
    """Somebody who is told what arrives, and may stop the asking by an exception."""

    def begin(self, kept: int) -> None:
        """So many completions had been kept before."""
        ...

    def add(self, messages: Sequence[Message], completion: Completion) -> None:
        """A completion has arrived and is kept; `messages` are its prompt."""
        ...


async def ask(
    teacher: Teacher, requests: Sequence[Request], store: AnswerStore, watcher: Watcher | None = None
) -> AskCounts:
    """Asks the teacher for every sample that the store lacks; returns when all of them are kept.

    Raises TeacherError when the teacher cannot go on or the disk is full; what had arrived stays kept.
    """
    wanted = sum(len(request.samples) for request in requests)
    missing = [replace(request, samples=samples) for request in requests if (samples := store.missing_samples(request))]
    kept_before = wanted - sum(len(request.samples) for request in missing)
    if watcher:
        watcher.begin(kept_before)
    if not missing:
        return AskCounts(0, kept_before)
    arrived = await _keep_all(teacher, missing, store, watcher)
    return AskCounts(arrived, kept_before)


async def _keep_all(teacher: Teacher, missing: Sequence[Request], store: AnswerStore, watcher: Watcher | None) -> int:
    open_samples = {request.user_id: set(request.samples) for request in missing}
    messages = {request.user_id: request.messages for request in missing}
    arrived = 0
    try:
        # Closed explicitly: a teacher must not go on asking after an answer could not be kept.
        async with aclosing(cast(Any, teacher.complete(missing))) as completions:
            async for completion in completions:
                store.keep(messages[completion.user_id], completion)
                open_samples[completion.user_id].discard(completion.sample)
                arrived += 1
                if watcher:
                    watcher.add(messages[completion.user_id], completion)
    finally:
        store.sync()
    _require_complete(open_samples)
    return arrived


def _require_complete(open_samples: dict[str, set[int]]) -> None:
    lacking = sum(map(len, open_samples.values()))
    if lacking:
        raise TeacherError(f"the teacher stopped early: {lacking} answers are missing; run again to ask for them")


class _Place(NamedTuple):
    """Where an answer's line stands; offset and length in bytes."""

    path: Path
    offset: int
    length: int


class AnswerStore:
    """The kept answers of one teacher. Use it as a context manager; one process writes one file."""

    def __init__(self, folder: Path, fingerprint: str, writer: str = "answers", unrelated: str = "") -> None:
        """Opens or creates the store; TeacherError when it cannot be read, written or is in use.

        `writer` names this process's file: letters, digits and dashes. `unrelated` is a pattern of the other
        writers whose files need not be read, since they hold other users. A last line that was cut by a kill
        is removed from the writer's own file and ignored in the files of others.
        """
        self._path = folder / file_name(fingerprint, writer)
        self._places: dict[bytes, _Place] = {}
        self._synced_at = time.monotonic()
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._file = _open_locked(self._path)
        except OSError as error:
            raise self._write_error("opened", error) from error
        try:
            self._begin(fingerprint)
            for path in sorted(folder.glob(file_name(fingerprint, "*"))):
                if path == self._path or not path.match(file_name(fingerprint, unrelated)):
                    self._places.update(_places(path))
        except OSError as error:
            os.close(self._file)
            raise self._write_error("opened", error) from error

    def __enter__(self) -> AnswerStore:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def path(self) -> Path:
        """The file that this process appends to."""
        return self._path

    def __len__(self) -> int:
        return len(self._places)

    def missing_samples(self, request: Request) -> tuple[int, ...]:
        """The request's samples that are not kept for exactly this prompt."""
        prompt = prompt_hash(request.messages)
        return tuple(s for s in request.samples if _key(request.user_id, prompt, s) not in self._places)

    def text(self, user_id: str, messages: Sequence[Message], sample: int) -> str | None:
        """A kept answer's text, or None."""
        place = self._places.get(_key(user_id, prompt_hash(messages), sample))
        if place is None:
            return None
        return str(json.loads(self._line(place))["text"])

    def reason(self, user_id: str, messages: Sequence[Message], sample: int) -> str:
        """Why a kept answer's text is empty or not whole, as `Completion.reason`; empty for any other."""
        place = self._places.get(_key(user_id, prompt_hash(messages), sample))
        return str(json.loads(self._line(place)).get("reason", "")) if place else ""

    def keep(self, messages: Sequence[Message], completion: Completion) -> None:
        """Appends one answer; it survives the process from here on, and a power cut about a second later.

        TeacherError when the disk is full: the answers before it are untouched.
        """
        prompt = prompt_hash(messages)
        place = _Place(self._path, self._end, 0)
        entry = {
            "user_id": completion.user_id,
            "sample": completion.sample,
            "prompt": prompt,
            # A lone surrogate cannot be stored as UTF-8 anywhere downstream.
            "text": completion.text.encode("utf-8", "replace").decode("utf-8"),
            **({"reason": completion.reason} if completion.reason else {}),
        }
        self._keep_line(entry)
        key = _key(completion.user_id, prompt, completion.sample)
        self._places[key] = place._replace(length=self._end - place.offset)

    def read_spent(self, job: str) -> int:
        """The number that this writer kept last for a job, 0 where there is none."""
        with self._path.open("rb") as file:
            found = [entry["spent"] for line in file if (entry := _entry(line)) and entry.get("job") == job]
        return int(found[-1]) if found else 0

    def keep_spent(self, job: str, requests: int) -> None:
        """Appends how many requests a job has cost by now, as lasting as an answer. TeacherError as with `keep`."""
        self._keep_line({"spent": requests, "job": job})

    def sync(self) -> None:
        """Forces everything kept so far onto the disk."""
        try:
            os.fsync(self._file)
        except OSError as error:
            raise self._write_error("written", error) from error
        self._synced_at = time.monotonic()

    def close(self) -> None:
        """Syncs, gives the file free for another writer, and closes."""
        try:
            self.sync()
        finally:
            os.close(self._file)

    def _keep_line(self, entry: dict[str, Any]) -> None:
        try:
            self._append(json.dumps(entry, ensure_ascii=False))
            self._sync_if_due()
        except OSError as error:
            raise self._write_error("written", error) from error

    def _append(self, line: str) -> None:
        data = line.encode() + b"\n"
        try:
            _write_all(self._file, data)
        except OSError:
            os.ftruncate(self._file, self._end)
            raise
        self._end += len(data)

    def _sync_if_due(self) -> None:
        if time.monotonic() - self._synced_at >= SECONDS_BETWEEN_SYNCS:
            self.sync()

    def _begin(self, fingerprint: str) -> None:
        self._end = _drop_cut_line(self._file)
        if self._end == 0:
            self._append(json.dumps({"fingerprint": fingerprint}))

    def _line(self, place: _Place) -> bytes:
        if place.path == self._path:
            return os.pread(self._file, place.length, place.offset)
        with place.path.open("rb") as file:
            file.seek(place.offset)
            return file.read(place.length)

    def _write_error(self, what: str, error: OSError) -> TeacherError:
        return TeacherError(
            f"{self._path}: the teacher's answers cannot be {what}: {error.strerror or error}. "
            "What had been kept is still there; make room or choose another folder, and run again"
        )


def file_name(fingerprint: str, writer: str) -> str:
    """The name of a writer's file; a pattern for the writer gives a pattern for its files."""
    return f"{hashlib.sha256(fingerprint.encode()).hexdigest()[:16]}-{writer}.jsonl"


def kept_texts(folder: Path, fingerprint: str) -> Iterator[str]:
    """The texts of all answers of one teacher in a folder, whoever wrote them."""
    for path in sorted(folder.glob(file_name(fingerprint, "*"))):
        with path.open("rb") as file:
            yield from (str(entry["text"]) for line in file if (entry := _entry(line)) and "text" in entry)


def count_kept(folder: Path, user_id: str) -> int:
    """Answers about this user in all files of a folder, whoever wrote them."""
    return sum(_count(path, user_id) for path in folder.glob("*.jsonl"))


def forget(folder: Path, user_id: str) -> int:
    """Takes the user's answers out of all files of a folder and returns how many there were.

    Each file is replaced as a whole, or not at all. Damaged lines go with them: nobody can tell whose they are.
    TeacherError for a file that somebody is appending to.
    """
    for leftover in leftovers(folder, "*.jsonl"):
        leftover.unlink()
    return sum(_forget(path, user_id) for path in sorted(folder.glob("*.jsonl")))


def count_lines(lines: Iterable[bytes], user_id: str) -> int:
    """Answers about this user among the lines of a file."""
    return sum((_entry(line) or {}).get("user_id") == user_id for line in lines)


def lines_of_others(lines: Iterable[bytes], user_id: str) -> Iterator[bytes]:
    """The lines that may stay when this user is forgotten: no answer of theirs, and none that nobody can read."""
    return (line for line in lines if _may_stay(line, user_id))


def prompt_hash(messages: Iterable[Message]) -> str:
    """32 hexadecimal digits that change whenever a message does."""
    text = json.dumps([[message["role"], message["content"]] for message in messages])
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _key(user_id: str, prompt: str, sample: int) -> bytes:
    return hashlib.blake2b(f"{prompt}/{sample}/{user_id}".encode(), digest_size=16).digest()


def _open_locked(path: Path) -> int:
    """The file that is locked is the one that is written: no other file has to be there, or to go with it."""
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
    if not lock_descriptor(file, blocking=False):
        os.close(file)
        raise TeacherError(
            f"{path}: another process is asking the same teacher for the same shard; wait for it or stop it"
        )
    return file


def _drop_cut_line(file: int) -> int:
    """Truncates the file after its last line end; returns the length that is left, in bytes."""
    end = os.lseek(file, 0, os.SEEK_END)
    kept = end
    while kept > 0:
        start = max(0, kept - 65536)
        line_end = os.pread(file, kept - start, start).rfind(b"\n")
        if line_end >= 0:
            kept = start + line_end + 1
            break
        kept = start
    if kept != end:
        os.ftruncate(file, kept)
    return kept


def _write_all(file: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(file, view) :]


def _places(path: Path) -> Iterator[tuple[bytes, _Place]]:
    """Each kept answer's key and place; the header, cut and damaged lines are passed over."""
    offset = 0
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            entry = _entry(line) if line.endswith(b"\n") else {}
            if entry is None:
                _log.warning("%s: line %d is damaged; its answer is asked for again", path, number)
            elif "text" in entry:
                key = _key(entry["user_id"], entry["prompt"], entry["sample"])
                yield key, _Place(path, offset, len(line))
            offset += len(line)


def _forget(path: Path, user_id: str) -> int:
    lock = _open_locked(path)
    try:
        found = _count(path, user_id)
        with path.open("rb") as file:
            touched = any(not _may_stay(line, user_id) for line in file)
        if touched:
            _copy_others(path, user_id)
        return found
    finally:
        os.close(lock)


def _copy_others(path: Path, user_id: str) -> None:
    with atomic_path(path) as temporary:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with path.open("rb") as file, os.fdopen(descriptor, "wb") as out:
            out.writelines(lines_of_others(file, user_id))
            out.flush()
            os.fsync(out.fileno())


def _count(path: Path, user_id: str) -> int:
    with path.open("rb") as file:
        return count_lines(file, user_id)


def _may_stay(line: bytes, user_id: str) -> bool:
    entry = _entry(line) if line.endswith(b"\n") else None
    return entry is not None and entry.get("user_id") != user_id


def _entry(line: bytes) -> dict[str, Any] | None:
    try:
        entry = json.loads(line)
    except ValueError:
        return None
    if not isinstance(entry, dict):
        return None
    return entry if entry.keys() >= _ANSWER or entry.keys() >= _SPENDING_KEYS or "fingerprint" in entry else None
