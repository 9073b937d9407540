"""Rates and differences as the report writes them: in percent, with one decimal."""

from __future__ import annotations

from collections.abc import Sequence


def percent(value: float) -> str:
    """A rate in [0, 1]."""
    return f"{100 * value:.1f}%"


def format_limits(limits: Sequence[float]) -> str:
    """An interval of rates."""
    return f"{100 * limits[0]:.1f} to {100 * limits[1]:.1f}"


def format_signed(value: float) -> str:
    """A difference of rates, with its sign."""
    return f"{100 * value + 0.0:+.1f}".replace("-", "−")


def points(value: float) -> str:
    """The same with its unit."""
    return f"{format_signed(value)} points"
