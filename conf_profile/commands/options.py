"""The options that several commands share: how a run is configured."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from conf_profile.config import RunConfig, resolve


def config_options(command: Callable[..., None]) -> Callable[..., None]:
    """Adds --preset, --config, --dataset, --users, --seed and --set; the command receives a RunConfig."""

    @click.option("--preset", default="tiny", show_default=True, help="tiny, smollm2 or qwen3-8b.")
    @click.option("--config", "file", type=click.Path(path_type=Path), help="Your YAML file, over the preset.")
    @click.option("--dataset", help="world, movielens-100k or parquet.")
    @click.option("--data", "data_path", type=click.Path(path_type=Path), help="Folder of your tables (parquet).")
    @click.option("--users", type=int, help="How many users; default: the preset's.")
    @click.option("--seed", type=int, help="Seed of data, sampling and training.")
    @click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="e.g. --set grpo.steps=20")
    @functools.wraps(command)
    def with_config(
        preset: str,
        file: Path | None,
        dataset: str | None,
        data_path: Path | None,
        users: int | None,
        seed: int | None,
        overrides: tuple[str, ...],
        **rest: Any,
    ) -> None:
        data = {"name": dataset, "path": str(data_path) if data_path else None, "users": users}
        given: dict[str, Any] = {key: value for key, value in data.items() if value is not None}
        if dataset not in (None, "world") and users is None:
            given["users"] = None  # all that there are; the preset's number is the world's
        values: dict[str, Any] = {"data": given} | ({} if seed is None else {"seed": seed})
        command(config=resolve(preset, file, overrides, values), **rest)

    return with_config


def default_folder(config: RunConfig) -> Path:
    """runs/DATASET-PRESET: the next run of the same kind competes with the champion that lies there."""
    return Path("runs") / f"{config.data.name}-{config.preset}"
