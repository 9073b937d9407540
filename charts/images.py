"""The container images: names made of their content, and how podman, buildah or docker builds and saves them.

    python -m charts.images names | build [TARGET...]

It works on a checkout (Dockerfile, lock files, sources) and needs nothing but Python and an engine. KFP's cache and a
rolling update look at an image's name alone: what has changed must have another name, and what has not the same one.
So a tag is the version and a hash of all that goes into the image, an image that is there under its name is not built
again, and nothing is ever tagged `latest`.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from components.image import HASH_DIGITS
from conf_profile import __version__
from conf_profile.errors import ConfProfileError, ImageError
from conf_profile.files import atomic_path, write_text

ROOT = Path(__file__).resolve().parent.parent
ENGINES = ("podman", "buildah", "docker")
BASE_IMAGE = "docker.io/library/python:3.11-slim"
LOCK = "requirements.lock"
FILES = ("Dockerfile", "pyproject.toml", "install.sh", "LICENSE")
ROOMS = ("components", "conf_profile", "configs", "feature_repo", "pipelines", "serving")
_VIA_LINE = re.compile(r"^    #(?: via)? +(\S.*)$", re.MULTILINE)
_EXCLUDED_FOLDERS = ("__pycache__", "tests")
_NETWORK = ("PIP_", "UV_INDEX", "UV_DEFAULT_INDEX", "UV_EXTRA_INDEX", "UV_HTTP_TIMEOUT", "UV_KEYRING")
_PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")
# Files of this machine: they mean nothing to a build.
_LOCAL_VARIABLES = (
    "PIP_FIND_LINKS",
    "PIP_CERT",
    "PIP_CONFIG_FILE",
    "PIP_CACHE_DIR",
    "PIP_CONSTRAINT",
    "PIP_CLIENT_CERT",
)
_CERTIFICATES = ("PIP_CERT", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE")


@dataclass(frozen=True)
class Image:
    """A target of the Dockerfile, and the group of pyproject.toml that names its packages.

    `torch` says whether it depends on which build of torch there is.
    """

    target: str
    group: str
    torch: bool


IMAGES = {
    image.target: image
    for image in (
        Image("serving", "image-serving", torch=False),
        Image("training", "image-training", torch=True),
        Image("predictor-cpu", "image-predictor", torch=True),
    )
}


@dataclass(frozen=True)
class Settings:
    """What differs between builds. `registry` begins the names; `wheels` is a folder that goes before the index."""

    registry: str = "localhost"
    base_image: str = BASE_IMAGE
    torch_index: str = ""
    training_packages: str = ""
    wheels: Path | None = None
    source: str = ""


def reference(image: Image, settings: Settings, root: Path = ROOT) -> str:
    """REGISTRY/conf-profile/TARGET:VERSION-HASH; the same for the same content, on every machine."""
    tag = f"{__version__}-{content_hash(image, settings, root)}"
    return f"{settings.registry.rstrip('/')}/conf-profile/{image.target}:{tag}"


def content_hash(image: Image, settings: Settings, root: Path = ROOT) -> str:
    """12 hexadecimal digits over the Dockerfile, its part of the lock, the sources and the settings that matter."""
    packages = locked_packages(image.group, (root / LOCK).read_text(encoding="utf-8"))
    digest = hashlib.sha256(json.dumps([_ingredients(image, settings), packages]).encode())
    for path in _files(root):
        digest.update(str(path.relative_to(root)).encode() + b"\0")
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()[:HASH_DIGITS]


def _ingredients(image: Image, settings: Settings) -> list[Any]:
    found: list[Any] = [image.target, settings.base_image]
    if image.torch:
        wheels = sorted(path.name for path in settings.wheels.glob("*.whl")) if settings.wheels else []
        found += [settings.torch_index, wheels]
    if image.target == "training":
        found.append(settings.training_packages)
    return found


def locked_packages(group: str, lock: str) -> dict[str, str]:
    """The packages of a group and what these bring along, each with its lines (version, hashes) in the lock.

    The lock says of each package on whose account it is there. What a package brings along for one group alone (an
    extra) counts for every group that has it: a name too many, never one too few.
    """
    lines = {block.partition("==")[0]: block for block in re.split(r"^(?=\w)", lock, flags=re.MULTILINE)[1:]}
    wanted_by = {name: set(_VIA_LINE.findall(block)) for name, block in lines.items()}
    found = {name for name, wanting in wanted_by.items() if f"conf-profile (pyproject.toml:{group})" in wanting}
    while more := {name for name, wanting in wanted_by.items() if wanting & found} - found:
        found |= more
    return {name: lines[name] for name in sorted(found)}


def _files(root: Path) -> list[Path]:
    rooms = [path for room in ROOMS for path in (root / room).rglob("*") if path.is_file()]
    kept = [path for path in rooms if not set(_EXCLUDED_FOLDERS) & set(path.parts) and path.suffix != ".pyc"]
    return sorted([*(root / name for name in FILES), *kept])


def find_engine(asked: str | None = None) -> str:
    """The engine asked for, else the first that works; ImageError where there is none."""
    for engine in [asked] if asked else ENGINES:
        if shutil.which(engine) and _run_captured([engine, "info"]).returncode == 0:
            return engine
    raise ImageError(
        f"{asked or ', '.join(ENGINES)}: not installed, or not working: install podman, buildah or docker, "
        f"see what `{asked or 'podman'} info` says, or name another with ENGINE"
    )


def has_image(engine: str, name: str) -> bool:
    """Whether the engine has this image."""
    return _run_captured([engine, "inspect", "--type", "image", name]).returncode == 0


def size(engine: str, name: str) -> str:
    """As the engine states it: uncompressed, the base image included."""
    return _run_captured([engine, "images", "--format", "{{.Size}}", name]).stdout.strip().splitlines()[0]


def build(engine: str, image: Image, settings: Settings, further: Sequence[str] = ()) -> str:
    """Builds the image unless it is there, and returns its name; `further` are arguments of the engine's own."""
    name = reference(image, settings)
    if not has_image(engine, name):
        with network_secrets() as secrets:
            command = build_command(engine, image, name, settings, [*secrets, *further])
            _run_shown(command, f"the build of {name} failed", {"DOCKER_BUILDKIT": "1"})
    return name


