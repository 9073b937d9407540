"""Elements of SVG and HTML from text that may be anybody's: MarkupSafe escapes whatever is not markup of ours already.

Tags, region names and log keys come from users' data, so escaping is left to the type, not to the author.
"""

from __future__ import annotations

from markupsafe import Markup, escape

Child = str | int | float
"""What an element may hold; anything but Markup is escaped."""


def element(name: str, *children: Child, **attributes: Child | None) -> Markup:
    """One element. `class_` is class, other underscores become hyphens; an attribute of None is left out."""
    given = join(
        *(
            Markup(' {}="{}"').format(key.rstrip("_").replace("_", "-"), _text(value))
            for key, value in attributes.items()
            if value is not None
        )
    )
    return Markup("<{}{}>{}</{}>").format(name, given, join(*children), name)


def join(*children: Child) -> Markup:
    """The children after one another."""
    return Markup("").join(map(_text, children))


def _text(value: Child) -> Markup:
    return escape(f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else value)
