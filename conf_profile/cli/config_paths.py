"""Paths of a configuration as the command line means them: relative to the working directory of the call.

Steps run in other folders and processes, so a path is made absolute once, before anything reads it. That holds for
paths in a `--config` file, too: a call means the same whether it names a path itself or in a file.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import click

from conf_profile.config import RunConfig, StudentConfig, TeacherConfig, resolve
from conf_profile.config_layers import merge
from conf_profile.errors import ConfigError

SectionT = TypeVar("SectionT", StudentConfig, TeacherConfig)


def resolve_with_paths(
    preset: str, file: Path | None, overrides: Iterable[str], values: Mapping[str, Any]
) -> RunConfig:
    """`config.resolve` with absolute paths. A folder of tables without a data set's name means `parquet`.

    ConfigError for a folder that the generated world would not read.
    """
    overrides = tuple(overrides)
    config = resolve(preset, file, overrides, values)
    if config.data.path is not None and config.data.name == "world":
        config = _resolve_own_tables(config.data.path, preset, file, overrides, values)
    return make_paths_absolute(config, Path.cwd())


def make_paths_absolute(config: RunConfig, folder: Path) -> RunConfig:
    """The configuration with its relative paths taken from `folder`.

    `student.model` and `teacher.model` may be names of a hub: they are paths where such a folder exists, or where they
    begin with `.`, `/` or `~`.
    """
    data = config.data
    if data.path is not None:
        data = data.model_copy(update={"path": _absolute(str(data.path), folder)})
    return config.model_copy(
        update={"data": data, "student": _with_path(config.student, folder), "teacher": _teacher(config, folder)}
    )


def is_path(model: str) -> bool:
    """Whether the name of a model can only be a path."""
    return model.startswith((".", "/", "~"))


def _resolve_own_tables(
    path: Path, preset: str, file: Path | None, overrides: tuple[str, ...], values: Mapping[str, Any]
) -> RunConfig:
    from conf_profile.data.dataset import BEHAVIOUR

    has_tables = (path.expanduser() / BEHAVIOUR).exists()
    own = resolve(preset, file, overrides, merge(values, {"data": {"name": "parquet"}}))
    if not path.expanduser().exists():
        raise ConfigError(f"data.path {path}: there is no such folder; name the one with your tables with --data")
    named = values.get("data", {}).get("name") is not None
    if named or not has_tables or own.data.name == "world":
        lack = "" if has_tables else f" (it has no {BEHAVIOUR})"
        raise ConfigError(
            f"data.path {path}: the data set 'world' is generated and reads no folder; give --dataset parquet for your "
            f"own tables{lack}, --dataset movielens-100k for GroupLens's files, or leave the path out"
        )
    click.echo(f"{path}: has {BEHAVIOUR}, so the data set is parquet (--dataset parquet)", err=True)
    return own


def _teacher(config: RunConfig, folder: Path) -> TeacherConfig:
    return _with_path(config.teacher, folder) if config.teacher.kind == "vllm" else config.teacher


def _with_path(section: SectionT, folder: Path) -> SectionT:
    model = section.model
    if model is None or not (is_path(model) or (folder / model).is_dir()):
        return section
    return section.model_copy(update={"model": str(_absolute(model, folder))})


def _absolute(path: str, folder: Path) -> Path:
    return (folder / Path(path).expanduser()).resolve()