def build_command(engine: str, image: Image, name: str, settings: Settings, further: Sequence[str] = ()) -> list[str]:
    """What the engine is called with, in the checkout."""
    arguments = {
        "BASE_IMAGE": settings.base_image,
        "VERSION": __version__,
        "REVISION": _revision(),
        "SOURCE": settings.source or _remote(),
    }
    if image.torch:
        arguments["TORCH_INDEX"] = settings.torch_index
    if image.target == "training":
        arguments["TRAINING_PACKAGES"] = settings.training_packages
    command = [engine, "build", "--file", "Dockerfile", "--target", image.target, "--tag", name]
    command += [f"--build-arg={key}={value}" for key, value in arguments.items()]
    if image.torch and settings.wheels:
        command.append(f"--build-context=wheels={settings.wheels}")
    if engine == "buildah":
        command.append("--layers")
    return [*command, *further, "."]


@contextmanager
def network_secrets(environment: Mapping[str, str] = os.environ) -> Iterator[list[str]]:
    """The engine's options that hand index, proxies and certificates to the build's commands, and to no layer."""
    with tempfile.TemporaryDirectory() as folder:
        # TemporaryDirectory is readable by its owner alone.
        network = Path(folder) / "network"
        network.write_text(
            "".join(f"{key}={shlex.quote(value)}\n" for key, value in _network(environment).items()), encoding="utf-8"
        )
        options = [f"--secret=id=network,src={network}"]
        bundle = next((environment[key] for key in _CERTIFICATES if environment.get(key)), None)
        if bundle and Path(bundle).is_file():
            options.append(f"--secret=id=certificates,src={bundle}")
        yield options


def _network(environment: Mapping[str, str]) -> dict[str, str]:
    found = {
        key: value
        for key, value in environment.items()
        if (key.startswith(_NETWORK) or key.upper() in _PROXIES) and key not in _LOCAL_VARIABLES
    }
    # uv reads none of pip's variables.
    for ours, pips in (("UV_DEFAULT_INDEX", "PIP_INDEX_URL"), ("UV_INDEX", "PIP_EXTRA_INDEX_URL")):
        if pips in found:
            found.setdefault(ours, found[pips])
    return found


def save(engine: str, name: str, path: Path) -> None:
    """Writes one image as a docker-archive, whole or not at all."""
    with atomic_path(path, one_writer=True, error=ImageError) as temporary:
        commands = {
            "podman": ["podman", "save", "--quiet", "--format", "docker-archive", "--output", str(temporary), name],
            "buildah": ["buildah", "push", "--quiet", name, f"docker-archive:{temporary}:{name}"],
            "docker": ["docker", "save", "--output", str(temporary), name],
        }
        _run_shown(commands[engine], f"{name} could not be saved")


