"""A hash of the project's own sources: steps that are cached must run again when their code has changed."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cache
from pathlib import Path

PACKAGES = ("conf_profile", "components", "pipelines", "feature_repo")
# What the steps execute; the command line and the pages about it do not change a step's result.
_LEFT_OUT = ("commands", "cli.py", "experiments", "__pycache__")


def source_hash(packages: Sequence[str] = PACKAGES) -> str:
    """16 hexadecimal digits over the Python, YAML and HTML files of the packages that steps import."""
    return _hash(tuple(packages))


@cache
def _hash(packages: tuple[str, ...]) -> str:
    # Once in a process: that is the code it runs, whatever is edited meanwhile.
    root = Path(__file__).resolve().parent.parent
    digest = hashlib.sha256()
    for package in packages:
        for path in sorted((root / package).rglob("*")):
            if path.suffix in {".py", ".yaml", ".html"} and not set(_LEFT_OUT) & set(path.parts):
                digest.update(str(path.relative_to(root)).encode())
                digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def local_image() -> str:
    """The image name that local runs put into KFP's cache key. kfp wants the word 'python' in it."""
    return f"conf-profile/python:local-{source_hash()}"
