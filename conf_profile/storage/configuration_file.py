"""The resolved configuration of a run as a file under its own hash: what report and model card are made from.

Whoever starts a run writes it once; the steps get its address, which keeps their arguments small. A pipeline that was
compiled without a store carries the differences from the defaults in the place of the address.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import yaml
from pydantic import ValidationError

from conf_profile.config import RunConfig
from conf_profile.errors import ConfigError
from conf_profile.files import write_text
from conf_profile.storage import object_store
from conf_profile.storage.object_address import is_remote
from conf_profile.storage.object_store import ObjectStore
from conf_profile.strict_model import explain

FOLDER = "configurations"


def name_of(config: RunConfig) -> str:
    """The file's name: it changes with the content."""
    return f"{hashlib.sha256(config.to_yaml().encode()).hexdigest()[:24]}.yaml"


def write(config: RunConfig, folder: Path) -> str:
    """Writes the configuration into a folder of this machine; its path."""
    path = folder / FOLDER / name_of(config)
    if not path.is_file():
        write_text(path, config.to_yaml())
    return str(path)


def upload(config: RunConfig, store: ObjectStore) -> str:
    """Writes the configuration into the store, where it may be already; its key."""
    key = f"{FOLDER}/{name_of(config)}"
    store.write_new(key, config.to_yaml().encode())
    return key


def inline(config: RunConfig) -> str:
    """The differences from the defaults, in the place of an address."""
    return config.for_step() or "{}"


def read(place: str) -> RunConfig:
    """Reads a configuration from a path, an s3:// address or its own text; ConfigError says what is wrong with it."""
    refusal = f"{place[:200]}: not a resolved configuration of this release"
    try:
        return RunConfig.model_validate(yaml.safe_load(_text(place)))
    except yaml.YAMLError as error:
        raise ConfigError(f"{refusal}: {error}") from error
    except ValidationError as error:
        raise ConfigError(f"{refusal}: {explain(error, 'run')}") from error


def _text(place: str) -> str:
    if place.startswith("{"):
        return place
    if not is_remote(place):
        return _file_text(place)
    store, key = object_store.locate(place)
    stored = store.read(key)
    if stored is None:
        raise ConfigError(f"{place}: there is no such object; start the run anew, which writes it")
    return stored.body.decode("utf-8", errors="replace")


def _file_text(place: str) -> str:
    try:
        return Path(place).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{place or 'configuration'}: cannot be read: {error}; run again, which writes it") from error
