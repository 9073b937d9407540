"""The serving image, built for real: what lies in it, what it says of itself, and that it runs with nothing writable.

Needs a container engine, and the base image (the variable BASE_IMAGE names another than python:3.11-slim) in its store;
ENGINE and ENGINE_ARGS are as for `make images`.
"""

import json
import os
import re
import shlex
import subprocess
import tarfile
from dataclasses import dataclass

import pytest

from charts import images
from charts.images import IMAGES, Settings
from conf_profile.errors import ImageError

pytestmark = pytest.mark.slow

SERVING = IMAGES["serving"]
SETTINGS = Settings(base_image=os.environ.get("BASE_IMAGE") or images.BASE_IMAGE)
MEGABYTE = 10**6


@dataclass(frozen=True)
class Saved:
    """One image as its docker-archive tells it; `files` are those of its own layers, `bytes` are of all."""

    tags: list[str]
    config: dict
    files: set[str]
    bytes: int

    @property
    def layers(self):
        return self.config["rootfs"]["diff_ids"]


@pytest.fixture(scope="module")
def engine():
    try:
        found = images.find_engine(os.environ.get("ENGINE"))
    except ImageError as error:
        pytest.skip(f"no container engine: {error}")
    if not images.has_image(found, SETTINGS.base_image):
        pytest.skip(
            f"{found} has no image {SETTINGS.base_image}: `{found} pull` it, or set BASE_IMAGE to one that is there"
        )
    return found


@pytest.fixture(scope="module")
def name(engine):
    return images.build(engine, SERVING, SETTINGS, shlex.split(os.environ.get("ENGINE_ARGS", "")))


@pytest.fixture(scope="module")
def saved(engine, name, tmp_path_factory):
    path = tmp_path_factory.mktemp("images") / "image.tar"
    images.save(engine, SETTINGS.base_image, path)
    base = read(path)
    images.save(engine, name, path)
    found = read(path, len(base.layers))
    assert found.layers[: len(base.layers)] == base.layers, "the image begins with the base image's layers"
    yield found
    path.unlink()


def read(path, skipped=0):
    """docker-archive: manifest.json names the configuration and the layers, which are plain tar files.

    The files of the first layers may be skipped: what the base image brings is not the project's to judge.
    """
    with tarfile.open(path) as archive:
        (manifest,) = json.load(archive.extractfile("manifest.json"))
        config = json.load(archive.extractfile(manifest["Config"]))
        files, size = set(), 0
        for number, layer in enumerate(manifest["Layers"]):
            with tarfile.open(fileobj=archive.extractfile(layer)) as content:
                for member in content:
                    size += member.size
                    if number >= skipped:
                        files.add(member.name.removeprefix("./"))
    return Saved(manifest["RepoTags"], config, files, size)


def run(engine, name, *command):
    """Nothing writable but /tmp, no network, a user that nobody has heard of."""
    if engine == "buildah":
        pytest.skip("buildah keeps no containers that run: podman or docker would run the image")
    options = ["--rm", "--read-only", "--tmpfs=/tmp", "--network=none", "--user=123456:0", "--cap-drop=all"]
    return subprocess.run([engine, "run", *options, "--entrypoint=", name, *command], capture_output=True, text=True)


def test_the_archive_has_the_name_that_was_asked_for(name, saved):
    assert saved.tags == [name]
    assert name == images.reference(SERVING, SETTINGS)


def test_a_second_build_builds_nothing(engine, name):
    assert images.build(engine, SERVING, SETTINGS, ["--an-option-that-no-engine-has"]) == name


def test_the_image_is_small_enough(saved):
    assert saved.bytes < 900 * MEGABYTE


def test_the_user_is_a_number_and_the_labels_say_what_it_is(saved):
    config = saved.config["config"]
    labels = {key.removeprefix("org.opencontainers.image."): value for key, value in config["Labels"].items()}
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", config["User"])
    assert (labels["title"], labels["licenses"]) == ("conf-profile/serving", "Apache-2.0")
    assert labels["version"] in images.reference(SERVING, SETTINGS)
    assert config["Entrypoint"] == ["python", "-m", "serving"]


def test_neither_history_nor_environment_tells_how_the_index_was_reached(saved):
    told = json.dumps([saved.config["history"], saved.config["config"]["Env"]])
    assert not re.search(r"(PIP_\w*INDEX\w*|UV_\w*INDEX\w*|\w+_PROXY|PIP_CERT|SSL_CERT_FILE)=", told, re.IGNORECASE)


@pytest.mark.parametrize(
    "unwanted",
    [
        r"usr/bin/(gcc|cc|g\+\+|clang|ld|make)$",
        r"(root|tmp)/.*cache.*/.",
        r"var/lib/apt/lists/.*(Packages|Release)",
        r"run/secrets/.",
        r"opt/conf-profile/(tests|benchmarks)/",
        r"opt/venv/.*/tests/",
        r"opt/venv/.*/(torch|vllm|transformers|trl|mypy|pip|uv)/__init__\.py$",
        r"cache/.",
    ],
)
def test_nothing_lies_in_it_that_nobody_needs(saved, unwanted):
    assert [file for file in saved.files if re.match(unwanted, file)] == []


def test_what_is_imported_is_compiled(saved):
    sources = {file for file in saved.files if re.match(r"opt/.*/(serving|kserve|feast)/[a-z_]+\.py$", file)}
    compiled = {re.sub(r"([a-z_]+)\.py$", r"__pycache__/\1.cpython-311.pyc", source) for source in sources}
    assert len(sources) > 30
    assert compiled <= saved.files


@pytest.mark.parametrize(
    "command",
    [
        ("python", "-m", "serving", "--help"),
        ("python", "-m", "serving.storage", "--help"),
        ("conf-profile", "--help"),
        ("conf-profile", "config", "--preset", "qwen3-8b"),
        ("conf-profile", "compile", "--out", "/tmp/pipeline.yaml"),
        ("python", "-c", "import boto3, feast, kfp, kserve, kubernetes, redis"),
    ],
    ids=" ".join,
)
def test_it_runs_for_any_user_with_nothing_writable_and_no_network(engine, name, command):
    result = run(engine, name, *command)
    assert result.returncode == 0, result.stderr


def test_a_model_that_is_not_there_ends_with_a_message(engine, name):
    result = run(engine, name, "python", "-m", "serving", "--settings", "/nowhere.yaml")
    assert (result.returncode, result.stderr.splitlines()[-1]) == (
        2,
        "serving: /nowhere.yaml: cannot be read: No such file or directory",
    )
