"""The options that several commands share: how a run is configured, and what serves a model on a cluster."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from conf_profile.config import RunConfig


def config_options(command: Callable[..., None]) -> Callable[..., None]:
    """Adds --preset, --config, --dataset, --data, --users, --seed and --set; the command receives a RunConfig.

    Its paths are absolute: whatever says them, they are relative to the working directory of the call.
    """

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
        from conf_profile.cli.config_paths import resolve_with_paths

        data = {"name": dataset, "path": str(data_path) if data_path else None, "users": users}
        given: dict[str, Any] = {key: value for key, value in data.items() if value is not None}
        values: dict[str, Any] = {"data": given} | ({} if seed is None else {"seed": seed})
        command(config=resolve_with_paths(preset, file, overrides, values), **rest)

    return with_config


def serving_options(required: bool) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Adds the options that say what serves the model; the command receives `serving`, None where none is named."""

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        @click.option("--inference-service", "name", required=required, help="The InferenceService that serves it.")
        @click.option("--namespace", default="default", show_default=True, help="Its namespace.")
        @click.option("--url", default="", help="Its transformer, as reached from here; default: inside the cluster.")
        @click.option("--served-as", default="conf-profile", show_default=True, help="The model's name in the API.")
        @click.option("--user", "users", multiple=True, help="Ask for this user of the feature store, too.")
        @click.option(
            "--ready-seconds", type=click.FloatRange(1), default=1500.0, show_default=True, help="For the new pods."
        )
        @functools.wraps(command)
        def with_serving(
            name: str | None,
            namespace: str,
            url: str,
            served_as: str,
            users: tuple[str, ...],
            ready_seconds: float,
            **rest: Any,
        ) -> None:
            from conf_profile.rollout.rollout import Serving

            serving = Serving(name, namespace, url, served_as, users, ready_seconds) if name else None
            command(serving=serving, **rest)

        return with_serving

    return decorate


def default_folder(config: RunConfig) -> Path:
    """runs/DATASET-PRESET: the next run of the same kind competes with the champion that lies there."""
    return Path("runs") / f"{config.data.name}-{config.preset}"
