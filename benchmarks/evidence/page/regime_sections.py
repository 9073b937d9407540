"""What the page says of the two experiments whose answer is a map: where a vote, or the second stage, pays."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from benchmarks.evidence import plan, regimes
from benchmarks.evidence.page import plots, quantities
from benchmarks.evidence.page.findings import Finding, estimate, subtract
from benchmarks.evidence.page.markdown import code, difference, table
from benchmarks.evidence.page.passages import Passage, Study, count_tested, picture
from benchmarks.evidence.page.plots import HeatMap
from benchmarks.evidence.results import Results

FEW_SAMPLES = (2, 3, 5)
"""The numbers of samples at which the protocol looks for the weighted vote's gain."""
Cells = Mapping[tuple[str, float, int], Finding]
"""A factor's name, its value and M -> the difference of two votes."""


def votes(study: Study) -> Iterator[Passage]:
    """The votes alone: where clear differences lie, in numbers and as a heat map for each pair of votes and factor."""
    by_pair = {pair: _cells(study.results, *pair) for pair in regimes.PAIRS}
    distinct = {pair: _drop_duplicates(cells) for pair, cells in by_pair.items()}
    rows = [
        _cells_row(
            f"{code(better)} - {code(worse)}, {title}", [found for key, found in cells.items() if key[2] in counts]
        )
        for (better, worse), cells in distinct.items()
        for title, counts in (("every M", regimes.SAMPLES), ("M = 2, 3, 5", FEW_SAMPLES))
    ]
    head = ("F1 of", "cells", "clear above 0", "clear below 0", "least", "greatest")
    tested = sum(count_tested(cells.values()) for cells in distinct.values())
    yield Passage(
        "A cell is one value of one factor at one number of samples M; the world and the teacher as they are without a "
        f"change, which several maps show, count once.\n\n{table(head, rows)}",
        tested,
    )
    for (better, worse), cells in by_pair.items():
        shows = f"F1 of {better} minus F1 of {worse}, by factor and number of samples"
        figure = plots.heat_maps([_map(factor, cells) for factor in regimes.FACTORS], f"F1, {better} - {worse}")
        yield picture(study, f"{better}-{worse}", shows, figure)


def _cells(results: Results, better: str, worse: str) -> Cells:
    return {
        (name, value, count): Finding(f"{name} {value:g}, M = {count}", "F1", dict(enumerate(differences)), "either")
        for name in (factor.name for factor in regimes.FACTORS)
        for (value, count), differences in regimes.group_by_cell(results.counts, name, better, worse).items()
    }


def _drop_duplicates(cells: Cells) -> Cells:
    """World and teacher without a change stand in the maps of several factors, and count as a cell of the first one."""
    unchanged = [(factor.name, float(value)) for factor in regimes.FACTORS for value in factor.unchanged_values()]
    return {key: found for key, found in cells.items() if key[:2] not in unchanged[1:]}


def _cells_row(title: str, cells: Sequence[Finding]) -> list[str]:
    verdicts = [found.verdict for found in cells]
    clear = [str(verdicts.count("above")), str(verdicts.count("below"))]
    ordered = sorted(cells, key=lambda found: found.estimate.mean if found.estimate else 0.0)
    return [
        title,
        str(len(cells)),
        *clear,
        *(f"{difference(found)} at {found.label}" for found in (ordered[0], ordered[-1])),
    ]


def _map(factor: regimes.Factor, cells: Cells) -> HeatMap:
    own = {(value, count): found.estimate for (name, value, count), found in cells.items() if name == factor.name}
    return HeatMap(factor.title, factor.name, factor.values, "samples M", regimes.SAMPLES, own)


def second_stage(study: Study) -> Iterator[Passage]:
    """The second stage's gain over the kinds of worlds in which it was trained."""
    drawn = _grid(study.results)
    shows = "F1 of sft_grpo minus F1 of sft, by error of the teacher's evidence and length of history"
    yield picture(study, "map", shows, plots.heat_maps([drawn], "F1, sft_grpo - sft"))


def _grid(results: Results) -> HeatMap:
    experiment = plan.SECOND_STAGE_REGIMES
    settings = {arm.name: arm.settings for arm in experiment.arms}
    noise, history = "data.lexicon.noise", "data.world.median_keyphrases"
    cells = {
        (settings[found.better][noise], settings[found.better][history]): estimate(
            subtract(*(quantities.rate(results, arm, found.metric) for arm in (found.better, found.worse)))
        )
        for found in experiment.comparisons
    }
    rows, columns = (tuple(dict.fromkeys(axis)) for axis in zip(*cells, strict=True))
    return HeatMap(
        "error of the teacher's evidence, nats", "noise", rows, "keyphrases of a user, median", columns, cells
    )
