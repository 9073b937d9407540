"""One finding of the checks, and what becomes of a list of them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from conf_profile.errors import PreflightError

if TYPE_CHECKING:
    from rich.console import Console

Level = Literal["error", "warning", "note"]
_STYLES = {"warning": "yellow", "note": "dim"}


@dataclass(frozen=True)
class Finding:
    """What was found and what to do about it. An error stops the run, a warning may, a note tells what was not seen."""

    level: Level
    what: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.what}; {self.remedy}" if self.remedy else self.what


def require(findings: Iterable[Finding], console: Console) -> None:
    """Prints warnings and notes; PreflightError lists all errors, each with its remedy."""
    found = list(findings)
    for each in found:
        if each.level != "error":
            console.print(
                f"{each.level}: {each}", style=_STYLES[each.level], markup=False, highlight=False, soft_wrap=True
            )
    errors = [each for each in found if each.level == "error"]
    if errors:
        raise PreflightError("\n".join(["nothing was started:", *(f"  - {each}" for each in errors)]))
