"""What a page is made of, paragraph by paragraph: text, tables of differences, pictures. It knows no experiment."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from matplotlib.figure import Figure

from benchmarks.evidence.page.findings import Finding
from benchmarks.evidence.page.markdown import findings_table
from benchmarks.evidence.results import Results

PICTURES = "evidence"
"""The folder of the plots, beside the page."""


@dataclass(frozen=True)
class Study:
    """One experiment's results on one data set; `place` is their folder's name. Regimes have counts alone."""

    name: str
    place: str
    results: Results


@dataclass(frozen=True)
class Picture:
    """A plot and the name of its file."""

    name: str
    figure: Figure


@dataclass(frozen=True)
class Passage:
    """A paragraph, a table or a picture; `tested` counts its differences that were tested."""

    text: str
    tested: int = 0
    picture: Picture | None = None


def differences(title: str, findings: Sequence[Finding]) -> Passage:
    """A table of differences below a line that says of what."""
    return Passage(f"{title}\n\n{findings_table(findings)}", count_tested(findings))


def count_tested(findings: Iterable[Finding]) -> int:
    """How many could be a false alarm: the votes over a single sample, say, agree by construction."""
    return sum(finding.p is not None and any(finding.differences.values()) for finding in findings)


def picture(study: Study, what: str, shows: str, figure: Figure) -> Passage:
    """A plot of a study; `shows` is for those who do not see it."""
    name = f"{study.place}-{study.name}-{what}.svg"
    return Passage(f"![{shows}]({PICTURES}/{name})", picture=Picture(name, figure))
