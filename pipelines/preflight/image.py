"""Whether the steps' image has a name that changes with its content."""

from __future__ import annotations

import re

from components.image import IMAGE, is_content_made
from pipelines.preflight.finding import Finding

_REFERENCE = re.compile(r"[a-z0-9][\w.:/-]*(@sha256:[0-9a-f]{64})?")
_PRINT_NAME = "python -m charts.images names training"


def image_findings(given: str) -> list[Finding]:
    """A warning for a name that can stay while its content changes; notes on what nodes need to pull it."""
    name = given or IMAGE
    if not _REFERENCE.fullmatch(name):
        return [
            Finding("error", f"image {name!r} is no image's name", "give REGISTRY/NAME:TAG or REGISTRY/NAME@DIGEST")
        ]
    found = [] if is_content_made(name) else [_mutable_name_finding(name, bool(given))]
    return [*found, *_registry_note(name)]


def _mutable_name_finding(name: str, given: bool) -> Finding:
    remedy = f"use a tag that holds a hash of the content (`{_PRINT_NAME}` prints one) or a digest (@sha256:...)"
    if not given:
        return Finding("note", f"no image is given; the steps run in the release's own, {name}", f"else {remedy}")
    what = "its content can change under this name, and KFP's cache looks at the name alone: steps of a changed image"
    return Finding("warning", f"image {name}: {what} would be taken from the cache", remedy)


def _registry_note(name: str) -> list[Finding]:
    host, slash, _ = name.partition("/")
    if slash and host == "localhost":
        remedy = "load it on every node of the pools, or push it to a registry that they reach"
        return [Finding("note", f"image {name}: the nodes cannot pull it", remedy)]
    return []
