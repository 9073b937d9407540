"""Charts as inline SVG that takes its colours from the page, so that it follows light and dark.

Drawn here, since no library draws such charts: pygal and leather write colours of their own into every SVG (pygal a
script, too), matplotlib embeds fonts and takes seconds to import. A chart is a <figure> with a title, axis labels, a
legend and a tooltip for each mark; every text is escaped by `markup`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from components.report.markup import element, join

WIDTH, HEIGHT = 560, 300
LEFT, RIGHT, TOP, BOTTOM = 58, 16, 14, 46
WIDE_WIDTH, WIDE_COLUMNS = 1080, 13
"""A matrix of more columns is drawn as wide as the page."""
MARKERS_UP_TO = 30
"""A longer line is drawn without a dot at each point."""


@dataclass(frozen=True)
class Series:
    """A named line; `colour` is a CSS custom property of the page (without the dashes)."""

    name: str
    points: tuple[tuple[float, float], ...]
    colour: str
    dashed: bool = False


@dataclass(frozen=True)
class Dot:
    """One value of one series in a row of a dot chart, with its interval where there is one."""

    series: str
    colour: str
    value: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Scale:
    """A linear map from data to pixels, with ticks at round numbers."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)

    def ticks(self, wanted: int = 6) -> list[float]:
        """About `wanted` round numbers inside the scale."""
        step = _round_step((self.high - self.low) / wanted)
        first = math.ceil(self.low / step - 1e-9)
        return [number * step for number in range(first, math.floor(self.high / step + 1e-9) + 1)]


def line_chart(
    title: str,
    x_label: str,
    y_label: str,
    series: Sequence[Series],
    x_range: tuple[float, float] | None = None,
    y_range: tuple[float, float] | None = None,
    x_ticks: Sequence[float] | None = None,
    percent: bool = False,
    note: str = "",
) -> Markup:
    """Lines over a common pair of axes; empty series are left out, and a chart without points says so."""
    drawn = [item for item in series if item.points]
    if not drawn:
        return _empty_chart(title)
    x = _scale([p[0] for s in drawn for p in s.points], x_range, LEFT, WIDTH - RIGHT)
    y = _scale([p[1] for s in drawn for p in s.points], y_range, HEIGHT - BOTTOM, TOP)
    written = _percent if percent else _number
    body = join(
        _y_axis(y, y_label, written),
        _x_axis(x, x_label, x_ticks or x.ticks()),
        *(_line(item, x, y, written) for item in drawn),
    )
    # A single line is named by the title.
    legend = [(s.name, s.colour, s.dashed) for s in drawn] if len(drawn) > 1 else []
    return _figure(title, body, HEIGHT, legend, note)


def bar_chart(
    title: str,
    x_label: str,
    y_label: str,
    categories: Sequence[str],
    groups: Sequence[tuple[str, str, Sequence[float]]],
    percent: bool = False,
    reference: float | None = None,
    note: str = "",
) -> Markup:
    """Grouped bars; a group is (name, colour, one value for each category), `reference` a dashed line."""
    values = [value for _, _, group in groups for value in group]
    if not values:
        return _empty_chart(title)
    y = Scale(0.0, max(max(values), reference or 0.0, 1e-9) * 1.08, HEIGHT - BOTTOM, TOP)
    written = _percent if percent else _number
    body = join(
        _y_axis(y, y_label, written),
        *_bars(categories, groups, y, written),
        element("line", x1=LEFT, x2=WIDTH - RIGHT, y1=HEIGHT - BOTTOM, y2=HEIGHT - BOTTOM, class_="baseline"),
        _axis_title(x_label),
        *([_rule(y(reference))] if reference is not None else []),
    )
    return _figure(title, body, HEIGHT, [(name, colour, False) for name, colour, _ in groups], note)


def dot_chart(
    title: str, x_label: str, rows: Sequence[tuple[str, Sequence[Dot]]], percent: bool = True, note: str = ""
) -> Markup:
    """A row for each name, a dot for each series in it, and a bar for the interval: made for long names."""
    dots = [dot for _, row in rows for dot in row]
    if not dots:
        return _empty_chart(title)
    left = min(250, 20 + 6.4 * max(len(_shorten(name)) for name, _ in rows))
    ends = [end for dot in dots for end in (dot.value, dot.low, dot.high) if end is not None]
    x = _scale(ends, None, left, WIDTH - RIGHT)
    height = TOP + 24 * len(rows) + BOTTOM
    written = _percent if percent else _number
    body = join(
        _x_axis(x, x_label, x.ticks(), height, written, grid=True),
        *(_dot_row(name, row, x, TOP + 24 * (number + 0.5), left) for number, (name, row) in enumerate(rows)),
    )
    legend = dict.fromkeys((dot.series, dot.colour, False) for dot in dots)
    several = len({dot.series for dot in dots}) > 1
    return _figure(title, body, height, list(legend) if several else [], note)


