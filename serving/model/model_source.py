"""Where a model comes from: a folder, or the registry in S3 by a champion URI.

`champion://BUCKET/models/NAME` is the champion of this moment, `...@VERSION` a version for good. The registry is at
AWS_ENDPOINT_URL, or at Amazon's own S3 where CONF_PROFILE_S3_ENDPOINT is `aws`; keys come from where boto3 looks.
"""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from conf_profile.registry.format import MODEL_URI_VARIABLE, SCHEME, ModelURI, parse_uri
from conf_profile.registry.version_files import MANIFEST
from serving.model import bundle
from serving.model.bundle import Bundle

if TYPE_CHECKING:
    from conf_profile.registry.registry import Registry

MODEL_FOLDER = "CONF_PROFILE_MODEL_FOLDER"
"""Where the files of the versions are put, without weights; default: a temporary folder."""


def open_registry(uri: ModelURI) -> Registry:
    """The registry of a model URI. RegistryError where server, keys or bucket are wrong."""
    from conf_profile.config import StorageConfig, parse_section
    from conf_profile.registry import registry

    given = {"bucket": uri.bucket, "model": uri.model}
    return registry.connect(parse_section(StorageConfig, json.dumps(given)), create_bucket=False)


def open_source(model: str) -> FolderSource | RegistrySource:
    """The source that the settings' `model` names, or the environment in its place."""
    given = os.environ.get(MODEL_URI_VARIABLE) or model
    if not given.startswith(SCHEME):
        return FolderSource(Path(given))
    folder = os.environ.get(MODEL_FOLDER)
    return RegistrySource(parse_uri(given), Path(folder or tempfile.mkdtemp(prefix="conf-profile-models-")))


class FolderSource:
    """One model's folder; it knows no other version."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def load(self) -> Bundle:
        """The model; ConfProfileError names what is missing or broken."""
        return bundle.load(self._folder)

    def find(self, version: str) -> Bundle | None:
        return None


class RegistrySource:
    """The versions of one model; each is fetched once, its hashes verified, and kept in a folder of its own."""

    def __init__(self, uri: ModelURI, folder: Path) -> None:
        self._uri, self._folder = uri, folder

    def load(self) -> Bundle:
        """The version that the URI names. A pinned one that is there already needs no S3."""
        if self._uri.version and (self._folder / self._uri.version / MANIFEST).is_file():
            return bundle.load(self._folder / self._uri.version)
        return self._fetch(open_registry(self._uri), self._uri.version)

    def find(self, version: str) -> Bundle | None:
        """A version by its name, None where the registry has none; RegistryError where it cannot be asked."""
        registry = open_registry(self._uri)
        return self._fetch(registry, version) if registry.find(version) else None

    def _fetch(self, registry: Registry, version: str | None) -> Bundle:
        from conf_profile.registry.download import exclude_weights

        name = registry.show(version).name
        if not (self._folder / name / MANIFEST).is_file():
            registry.fill(name, self._folder / name, exclude_weights)
        return bundle.load(self._folder / name)
