"""HTML that cannot be injected: a plain string is always escaped, only `Html` passes as it is.

Tags, region names and log keys come from users' data, so escaping is left to the type, not to the author.
"""

from __future__ import annotations

import html

_VOID = frozenset({"meta", "br", "hr"})


class Html(str):
    """Markup made by `element` or `join`; never wrap foreign text in it."""

    __slots__ = ()


Child = str | int | float
"""What an element may hold; anything but Html is escaped."""


def element(name: str, *children: Child, **attributes: Child | None) -> Html:
    """One element. `class_` is class, other underscores become hyphens; an attribute of None is left out."""
    given = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{html.escape(_text(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    if name in _VOID:
        return Html(f"<{name}{given}>")
    return Html(f"<{name}{given}>{join(*children)}</{name}>")


def join(*children: Child) -> Html:
    """The children after one another."""
    return Html("".join(child if isinstance(child, Html) else html.escape(_text(child)) for child in children))


def _text(value: Child) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)