def heatmap(title: str, rows: Sequence[str], columns: Sequence[str], matrix: Sequence[Sequence[int]]) -> Markup:
    """A confusion matrix: rows are shaded by their own sum, cells carry counts and a tooltip."""
    canvas = WIDTH if len(columns) <= WIDE_COLUMNS else WIDE_WIDTH
    left, top = 120.0, 26.0
    size = ((canvas - left - RIGHT) / max(1, len(columns)), min(34.0, 15 + 120 / max(1, len(rows))))
    base = top + size[1] * len(rows)
    parts = [
        _cell(left + c * size[0], top + r * size[1], size, matrix[r], c, (row, column), r == c)
        for r, row in enumerate(rows)
        for c, column in enumerate(columns)
    ]
    parts += [_text(_shorten(row, 18), left - 8, top + (r + 0.5) * size[1] + 4, "end") for r, row in enumerate(rows)]
    parts += [_slanted_label(column, left + (c + 0.5) * size[0], base + 14) for c, column in enumerate(columns)]
    parts.append(_text("true tag", left - 8, top - 10, "end", "axis"))
    parts.append(_text("predicted", (left + canvas - RIGHT) / 2, base + 80, "middle", "axis"))
    return _figure(title, join(*parts), base + 86, [], "", canvas)


def _figure(
    title: str,
    body: Markup,
    height: float,
    legend: Sequence[tuple[str, str, bool]],
    note: str,
    width: int = WIDTH,
) -> Markup:
    picture = element("svg", body, viewBox=f"0 0 {width} {height:.0f}", role="img", aria_label=title)
    keys = [
        element("span", element("i", style=f"--key: var(--{colour})", class_="dashed" if dashed else None), name)
        for name, colour, dashed in legend
    ]
    parts = [element("figcaption", title), picture]
    parts += [element("div", *keys, class_="legend")] if keys else []
    parts += [element("p", note, class_="note")] if note else []
    return element("figure", *parts, class_="full" if width > WIDTH else None)


def _empty_chart(title: str) -> Markup:
    return element("figure", element("figcaption", title), element("p", "Nothing was recorded.", class_="note"))


def _line(series: Series, x: Scale, y: Scale, written: Callable[[float], str]) -> Markup:
    path = " ".join(f"{x(px):.1f},{y(py):.1f}" for px, py in series.points)
    style = f"stroke: var(--{series.colour})"
    line = element("polyline", points=path, style=style, class_="dashed line" if series.dashed else "line")
    if len(series.points) > MARKERS_UP_TO:
        return line
    dots = [
        element(
            "circle",
            element("title", f"{series.name}: {written(py)} at {_number(px)}"),
            cx=f"{x(px):.1f}",
            cy=f"{y(py):.1f}",
            r="3.2",
            style=f"fill: var(--{series.colour})",
        )
        for px, py in series.points
    ]
    return join(line, *dots)


def _bars(
    categories: Sequence[str],
    groups: Sequence[tuple[str, str, Sequence[float]]],
    y: Scale,
    written: Callable[[float], str],
) -> list[Markup]:
    slot = (WIDTH - LEFT - RIGHT) / max(1, len(categories))
    width = min(44.0, 0.76 * slot / max(1, len(groups)))
    drawn = []
    for position, category in enumerate(categories):
        centre = LEFT + (position + 0.5) * slot
        drawn.append(_text(_shorten(category, 14), centre, HEIGHT - BOTTOM + 18, "middle"))
        start = centre - width * len(groups) / 2
        for number, (name, colour, values) in enumerate(groups):
            tip = element("title", f"{name}, {category}: {written(values[position])}")
            top = y(values[position])
            drawn.append(
                element(
                    "rect",
                    tip,
                    x=f"{start + number * width + 1:.1f}",
                    y=f"{top:.1f}",
                    width=f"{width - 2:.1f}",
                    height=f"{max(0.0, y(0.0) - top):.1f}",
                    rx="2",
                    style=f"fill: var(--{colour})",
                )
            )
    return drawn


def _dot_row(name: str, row: Sequence[Dot], x: Scale, middle: float, left: float) -> Markup:
    label = element(
        "text",
        element("title", name),
        _shorten(name),
        x=f"{left - 10:.1f}",
        y=f"{middle + 4:.1f}",
        text_anchor="end",
    )
    return join(label, *(_dot(dot, name, x, middle) for dot in row))


