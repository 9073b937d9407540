"""The evidence page's plots: matplotlib figures from estimates, and SVG files that are the same for the same input.

Shares are drawn in points. Series differ in marker and hatch as well as in colour, the colours are Okabe and Ito's,
intervals are 95%. Text stays text, so files are small and browsers set it in their own font.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from benchmarks.evidence.page.findings import Estimate
from benchmarks.evidence.page.markdown import POINTS, number
from conf_profile.dialogue.output_format import LEVELS
from conf_profile.files import atomic_path

Series = Mapping[str, Sequence[Estimate | None]]
"""Name -> an estimate for each row, level or threshold; None where there is nothing to draw."""

STYLE: dict[str, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "conf-profile",
    # Every text names its fonts: matplotlib's own list would be a third of a file.
    "font.sans-serif": ["DejaVu Sans", "sans-serif"],
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 9,
    "lines.markersize": 4.5,
    "lines.linewidth": 1.2,
}
WIDTH = 8.0
"""Inches."""


@dataclass(frozen=True)
class Look:
    """How a series is told from the others, without its colour too."""

    colour: str
    marker: str
    dashes: str
    hatch: str


LOOKS = (
    Look("#0072B2", "o", "-", ""),
    Look("#D55E00", "s", "--", "//"),
    Look("#009E73", "D", "-.", "xx"),
    Look("#CC79A7", "^", ":", "\\\\"),
    Look("#E69F00", "v", "-", "++"),
    Look("#56B4E9", "P", "--", "--"),
)


@dataclass(frozen=True)
class HeatMap:
    """One factor against another: (row, column) -> the estimate of a difference, a share."""

    title: str
    row_label: str
    rows: tuple[Any, ...]
    column_label: str
    columns: tuple[Any, ...]
    cells: Mapping[tuple[Any, Any], Estimate | None]


@dataclass(frozen=True)
class Lines:
    """One panel of lines over the thresholds."""

    title: str
    label: str
    series: Series


def save(figure: Figure, path: Path) -> None:
    """Writes an SVG whole or not at all; nothing in it tells the time or the version that drew it."""
    with matplotlib.rc_context(STYLE), atomic_path(path) as temporary:
        figure.savefig(temporary, format="svg", metadata={"Date": None, "Creator": None})


@matplotlib.rc_context(STYLE)
def dots(labels: Sequence[str], series: Series, axis: str) -> Figure:
    """A row for each label, a dot with its interval for each series; the first label stands on top."""
    figure = _figure(1.0 + 0.26 * len(labels))
    axes = figure.add_subplot()
    for name, estimates, look, shift in _side_by_side(series, room=0.5):
        rows = [row + shift for row in range(len(labels))]
        _intervals(axes, look, rows, estimates, upright=False)
        axes.plot(_means(estimates), rows, look.marker, color=look.colour, label=name)
    axes.set_yticks(range(len(labels)), labels)
    axes.set_ylim(len(labels) - 0.4, -0.6)
    axes.set_xlabel(_interval_label(axis, series))
    axes.grid(axis="x", alpha=0.3)
    _legend(figure, axes, series)
    return figure


@matplotlib.rc_context(STYLE)
def bars(series: Series, axis: str, even: float) -> Figure:
    """Five levels, a bar of each series beside the others; a line at `even`, the share that each should have."""
    figure = _figure(3.2)
    axes = figure.add_subplot()
    for name, estimates, look, shift in _side_by_side(series, room=0.8):
        places, width = [level + shift for level in LEVELS], 0.8 / len(series)
        axes.bar(places, _means(estimates), width, color=look.colour, hatch=look.hatch, edgecolor="white", label=name)
        _intervals(axes, Look("black", "", "", ""), places, estimates)
    axes.axhline(POINTS * even, color="black", linewidth=0.8, linestyle=":")
    axes.set_xticks(LEVELS)
    axes.set_xlabel(_interval_label("level", series))
    axes.set_ylabel(axis)
    _legend(figure, axes, series)
    return figure


@matplotlib.rc_context(STYLE)
def lines(panels: Sequence[Lines], columns: int) -> Figure:
    """Panels in rows of `columns`, each with lines over the thresholds τ = 1..5; those of a column share an axis."""
    rows = -(-len(panels) // columns)
    figure = _figure(0.6 + (3.0 if rows == 1 else 1.7 * rows))
    grid = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey="col")
    for axes, panel in zip(grid.flat, panels, strict=True):
        _lines(axes, panel)
    for axes in grid[-1]:
        axes.set_xlabel(_interval_label("threshold τ", panels[0].series))
    _legend(figure, grid[0, 0], panels[0].series)
    return figure


@matplotlib.rc_context(STYLE)
def heat_maps(maps: Sequence[HeatMap], quantity: str) -> Figure:
    """Side by side in pairs, on one scale of colours with white at 0; cells clear of zero are bold and framed."""
    columns = min(2, len(maps))
    rows = -(-len(maps) // columns)
    drawn_cells = [found for drawn in maps for found in drawn.cells.values() if found]
    limit = max((abs(found.mean) for found in drawn_cells), default=0.0) or 1.0
    figure = _figure(max(2.8, 0.7 + 0.55 * rows + 0.32 * sum(len(drawn.rows) for drawn in maps[::columns])))
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes in grid.flat[len(maps) :]:
        axes.set_axis_off()
    for axes, drawn in zip(grid.flat, maps, strict=False):
        colours = _heat_map(axes, drawn, POINTS * limit)
    figure.colorbar(colours, ax=grid, label=f"{quantity}, points", shrink=0.8)
    several = any(found.low is not None for found in drawn_cells)
    note = "bold and framed: the 95% interval is clear of zero" if several else "one seed, no interval"
    figure.suptitle(note, fontsize=8)
    return figure


def _figure(height: float) -> Figure:
    return Figure(figsize=(WIDTH, height), layout="constrained")


def _lines(axes: Any, panel: Lines) -> None:
    for name, estimates, look, shift in _side_by_side(panel.series, room=0.24):
        places = [level + shift for level in LEVELS]
        _intervals(axes, look, places, estimates)
        axes.plot(places, _means(estimates), color=look.colour, marker=look.marker, linestyle=look.dashes, label=name)
    axes.set_title(panel.title)
    axes.set_ylabel(panel.label)
    axes.set_xticks(LEVELS)
    axes.grid(axis="y", alpha=0.3)


def _side_by_side(series: Series, room: float) -> Iterator[tuple[str, Sequence[Estimate | None], Look, float]]:
    """Name, estimates, look and shift of each series, so that together they fill `room` around their place."""
    for position, ((name, estimates), look) in enumerate(zip(series.items(), cycle(LOOKS), strict=False)):
        yield name, estimates, look, (position - (len(series) - 1) / 2) * room / len(series)


def _means(estimates: Sequence[Estimate | None]) -> list[float]:
    """In points; NaN, which is not drawn, where there is none."""
    return [POINTS * found.mean if found else math.nan for found in estimates]


def _intervals(
    axes: Any, look: Look, places: Sequence[float], estimates: Sequence[Estimate | None], upright: bool = True
) -> None:
    """One broken line for all intervals of a series: error bars of their own would make files three times as large."""
    drawn = [(place, found) for place, found in zip(places, estimates, strict=True) if found and found.low is not None]
    along = [place for place, _ in drawn for _ in range(3)]
    ends = [POINTS * end for _, found in drawn for end in (found.low, found.high, math.nan) if end is not None]
    axes.plot(*((along, ends) if upright else (ends, along)), color=look.colour, linestyle="-")


def _heat_map(axes: Any, drawn: HeatMap, limit: float) -> Any:
    """Draws one map with its numbers in points; returns what the scale of colours is made from."""
    values = [_means([drawn.cells.get((row, column)) for column in drawn.columns]) for row in drawn.rows]
    colours = axes.pcolormesh(values, cmap="PuOr", vmin=-limit, vmax=limit, edgecolors="white", linewidth=1.0)
    for y, row in enumerate(drawn.rows):
        for x, column in enumerate(drawn.columns):
            _cell(axes, x, y, drawn.cells.get((row, column)), colours)
    axes.set_xticks([place + 0.5 for place in range(len(drawn.columns))], [f"{value:g}" for value in drawn.columns])
    axes.set_yticks([place + 0.5 for place in range(len(drawn.rows))], [f"{value:g}" for value in drawn.rows])
    axes.set(title=drawn.title, xlabel=drawn.column_label, ylabel=drawn.row_label)
    axes.invert_yaxis()
    return colours


def _cell(axes: Any, x: int, y: int, found: Estimate | None, colours: Any) -> None:
    if found is None:
        return
    axes.text(
        x + 0.5,
        y + 0.5,
        number(found.mean, sign="+"),
        ha="center",
        va="center",
        fontsize=8,
        weight="bold" if found.clear_of_zero else "normal",
        color=_ink(colours.to_rgba(POINTS * found.mean)),
    )
    if found.clear_of_zero:
        axes.add_patch(Rectangle((x + 0.04, y + 0.04), 0.92, 0.92, fill=False, edgecolor="black", linewidth=1.3))


def _ink(ground: tuple[float, float, float, float]) -> str:
    """White on dark colours, by the luma of Rec. 601."""
    red, green, blue, _ = ground
    return "white" if 0.299 * red + 0.587 * green + 0.114 * blue < 0.5 else "black"


def _legend(figure: Figure, axes: Any, series: Series) -> None:
    """Above the panels, where it covers nothing; a single series needs none."""
    if len(series) > 1:
        handles, names = axes.get_legend_handles_labels()
        figure.legend(handles, names, loc="outside upper center", ncols=min(4, len(series)), frameon=False)


def _interval_label(axis: str, series: Series) -> str:
    """An axis label that says what the lines are, or that there are none."""
    several = any(found.low is not None for estimates in series.values() for found in estimates if found)
    return f"{axis} (lines: 95% interval)" if several else f"{axis} (one seed, no interval)"
