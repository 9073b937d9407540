"""docs/evidence.md and its plots, from the experiments' results and from nothing else.

    python -m benchmarks.evidence.page.page RESULTS DOCS

RESULTS holds a folder for each data set and preset with the files that `conf-profile experiment` wrote. Commentary is
written by hand in DOCS/evidence-notes.md, a section "## NAME" for each experiment ("summary" for the table at the top),
and stands on the page word for word. The same files give the same bytes.

The Parquet files that the page was made from are kept in DOCS/evidence/results: hours of computing, a few kilobytes. So
the page can be made again from what stands beside it, and a test does. Results of another call replace those of the
same experiment and folder; what this call has no results for stays.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.evidence import results
from benchmarks.evidence.command import NAMES
from benchmarks.evidence.page import calls, plots, sections
from benchmarks.evidence.page.calls import EVIDENCE, HOME, PLACES, PLANNED_RUNS
from benchmarks.evidence.page.claims import OUR_CLAIMS, PAPER_CLAIMS, Claim
from benchmarks.evidence.page.findings import FULL_SEEDS
from benchmarks.evidence.page.markdown import NO_VALUE, code, table
from benchmarks.evidence.page.passages import PICTURES, Passage, Study
from benchmarks.evidence.plan import EXPERIMENTS
from benchmarks.evidence.results import Results
from benchmarks.evidence.run import REGIMES
from conf_profile.errors import ConfProfileError, DataError
from conf_profile.files import atomic_path, write_text

SUMMARY = "summary"
NOTES = "evidence-notes.md"
RESULTS = "results"
"""The folder beside the pictures with the Parquet files that the page was made from."""
QUESTIONS = {name: experiment.question for name, experiment in EXPERIMENTS.items()} | {
    REGIMES: "Where does confidence weighting help, and where does it break?"
}
HEAD = f"""\
# Evidence

What was measured for each claim of the method, and for each idea of ours. Made by

    python -m benchmarks.evidence.page.page {EVIDENCE} docs

from the results in `{EVIDENCE}`, which it keeps in `docs/{PICTURES}/{RESULTS}`, and the commentary in `{NOTES}`; not to
be edited. What is measured, on what, and what would count as reproduced stands in
[evidence-protocol.md](evidence-protocol.md), which was written first. The arms and their settings are in
`benchmarks/evidence/plan.py`.

## How to read it

Precision, recall and F1 are in points (1 point = 0.01), micro averages over the attributes of the test users. The unit
is the seed: an interval, in brackets, is Student's t, 95%, over the seeds; a difference is paired, seed by seed, and p
is that of the paired t test. With one seed there is no interval. {NO_VALUE} means that there is nothing to report: no
answer was given, or the arm has no such figure.

| verdict | when |
|---|---|
| holds | the interval of the difference lies clear of zero on the expected side |
| reversed | it lies clear of zero on the other side |
| does not hold | it includes zero with all {FULL_SEEDS} seeds; how large a difference may still be, the interval says |
| undecided | it includes zero with fewer seeds, or where nothing was expected; or there is none |
| above, below | it lies clear of zero where nothing was expected |

A claim with several parts holds when all of them do, and does not when one of them is reversed; where its title says
"or", one part is enough.
"""


@dataclass(frozen=True)
class Chapter:
    """What the page says of one study."""

    study: Study
    passages: tuple[Passage, ...]

    @property
    def tested(self) -> int:
        """How many of its differences were tested."""
        return sum(passage.tested for passage in self.passages)


def write(source: Path, docs: Path) -> None:
    """Writes DOCS/evidence.md and DOCS/evidence/*.svg, each whole or not at all. DataError says what is wrong."""
    notes = read_notes(docs / NOTES)
    find(source)
    kept = docs / PICTURES / RESULTS
    _keep(source, kept)
    chapters = [Chapter(study, tuple(sections.passages_of(study))) for study in find(kept)]
    _save_pictures(chapters, docs / PICTURES)
    write_text(docs / "evidence.md", page(chapters, notes))


def find(source: Path) -> list[Study]:
    """All results in the folders of a folder: experiments and folders in the protocol's order, others at the end."""
    known = list(PLACES)
    places = sorted(path.name for path in source.iterdir() if path.is_dir()) if source.is_dir() else []
    places.sort(key=lambda place: known.index(place) if place in known else len(known))
    studies = [
        Study(name, place, _read(source / place, name))
        for name in NAMES
        for place in places
        if (source / place / f"{name}.parquet").is_file()
    ]
    if not studies:
        raise DataError(f"{source}: no results in any folder of it; run `make evidence`")
    return studies


def read_notes(path: Path) -> dict[str, str]:
    """Section -> commentary, word for word; empty without a file. DataError for a name unknown or given twice."""
    notes: dict[str, str] = {}
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    for section in f"\n{text}".split("\n## ")[1:]:
        title, _, body = section.partition("\n")
        name = title.strip()
        if name not in (SUMMARY, *NAMES):
            raise DataError(f"{path}: unknown section {name!r}; known are {', '.join((SUMMARY, *NAMES))}")
        if name in notes:
            raise DataError(f"{path}: the section {name!r} stands there twice; make one of them")
        notes[name] = body.strip("\n")
    return notes


def page(chapters: Sequence[Chapter], notes: Mapping[str, str]) -> str:
    """The whole page as Markdown."""
    parts = [HEAD.strip(), _false_alarms(chapters), *_summary_section(chapters), *_note(SUMMARY, notes)]
    for name in NAMES:
        own = [chapter for chapter in chapters if chapter.study.name == name]
        if own:
            parts += [f"## {name}", QUESTIONS[name], *_note(name, notes)]
        for chapter in own:
            parts += [*_origin(chapter.study), *(passage.text for passage in chapter.passages)]
    return "\n\n".join([*parts, *_missing_section(chapters, notes)]) + "\n"


def _read(folder: Path, name: str) -> Results:
    try:
        if name == REGIMES:
            return Results(pq.read_table(folder / f"{name}.parquet").to_pylist(), [])
        return results.read(folder, name)
    except (OSError, pa.ArrowInvalid) as error:
        raise DataError(f"{folder}: the results of {name} cannot be read: {error}; run the experiment again") from error


def _keep(source: Path, kept: Path) -> None:
    """Copies results that lie elsewhere, each file whole or not at all."""
    if source.resolve() == kept.resolve():
        return
    for name in NAMES:
        for file in sorted(source.glob(f"*/{name}.parquet")) + sorted(source.glob(f"*/{name}.observations.parquet")):
            with atomic_path(kept / file.parent.name / file.name) as temporary:
                shutil.copyfile(file, temporary)