def _dot(dot: Dot, name: str, x: Scale, middle: float) -> Markup:
    tip = f"{name}, {dot.series}: {_percent(dot.value)}"
    parts = []
    if dot.low is not None and dot.high is not None:
        tip += f" ({_percent(dot.low)} to {_percent(dot.high)})"
        ends = {"x1": f"{x(dot.low):.1f}", "x2": f"{x(dot.high):.1f}"}
        style = f"stroke: var(--{dot.colour})"
        parts.append(element("line", y1=f"{middle:.1f}", y2=f"{middle:.1f}", style=style, class_="range", **ends))
    mark = element(
        "circle",
        element("title", tip),
        cx=f"{x(dot.value):.1f}",
        cy=f"{middle:.1f}",
        r="4.5",
        style=f"fill: var(--{dot.colour})",
    )
    return join(*parts, mark)


def _cell(
    x: float,
    y: float,
    size: tuple[float, float],
    row: Sequence[int],
    column: int,
    names: tuple[str, str],
    right: bool,
) -> Markup:
    share = row[column] / sum(row) if sum(row) else 0.0
    tip = element("title", f"true {names[0]}, predicted {names[1]}: {row[column]} ({share:.0%} of the row)")
    box = element(
        "rect",
        tip,
        x=f"{x:.1f}",
        y=f"{y:.1f}",
        width=f"{size[0] - 1:.1f}",
        height=f"{size[1] - 1:.1f}",
        class_="cell right" if right else "cell",
        style=f"fill-opacity: {0.04 + 0.96 * share:.3f}",
    )
    if size[0] < 22 or not row[column]:
        return box
    shade = "strong" if share > 0.65 else "count"
    return join(box, _text(str(row[column]), x + size[0] / 2, y + size[1] / 2 + 4, "middle", shade))


def _slanted_label(name: str, x: float, y: float) -> Markup:
    return element(
        "text",
        _shorten(name, 14),
        x=f"{x:.1f}",
        y=f"{y:.1f}",
        text_anchor="end",
        transform=f"rotate(-35 {x:.1f} {y:.1f})",
    )


def _y_axis(y: Scale, label: str, written: Callable[[float], str]) -> Markup:
    lines = [join(_rule(y(tick), "grid"), _text(written(tick), LEFT - 8, y(tick) + 4, "end")) for tick in y.ticks()]
    middle = (TOP + HEIGHT - BOTTOM) / 2
    title = element(
        "text",
        label,
        x="13",
        y=f"{middle:.1f}",
        transform=f"rotate(-90 13 {middle:.1f})",
        text_anchor="middle",
        class_="axis",
    )
    return join(*lines, title)


def _x_axis(
    x: Scale,
    label: str,
    ticks: Sequence[float],
    height: float = HEIGHT,
    written: Callable[[float], str] | None = None,
    grid: bool = False,
) -> Markup:
    written = written or _number
    base = height - BOTTOM
    marks = [_text(written(tick), x(tick), base + 18, "middle") for tick in ticks]
    if grid:
        marks = [
            element("line", x1=f"{x(t):.1f}", x2=f"{x(t):.1f}", y1=TOP, y2=f"{base:.1f}", class_="grid") for t in ticks
        ] + marks
    line = element("line", x1=f"{x.start:.1f}", x2=f"{x.end:.1f}", y1=base, y2=base, class_="baseline")
    return join(line, *marks, _text(label, (x.start + x.end) / 2, height - 6, "middle", "axis"))


def _axis_title(label: str) -> Markup:
    return _text(label, (LEFT + WIDTH - RIGHT) / 2, HEIGHT - 6, "middle", "axis")


def _rule(y: float, kind: str = "reference") -> Markup:
    return element("line", x1=LEFT, x2=WIDTH - RIGHT, y1=f"{y:.1f}", y2=f"{y:.1f}", class_=kind)


def _text(content: str, x: float, y: float, anchor: str, kind: str | None = None) -> Markup:
    return element("text", content, x=f"{x:.1f}", y=f"{y:.1f}", text_anchor=anchor, class_=kind)


def _scale(values: Sequence[float], given: tuple[float, float] | None, start: float, end: float) -> Scale:
    if given is not None:
        return Scale(*given, start, end)
    low, high = min(values), max(values)
    margin = 0.06 * (high - low) or 0.1 * abs(high) or 0.5
    return Scale(low - margin, high + margin, start, end)


def _round_step(rough: float) -> float:
    magnitude = 10.0 ** math.floor(math.log10(rough))
    return next(nice * magnitude for nice in (1, 2, 5, 10) if nice * magnitude >= rough * (1 - 1e-9))


def _shorten(name: str, limit: int = 34) -> str:
    return name if len(name) <= limit else name[: limit - 1] + "…"


def _number(value: float) -> str:
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"


def _percent(value: float) -> str:
    return f"{100 * value:.1f}%".replace(".0%", "%")
