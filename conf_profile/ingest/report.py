"""What an ingestion has read, left out and changed: counted in `ingest.json`, and said in words.

No id and no text of anybody stands in it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from conf_profile.files import write_text

REPORT = "ingest.json"


@dataclass(frozen=True)
class Note:
    """How often something was so; `first` is the first place of it (file and row, counted from 0), where known."""

    what: str
    count: int
    first: str = ""

    def __str__(self) -> str:
        return f"{self.what}: {self.count:,}" + (f" (first: {self.first})" if self.first else "")


@dataclass
class Report:
    """Filled while the ingestion goes on. Texts are keyphrases: a row has one, or a list of them."""

    files: int = 0
    file_bytes: int = 0
    rows: int = 0
    texts: int = 0
    dropped: list[Note] = field(default_factory=list)
    changed: list[Note] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    features: dict[str, dict[str, Any]] = field(default_factory=dict)
    users: int = 0
    users_known: int = 0
    users_in_both: int = 0
    users_with_consent: int = 0
    labels: int = 0
    labelled_users: int = 0
    snapshots: int = 0
    texts_written: int = 0
    first_event: str = ""
    last_event: str = ""
    seconds: float = 0.0

    def drop(self, what: str, count: int, first: str = "") -> None:
        """Notes what was left out, if anything was."""
        if count:
            self.dropped.append(Note(what, count, first))

    def change(self, what: str, count: int) -> None:
        """Notes what was written otherwise than it stood there, if anything was."""
        if count:
            self.changed.append(Note(what, count))

    def write(self, folder: Path) -> None:
        """The file `ingest.json`."""
        write_text(folder / REPORT, json.dumps(asdict(self), indent=2, ensure_ascii=False) + "\n")

    def lines(self) -> Iterator[str]:
        """The same for a reader."""
        yield f"read     {_plural(self.files, 'file')}, {_plural(self.rows, 'row')}, {_plural(self.texts, 'text')}"
        yield from (f"dropped  {note}" for note in self.dropped)
        yield from (f"changed  {note}" for note in self.changed)
        for name, feature in self.features.items():
            words = " and ".join(map(repr, feature["from"]))
            yield f"feature  {name} ({feature['type']}) from {words}: {feature['values']:,} values"
        yield f"events   {self.first_event} to {self.last_event}"
        both = f", {self.users_in_both:,} of whom are among the users" if self.users_known else ""
        yield (
            f"written  {_plural(self.snapshots, 'snapshot')} of {_plural(self.users, 'user')} with events "
            f"({_plural(self.texts_written, 'text')}){both}; {_plural(self.users_with_consent, 'user')} with consent"
        )
        if self.labels:
            yield f"labels   {_plural(self.labels, 'label')} of {_plural(self.labelled_users, 'user')}"
        yield from (f"warning  {warning}" for warning in self.warnings)


def _plural(count: int, noun: str) -> str:
    return f"{count:,} {noun}" + ("" if count == 1 else "s")