def _save_pictures(chapters: Sequence[Chapter], folder: Path) -> None:
    for chapter in chapters:
        for picture in (passage.picture for passage in chapter.passages if passage.picture):
            plots.save(picture.figure, folder / picture.name)


def _false_alarms(chapters: Sequence[Chapter]) -> str:
    tested = sum(chapter.tested for chapter in chapters)
    cells = sum(chapter.tested for chapter in chapters if chapter.study.name == REGIMES)
    return (
        f"The sections below make {tested} comparisons that have an interval; {cells} of them are cells of the heat\n"
        f"maps of `{REGIMES}`. Nothing is corrected for their number: if there were nothing behind any of them, about\n"
        f"{tested / 20:.0f} (5%) would still lie clear of zero."
    )


def _summary_section(chapters: Sequence[Chapter]) -> Iterator[str]:
    at_home = {chapter.study.name: chapter.study.results for chapter in chapters if chapter.study.place == HOME}
    yield "## In short"
    yield f"On `{HOME}`. Differences are in points, with their 95% interval over the seeds."
    rows = [_claim(claim, at_home) for claim in (*PAPER_CLAIMS, *OUR_CLAIMS)]
    yield table(("claim", "the paper", "here", "verdict"), rows, text_columns=4)


def _claim(claim: Claim, at_home: Mapping[str, Results]) -> list[str]:
    title = f"[{claim.title}](#{claim.experiment})"
    paper = claim.paper or "(ours)"
    if claim.experiment not in at_home:
        return [title, paper, "not run yet", NO_VALUE]
    answer = claim.answer(at_home[claim.experiment])
    return [title, paper, answer.found, _note_seeds(answer.verdict, at_home[claim.experiment])]


def _note_seeds(verdict: str, found: Results) -> str:
    few = len(found.seeds) < FULL_SEEDS
    return f"{verdict} ({_seeds(found)})" if few and verdict != NO_VALUE else verdict


def _seeds(found: Results) -> str:
    return f"{len(found.seeds)} of {FULL_SEEDS} seeds"


def _origin(study: Study) -> Iterator[str]:
    """Which data, which seeds, which file, which command."""
    seeds = study.results.seeds
    few = f" (**{_seeds(study.results)}**)" if len(seeds) < FULL_SEEDS else ""
    yield f"### {study.name} on {study.place}"
    yield (
        f"From `{EVIDENCE}/{study.place}/{study.name}.parquet`, seeds {', '.join(map(str, seeds))}{few}. The command:"
    )
    yield _commands(calls.commands(study.name, study.place, seeds[0]))


def _missing_section(chapters: Sequence[Chapter], notes: Mapping[str, str]) -> list[str]:
    done = {(chapter.study.name, chapter.study.place) for chapter in chapters}
    missing = [(name, place) for name, place in PLANNED_RUNS if (name, place) not in done]
    return ["## Not run yet", "\n".join(_missing_line(*run, notes) for run in missing)] if missing else []


def _missing_line(name: str, place: str, notes: Mapping[str, str]) -> str:
    unread = f" (its section of `{NOTES}` is left out until then)" if name in notes else ""
    return f"- {code(name)} on {place}{unread}: {', then '.join(map(code, calls.commands(name, place)))}"


def _commands(lines: Sequence[str]) -> str:
    return "\n".join(f"    {line}" for line in lines)


def _note(name: str, notes: Mapping[str, str]) -> list[str]:
    return [notes[name]] if notes.get(name) else []


def main() -> None:
    """Command line; what a user can put right is printed without a traceback, and the exit status is 2."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path)
    parser.add_argument("docs", type=Path)
    given = parser.parse_args()
    try:
        write(given.results, given.docs)
    except ConfProfileError as error:
        print(f"page: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
