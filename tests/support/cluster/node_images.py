"""The project's images on a node that really runs pods: which they are, whether they are there, how they get there.

Names are those of this checkout (`make images`), or of the file IMAGE_TAGS, which `make images-save` writes. With
IMAGE_REGISTRY the nodes pull them. Otherwise they must lie on the node, or IMAGE_LOADER is a command that gives it a
docker-archive, such as `kind load image-archive`: then what is missing is built, saved and loaded here.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from charts import images
from conf_profile.errors import ImageError
from support.cluster.kube import Cluster, until

TARGETS = ("serving", "predictor-cpu")
ONLINE_STORE = "localhost/conf-profile-tests/online-store:1"
"""Debian's Redis on the project's base image, for nodes that pull nothing; otherwise the chart's own is pulled."""
_ONLINE_STORE = """\
ARG BASE_IMAGE
FROM ${BASE_IMAGE}
RUN apt-get update -qq && apt-get install -qq -y --no-install-recommends redis-server && rm -rf /var/lib/apt/lists/*
USER 65532:65532
"""


def real_node(cluster: Cluster) -> dict[str, Any]:
    """A node that runs pods, not one that is played; skips where there is none."""
    for node in cluster.get("nodes"):
        ready = any(each["type"] == "Ready" and each["status"] == "True" for each in node["status"]["conditions"])
        if ready and "kwok.x-k8s.io/node" not in node["metadata"].get("annotations", {}):
            return dict(node)
    pytest.skip("the cluster has no node on which pods really run: use kind, or a cluster with nodes")


def values(cluster: Cluster, folder: Path) -> dict[str, Any]:
    """The chart's `images`, and the program of the online store; skips where the node cannot have the images."""
    names = _names()
    found: dict[str, Any] = {"serving": _split(names["serving"]), "predictorCpu": _split(names["predictor-cpu"])}
    if os.environ.get("IMAGE_REGISTRY"):
        return {"images": found}
    loaded = bool(os.environ.get("IMAGE_LOADER")) or ONLINE_STORE in _there(cluster)
    _bring(cluster, {names[target] for target in TARGETS} | ({ONLINE_STORE} if loaded else set()), folder)
    if not loaded:
        return {"images": found}
    return {
        "images": {**found, "onlineStore": _split(ONLINE_STORE)},
        "features": {"onlineStore": {"inside": {"program": "redis"}}},
    }


def _names() -> Mapping[str, str]:
    tags = os.environ.get("IMAGE_TAGS")
    if tags:
        return dict(json.loads(Path(tags).read_text(encoding="utf-8")))
    named = subprocess.run(
        [sys.executable, "-m", "charts.images", "names", *TARGETS], capture_output=True, text=True, check=True
    )
    return dict(zip(TARGETS, named.stdout.split(), strict=True))


def _bring(cluster: Cluster, wanted: set[str], folder: Path) -> None:
    missing = sorted(wanted - _there(cluster))
    loader = shlex.split(os.environ.get("IMAGE_LOADER", ""))
    if missing and not loader:
        pytest.skip(
            f"the node has no {', '.join(missing)}: set IMAGE_LOADER to what loads a docker-archive "
            "(kind load image-archive), or IMAGE_REGISTRY to where the nodes pull from"
        )
    for name in missing:
        engine, archive = _built(name), folder / "image.tar"
        images.save(engine, name, archive)
        subprocess.run([*loader, str(archive)], check=True)
        archive.unlink()
    # The node tells its images with its status, seconds later.
    until("the node has the images", lambda: wanted <= _there(cluster), seconds=120)


def _there(cluster: Cluster) -> set[str]:
    return {name for image in real_node(cluster)["status"].get("images", []) for name in image["names"]}


def _built(name: str) -> str:
    """The engine that has the image; it is built unless it is there."""
    try:
        engine = images.find_engine(os.environ.get("ENGINE"))
    except ImageError as error:
        pytest.skip(f"images cannot be built: {error}")
    if not images.has_image(engine, name):
        _build(engine, name)
    return engine


def _build(engine: str, name: str) -> None:
    base = os.environ.get("BASE_IMAGE") or images.BASE_IMAGE
    if not images.has_image(engine, base):
        pytest.skip(f"{engine} has no image {base}, which the others are built on: pull it, or set BASE_IMAGE")
    if name == ONLINE_STORE:
        further = shlex.split(os.environ.get("ENGINE_ARGS", ""))
        command = [engine, "build", f"--tag={name}", f"--build-arg=BASE_IMAGE={base}", *further, "-"]
        subprocess.run(command, input=_ONLINE_STORE, text=True, check=True)
    else:
        target = name.rsplit("/", 1)[1].split(":")[0]
        subprocess.run([sys.executable, "-m", "charts.images", "build", target], check=True)


def _split(name: str) -> dict[str, str]:
    repository, _, tag = name.rpartition(":")
    return {"repository": repository, "tag": tag}
