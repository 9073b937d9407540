"""Numbers, intervals and tables as Markdown. Knows nothing of experiments."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from benchmarks.evidence.page.findings import Estimate, Finding

NO_VALUE = "–"
POINTS = 100.0
"""A share of 1 is 100 points."""


def number(value: float | None, scale: float = POINTS, digits: int = 1, sign: str = "") -> str:
    """A number without a negative zero; "+" as the sign shows it always."""
    return NO_VALUE if value is None else f"{scale * value:{sign}z.{digits}f}"


def interval(found: Estimate | None, scale: float = POINTS, digits: int = 1, sign: str = "") -> str:
    """'50.6 (49.4 to 51.9)'; the mean alone where there is no interval."""
    if found is None:
        return NO_VALUE
    mean, low, high = (number(value, scale, digits, sign) for value in (found.mean, found.low, found.high))
    return mean if found.low is None else f"{mean} ({low} to {high})"


def difference(finding: Finding) -> str:
    """Of two shares, in points with a sign."""
    return interval(finding.estimate, digits=2, sign="+")


def p_value(p: float | None) -> str:
    """Three decimals are enough."""
    if p is None:
        return NO_VALUE
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def table(head: Sequence[str], rows: Iterable[Sequence[str]], text_columns: int = 1) -> str:
    """The first `text_columns` columns are set left, the others, which are numbers, right."""
    ruler = ["---" if column < text_columns else "--:" for column in range(len(head))]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (head, ruler, *rows))


def findings_table(findings: Sequence[Finding]) -> str:
    """Differences in points, with interval, p, the number of seeds and the verdict."""
    head = ("difference", "of", "verdict", "points (95% interval)", "p", "seeds")
    return table(head, [_row(finding) for finding in findings], text_columns=3)


def code(text: str) -> str:
    """Set as code in a line."""
    return f"`{text}`"


def _row(finding: Finding) -> tuple[str, ...]:
    seeds = str(len(finding.differences))
    return finding.label, finding.of, finding.verdict, difference(finding), p_value(finding.p), seeds
