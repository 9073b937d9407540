"""From the configuration to a data set's folder: generate, fetch, or check the user's own tables."""

from __future__ import annotations

from pathlib import Path

from conf_profile.config import RunConfig
from conf_profile.data.dataset import Dataset
from conf_profile.errors import ConfigError


def build_in_run_folder(folder: Path, config: RunConfig) -> Dataset:
    """The data set in a run's folder: made there once for these users and this seed."""
    users = config.data.users or "all"
    return build(config, folder / "data" / f"{config.data.name}-{users}-{config.seed}")


def build(config: RunConfig, folder: Path) -> Dataset:
    """The data set that the configuration names; generated files go to `folder`, your own stay where they are."""
    data = config.data
    if data.name == "world":
        from conf_profile.data.world import files as world_files

        return world_files.build(folder, data.users or 3000, config.seed, data.world, data.lexicon)
    if data.name == "movielens-100k":
        from conf_profile.data.movielens import movielens
        from conf_profile.data.movielens.sources import default_cache

        return movielens.build(folder, data.path, data.users, default_cache(), config.seed)
    from conf_profile.data import own

    if data.path is None:
        raise ConfigError("data.name 'parquet' needs data.path: the folder of your tables")
    if data.users is not None:
        raise ConfigError("data.users does not apply to your own tables: all users in them are read; set it to null")
    return own.check_folder(data.path)
