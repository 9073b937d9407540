"""Where the texts, their human ratings and the word list come from: the source distribution of vaderSentiment.

pip fetches it into a cache. Its SHA-256 is pinned and checked before anything of it is opened or run. The
members are read in memory: nothing is unpacked. What they mean for this benchmark is `build.py`'s business.
"""

from __future__ import annotations

import hashlib
import io
import logging
import subprocess
import sys
import tarfile
import tempfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from conf_profile.errors import DataError
from conf_profile.files import atomic_path

logger = logging.getLogger(__name__)

SDIST = "vaderSentiment==3.3.2"
SDIST_FILE = "vaderSentiment-3.3.2.tar.gz"
SDIST_SHA256 = "5d7c06e027fc8b99238edb0d53d970cf97066ef97654009890b83703849632f9"
LICENCE = "MIT (vaderSentiment, copyright 2016 C.J. Hutto); the texts are sentences of public reviews"
LEXICON_MEMBER = "vaderSentiment-3.3.2/vaderSentiment/vader_lexicon.txt"
ARCHIVE_MEMBER = "vaderSentiment-3.3.2/additional_resources/hutto_ICWSM_2014.tar.gz"
TEXT_MEMBERS = {
    "movie": "hutto_ICWSM_2014/movieReviewSnippets_GroundTruth.txt",
    "amazon": "hutto_ICWSM_2014/amazonReviewSnippets_GroundTruth.txt",
}
"""Kind of text -> its member of the inner archive. Editorials and tweets are left out: one task, reviews."""
GREATEST_VALENCE = 4.0
"""Ratings and valences lie between minus this and this."""
_MANUAL_DOWNLOAD = f"get {SDIST_FILE} from a Python package index by hand and give it with --source"


@dataclass(frozen=True)
class Snippet:
    """One text and the mean of its human ratings, -4 to 4. `text_id` is unique, such as 'movie-17'."""

    text_id: str
    rating: float
    text: str


@dataclass(frozen=True)
class Vader:
    """Everything that is read. `valences` are (token, mean valence from -4 to 4), as published; tokens recur."""

    snippets: tuple[Snippet, ...]
    valences: tuple[tuple[str, float], ...]


def read(source: Path | None, cache: Path, sha256: str = SDIST_SHA256) -> Vader:
    """Reads the source distribution, fetched into `cache` first where no `source` is given.

    DataError names the file, the member and the line that are wrong, or says how to get the file by hand.
    """
    path = fetch(cache) if source is None else source
    outer = _members(_read_verified(path, sha256), (LEXICON_MEMBER, ARCHIVE_MEMBER), str(path))
    texts = _members(outer[ARCHIVE_MEMBER], tuple(TEXT_MEMBERS.values()), f"{path}: {ARCHIVE_MEMBER}")
    snippets = (snippet for kind, member in TEXT_MEMBERS.items() for snippet in _snippets(kind, texts[member], member))
    return Vader(tuple(snippets), tuple(_valences(outer[LEXICON_MEMBER])))


def fetch(cache: Path) -> Path:
    """The source distribution in the cache; pip downloads it the first time."""
    path = cache / "sentiment" / SDIST_FILE
    if not path.is_file():
        logger.info("fetching %s (2.5 MB) into %s. %s", SDIST, path.parent, LICENCE)
        with tempfile.TemporaryDirectory() as temporary, atomic_path(path) as target:
            target.write_bytes(_download(Path(temporary)).read_bytes())
    return path


def _download(folder: Path) -> Path:
    """pip asks a source distribution's setup.py for metadata, so the hash is given: pip checks it before that."""
    requirements = folder / "requirements.txt"
    requirements.write_text(f"{SDIST} --hash=sha256:{SDIST_SHA256}\n", encoding="utf-8")
    try:
        result = subprocess.run(_command(requirements), capture_output=True, text=True, timeout=300, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise DataError(f"pip could not fetch {SDIST}: {error}; {_MANUAL_DOWNLOAD}") from error
    if result.returncode or not (folder / SDIST_FILE).is_file():
        reason = (result.stderr.strip().splitlines() or ["no message"])[-1]
        raise DataError(f"pip could not fetch {SDIST}: {reason}; {_MANUAL_DOWNLOAD}")
    return folder / SDIST_FILE


def _command(requirements: Path) -> list[str]:
    """Without build isolation the environment's own setuptools answers, and pip downloads nothing else."""
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
    kind = ["--no-deps", "--no-binary", "vaderSentiment", "--no-build-isolation", "--require-hashes"]
    return [*pip, *kind, "--dest", str(requirements.parent), "--requirement", str(requirements)]


def _read_verified(path: Path, sha256: str) -> bytes:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}; {_MANUAL_DOWNLOAD}") from error
    if hashlib.sha256(data).hexdigest() != sha256:
        raise DataError(
            f"{path}: is not the published {SDIST_FILE} (its SHA-256 differs); delete it, or {_MANUAL_DOWNLOAD}"
        )
    return data


def _members(data: bytes, names: tuple[str, ...], where: str) -> dict[str, bytes]:
    """Member name -> content, of a gzipped tar archive in memory."""
    try:
        with tarfile.open(fileobj=io.BytesIO(data), mode="r:gz") as archive:
            return {name: _member(archive, name, where) for name in names}
    except (tarfile.TarError, OSError, EOFError, zlib.error) as error:
        raise DataError(f"{where}: cannot be read as a gzipped tar archive: {error}") from error


def _member(archive: tarfile.TarFile, name: str, where: str) -> bytes:
    try:
        file = archive.extractfile(name)
    except KeyError:
        file = None
    if file is None:
        raise DataError(f"{where}: lacks the file {name}")
    return file.read()


def _snippets(kind: str, data: bytes, member: str) -> Iterator[Snippet]:
    for where, fields in _lines(data, member):
        if len(fields) != 3:
            raise DataError(f"{where} has {len(fields)} fields, expected id, rating and text")
        number, rating, text = fields
        yield Snippet(f"{kind}-{number}", _number(rating, where), text)


def _valences(data: bytes) -> Iterator[tuple[str, float]]:
    for where, fields in _lines(data, LEXICON_MEMBER):
        if len(fields) < 2:
            raise DataError(f"{where} has one field, expected token and valence")
        yield fields[0], _number(fields[1], where)


def _lines(data: bytes, member: str) -> Iterator[tuple[str, list[str]]]:
    """(place for messages, fields) of each line that is not blank."""
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"{member}: is not UTF-8: {error}") from error
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            yield f"{member}: line {number}", line.rstrip("\r").split("\t")


def _number(text: str, where: str) -> float:
    try:
        number = float(text)
    except ValueError as error:
        raise DataError(f"{where}: {text!r} is no number") from error
    # A comparison with NaN is false, so NaN is refused too.
    if not -GREATEST_VALENCE <= number <= GREATEST_VALENCE:
        raise DataError(f"{where}: {text!r} lies outside -4 to 4")
    return number
