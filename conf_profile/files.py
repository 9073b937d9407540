"""Files and folders that appear whole or not at all.

What is written has a temporary name beside its own until it is whole, and is renamed then: a reader never sees half of
it, and a full disk leaves the old one in place. Nothing is imported but the standard library, since the images are
built by a bare Python.
"""

from __future__ import annotations

import errno
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from conf_profile.errors import ConfProfileError, DataError


@contextmanager
def atomic_path(final: Path, one_writer: bool = False, error: type[ConfProfileError] = DataError) -> Iterator[Path]:
    """A temporary path beside `final`, renamed to it on success and removed on failure.

    Several may write at once, and the last one wins. With `one_writer` the temporary name is always the same, so that
    what a killed writer has left goes. An OSError of the block becomes an `error`, which names the file.
    """
    temporary = final.with_name(f".{final.name}.tmp") if one_writer else _temporary_name(final)
    try:
        final.parent.mkdir(parents=True, exist_ok=True)
        temporary.unlink(missing_ok=True)
        yield temporary
        temporary.replace(final)
    except OSError as problem:
        raise error(f"{final}: cannot be written: {problem.strerror or problem}; nothing was changed") from problem
    finally:
        with suppress(OSError):  # nothing to remove where nothing could be made
            temporary.unlink()


@contextmanager
def atomic_folder(final: Path, replace: bool = False) -> Iterator[Path]:
    """A temporary folder beside `final`, renamed to it on success and removed on failure.

    With `replace` an older folder of that name goes. Without it, FileExistsError where somebody else has filled it
    meanwhile. Any other OSError passes through: what cannot be written is the caller's to say.
    """
    temporary = _temporary_name(final)
    temporary.mkdir(parents=True)
    try:
        yield temporary
        if replace and final.exists():
            shutil.rmtree(final)
        _rename(temporary, final)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def write_text(path: Path, text: str, private: bool = False, error: type[ConfProfileError] = DataError) -> None:
    """Writes a text file whole or not at all; with `private`, one that its owner alone can read."""
    with atomic_path(path, error=error) as temporary:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600 if private else 0o666)
        with os.fdopen(descriptor, "w", encoding="utf-8") as out:
            out.write(text)


def is_temporary(path: Path) -> bool:
    """Whether a name is one under which something is being written, or was when its writer was killed."""
    return path.name.startswith(".") and path.suffix == ".tmp"


def leftovers(folder: Path, pattern: str) -> Iterator[Path]:
    """Temporary files of files whose names match the pattern; where nobody is writing, killed writers left them."""
    return folder.glob(f".{pattern}.*.tmp")


def _temporary_name(final: Path) -> Path:
    return final.with_name(f".{final.name}.{uuid.uuid4().hex}.tmp")


def _rename(temporary: Path, final: Path) -> None:
    try:
        temporary.rename(final)
    except OSError as problem:
        if problem.errno == errno.ENOTEMPTY:  # Linux says this of a folder that is there
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(final)) from problem
        raise
