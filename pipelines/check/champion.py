"""The task of the champion that a run will compete with: both must answer the same questions."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from conf_profile.config import StorageConfig
from conf_profile.dialogue import task as tasks
from conf_profile.dialogue.task import Task
from conf_profile.errors import RegistryError
from conf_profile.storage.object_address import environment_endpoint

if TYPE_CHECKING:
    from conf_profile.registry.registry import Registry


@contextmanager
def open_registry(config: StorageConfig, folder: Path) -> Iterator[Registry | None]:
    """The registry of a run in `folder`; None where the run would begin its own. RegistryError where none answers."""
    from conf_profile.registry import registry
    from conf_profile.storage.local_s3 import local_s3

    if uses_endpoint(config):
        yield _connect(config)
    elif (folder / "s3" / "data").is_dir():
        with local_s3(folder / "s3") as access:
            yield registry.connect(config, access, create_bucket=False)
    else:
        yield None


def _connect(config: StorageConfig) -> Registry | None:
    from conf_profile.registry import registry
    from conf_profile.storage.object_errors import code

    try:
        return registry.connect(config, create_bucket=False)
    except RegistryError as error:
        # The run makes its bucket.
        if code(error.__cause__) == "NoSuchBucket":
            return None
        raise


def uses_endpoint(config: StorageConfig) -> bool:
    """Whether the models are in a store that somebody named, not in the run's folder."""
    return bool(config.endpoint or environment_endpoint())


def read_champion(registry: Registry) -> tuple[str, Task] | None:
    """The champion's version and its task; None before the first promotion."""
    if registry.champion() is None:
        return None
    version = registry.show()
    name = tasks.file_name(version.files)
    if name not in version.files:
        raise RegistryError(f"{registry.uri(version.name)}: has no {name}; promote another version")
    return version.name, tasks.parse_file(registry.read(version, name), f"{registry.uri(version.name)}: {name}")


def find_differences(task: Task, champion: Task) -> list[str]:
    """What keeps the two from being compared, in words: other attributes or tags. Words of the prompt do not."""
    found = [f"attribute {name} is new" for name in task.names if name not in champion.names]
    found += [f"attribute {name} is gone" for name in champion.names if name not in task.names]
    for name in task.names:
        if name in champion.names and set(task[name].tags) != set(champion[name].tags):
            found.append(f"{name} has the tags {', '.join(task[name].tags)} (before: {', '.join(champion[name].tags)})")
    return found


def find_missing_features(task: Task, champion: Task) -> list[str]:
    """What the champion was trained on and will not be given in the comparison, in words; further features are fine."""
    types = {name: kind for name, kind in task.features.types.items() if name in champion.features.types}
    return champion.features.differences(types)