def _revision() -> str:
    """The commit, marked where the checkout holds changes; empty outside git."""
    commit = _run_captured(["git", "rev-parse", "HEAD"])
    if commit.returncode:
        return ""
    changed = _run_captured(["git", "status", "--porcelain"]).stdout.strip()
    return commit.stdout.strip() + ("-dirty" if changed else "")


def _remote() -> str:
    """Where the checkout was cloned from, without credentials; empty unless that is an https address."""
    url = urlsplit(_run_captured(["git", "config", "--get", "remote.origin.url"]).stdout.strip())
    return f"https://{url.hostname}{url.path}" if url.scheme == "https" else ""


def _run_captured(command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)


def _run_shown(command: Sequence[str], failure: str, environment: Mapping[str, str] | None = None) -> None:
    """The engine's own output goes to stderr, so that stdout holds the result alone."""
    done = subprocess.run(command, check=False, cwd=ROOT, stdout=sys.stderr, env={**os.environ, **(environment or {})})
    if done.returncode:
        raise ImageError(
            f"{failure}: {command[0]} ended with status {done.returncode} and said why above; "
            "BASE_IMAGE, the package index and ENGINE_ARGS (for the engine itself) may be what is wrong"
        )


def main() -> None:
    """The command line; what a user can put right ends with status 2."""
    given = _parser().parse_intermixed_args()  # targets may follow an option
    try:
        images, settings = _images(given.targets), _settings(given)
        if given.action == "names":
            print(*(reference(image, settings) for image in images), sep="\n")
        else:
            _build(images, settings, given)
    except ConfProfileError as error:
        print(f"images: {error}", file=sys.stderr)
        sys.exit(2)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m charts.images", epilog="Options may stand in the environment, as the variables named above."
    )
    parser.add_argument("action", choices=("names", "build"), help="names need no engine; build also prints sizes")
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"{', '.join(IMAGES)}; default: all")
    for name, default, text in (
        ("image-registry", "localhost", "what the names begin with"),
        ("base-image", BASE_IMAGE, "with Python 3.11 on Debian"),
        ("torch-index", "", "package index of another build of torch than PyPI's"),
        ("training-packages", "", "further packages in the training image, such as vllm"),
        ("wheels", "", "folder of wheels that go before the index's"),
        ("image-source", "", "address of the sources, for the label; default: the remote"),
        ("engine", "", f"{', '.join(ENGINES)}; default: the first that works"),
        ("engine-args", "", "arguments for ENGINE build"),
    ):
        variable = name.upper().replace("-", "_")
        help_text = f"{text} ({variable}; now: {os.environ.get(variable) or default or 'empty'})"
        parser.add_argument(f"--{name}", default=os.environ.get(variable) or default, help=help_text)
    parser.add_argument("--save", type=Path, metavar="FOLDER", help="also write docker-archives and TAGS.json there")
    return parser


def _images(targets: Sequence[str]) -> list[Image]:
    for target in targets:
        if target not in IMAGES:
            raise ImageError(f"{target}: no such image; there are {', '.join(IMAGES)}")
    return [IMAGES[target] for target in targets or IMAGES]


def _settings(given: argparse.Namespace) -> Settings:
    wheels = Path(given.wheels).resolve() if given.wheels else None
    if wheels and not wheels.is_dir():
        raise ImageError(f"{wheels}: no such folder; WHEELS must name a folder of wheels, or be empty")
    return Settings(
        registry=given.image_registry,
        base_image=given.base_image,
        torch_index=given.torch_index,
        training_packages=given.training_packages,
        wheels=wheels,
        source=given.image_source,
    )


def _build(images: Sequence[Image], settings: Settings, given: argparse.Namespace) -> None:
    engine = find_engine(given.engine)
    built = {image.target: build(engine, image, settings, shlex.split(given.engine_args)) for image in images}
    if given.save:
        for target, name in built.items():
            save(engine, name, given.save / f"{target}.tar")
        write_text(given.save / "TAGS.json", json.dumps(built, indent=2) + "\n", error=ImageError)
    width = max(map(len, built.values()))
    print(f"{'image':{width}}  size")
    for name in built.values():
        print(f"{name:{width}}  {size(engine, name)}")


if __name__ == "__main__":
    main()
