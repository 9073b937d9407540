"""A run's folder, for whoever comes after the pipeline: its arguments, its lock, and what it has put elsewhere."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from filelock import FileLock, Timeout

from conf_profile import tables
from conf_profile.errors import DataError, PipelineError
from conf_profile.files import write_text

OUTSIDE_FOLDERS = "elsewhere.json"
ARGUMENTS = Path("workspace") / "arguments.json"
WARNINGS = Path("workspace") / "warnings.json"
"""What the check before the run warned of; it names no user."""


@contextmanager
def lock_run_folder(folder: Path) -> Iterator[None]:
    """Two that work in one folder would overwrite each other's work; PipelineError tells the second to wait."""
    try:
        held = FileLock(folder / "run.lock").acquire(timeout=0)
    except Timeout as error:
        raise PipelineError(
            f"{folder}: another run, backfill or erasure is under way in this folder; wait for its end "
            "(or give a run another --out)"
        ) from error
    with held:
        yield


def read_arguments(folder: Path) -> dict[str, Any]:
    """What the run's pipeline was given last; DataError where none has begun."""
    return tables.read_json(folder / ARGUMENTS, "give the folder of a run that has begun")


def find_run(place: str) -> Path | None:
    """The folder of the run on this machine that a file lies in, by its absolute path; None for any other place."""
    path = Path(place)
    return next((folder for folder in path.parents if path.is_absolute() and (folder / ARGUMENTS).is_file()), None)


def read_configuration(given: Mapping[str, Any]) -> dict[str, Any]:
    """The run's resolved configuration, from its pipeline's arguments; DataError where it cannot be read.

    Arguments name a YAML file of it; those of older runs hold it themselves.
    """
    found = json.loads(given["run_config"]) if "run_config" in given else _yaml(Path(given["configuration"]))
    if not isinstance(found, dict):
        raise DataError("arguments.json: the run's configuration is no mapping; run the pipeline in this folder again")
    return found


def write_warnings(folder: Path, warnings: Sequence[str]) -> None:
    """Keeps the warnings of the check before the run for its report."""
    write_text(folder / WARNINGS, json.dumps({"warnings": list(warnings)}, indent=2, ensure_ascii=False))


def read_warnings(folder: Path) -> list[str]:
    """The warnings that were kept; none in folders of earlier releases."""
    path = folder / WARNINGS
    return list(tables.read_json(path, "run the pipeline again")["warnings"]) if path.is_file() else []


def note_outside_folder(folder: Path, place: Path) -> None:
    """Notes a folder outside the run's that holds rows of its users, so that an erasure finds it again."""
    place = place.resolve()
    known = read_outside_folders(folder)
    if place not in known and not place.is_relative_to(folder.resolve()):
        write_text(folder / OUTSIDE_FOLDERS, json.dumps({"folders": [*map(str, known), str(place)]}, indent=2))


def read_outside_folders(folder: Path) -> list[Path]:
    """The folders that were noted."""
    path = folder / OUTSIDE_FOLDERS
    return [Path(name) for name in tables.read_json(path, "put it right by hand")["folders"]] if path.is_file() else []


def _yaml(path: Path) -> Any:
    advice = "run the pipeline in this folder again"
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}; {advice}") from error
    except yaml.YAMLError as error:
        raise DataError(f"{path}: not valid YAML: {error}; {advice}") from error
