"""The options that the pipeline's commands share."""

from __future__ import annotations

from collections.abc import Callable

import click


def until_option(command: Callable[..., None]) -> Callable[..., None]:
    """Adds --until; the command receives a step's name, empty for the whole pipeline."""
    return click.option("--until", default="", metavar="STEP", help="End after this step; default: the last one.")(
        command
    )
