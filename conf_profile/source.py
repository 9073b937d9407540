"""A hash of the project's own sources: what was kept must be made again when the code that makes it has changed.

Imports are followed from the module that does the work, those inside functions too, so that a change counts where it
can change a result and nowhere else: not the command line, not the chart, not the laboratory.
"""

from __future__ import annotations

import ast
import hashlib
import threading
from collections.abc import Iterator
from functools import cache
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
_HASHES: dict[tuple[str, ...], str] = {}
_PARSING = threading.Lock()
_RESOURCES = frozenset({".yaml", ".html", ".jinja"})
"""Files beside a module that it may read."""


def source_hash(*modules: str) -> str:
    """16 hexadecimal digits over the modules, all that they import of this project, and the files that lie there.

    Read once in a process: that is the code that it runs, whatever is edited meanwhile.
    """
    # Python 3.11 cannot parse in two threads at once: "AST constructor recursion depth mismatch".
    with _PARSING:
        if modules not in _HASHES:
            _HASHES[modules] = hash_of(ROOT, rooms(), modules)
        return _HASHES[modules]


@cache
def rooms() -> frozenset[str]:
    """The top-level packages of this distribution: beside them, installed, lie other people's."""
    return frozenset((metadata.distribution("conf-profile").read_text("top_level.txt") or "").split())


def hash_of(root: Path, rooms: frozenset[str], modules: tuple[str, ...]) -> str:
    """`source_hash` of another checkout."""
    found: dict[Path, bytes] = {}
    waiting = [path for module in modules for path in _files(root, rooms, module)]
    if not waiting:
        raise ValueError(f"no module of {', '.join(modules)} lies below {root}")
    while waiting:
        path = waiting.pop()
        if path in found:
            continue
        found[path] = path.read_bytes()
        if path.suffix == ".py":
            for name in _imports(found[path]):
                waiting.extend(_files(root, rooms, name))
    digest = hashlib.sha256()
    for path in sorted(found):
        digest.update(str(path.relative_to(root)).encode() + b"\0" + hashlib.sha256(found[path]).digest())
    return digest.hexdigest()[:16]


@cache
def _imports(source: bytes) -> tuple[str, ...]:
    """Every name that may be a module: of `from a import b` both a and a.b."""
    found: list[str] = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found += (node.module, *(f"{node.module}.{alias.name}" for alias in node.names))
    return tuple(found)


def _files(root: Path, rooms: frozenset[str], module: str) -> Iterator[Path]:
    """The module's file, the packages around it, and the resources of its folder; nothing where it is not ours."""
    parts = module.split(".")
    if parts[0] not in rooms:
        return
    base = root.joinpath(*parts)
    path = base / "__init__.py" if base.is_dir() else base.with_suffix(".py")
    if not path.is_file():
        return
    yield path
    for folder in path.parents:
        if folder == root:
            break
        if (folder / "__init__.py").is_file():
            yield folder / "__init__.py"
    yield from (
        resource
        for resource in sorted(path.parent.rglob("*"))
        if resource.suffix in _RESOURCES and _owner(resource.parent) == path.parent
    )


def _owner(folder: Path) -> Path:
    """The innermost package around a folder of resources."""
    while not (folder / "__init__.py").is_file():
        folder = folder.parent
    return folder
