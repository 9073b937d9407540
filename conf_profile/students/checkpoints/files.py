"""A training checkpoint as safetensors and JSON files, so that it may cross an object store.

The trainer writes optimiser, schedule and random states with torch.save, which is a pickle. Here they become data:
tensors go to safetensors, numbers and structure to JSON. Whoever continues writes the trainer's own files anew from
them, so torch reads only what its own machine has written.

    NAME.safetensors, NAME.json           the trainer's own, as they are
    NAME.pt.packed.json                   what lay in NAME.pt (or .pth); tensors are named in it
    NAME.pt.packed.safetensors            those tensors, where there are any
    texts.packed.json                     small text files (a taxonomy, a chat template): name -> text
    manifest.json                         {"format": 1, "files": {name: {"sha256": ..., "size": ...}}}

Left out is what no continued training reads, above all training_args.bin, a pickle of our own configuration.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from conf_profile.errors import StudentError
from conf_profile.files import atomic_folder, write_text
from conf_profile.storage.object_store import Digest, digest_of

FORMAT = 1
MANIFEST = "manifest.json"
WHOLE_MARK = "whole"
"""The empty file that marks a checkpoint as completely written."""
_PLAIN_SUFFIXES = (".safetensors", ".json")
_STATES = (".pt", ".pth")
_TEXTS = (".yaml", ".jinja", ".txt")
_PACKED_JSON, _PACKED_TENSORS = ".packed.json", ".packed.safetensors"
_TEXTS_NAME = "texts" + _PACKED_JSON


def pack(folder: Path, scratch: Path) -> dict[str, Path]:
    """Name in the store -> file, for a checkpoint of this machine; what must be made lies in `scratch`.

    StudentError for a state that is neither a tensor nor plain data.
    """
    files = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}
    packed = {name: path for name, path in files.items() if name.endswith(_PLAIN_SUFFIXES)}
    for name, path in files.items():
        if name.endswith(_STATES):
            packed |= _pack_state(name, path, scratch)
    texts = {name: path.read_text(encoding="utf-8") for name, path in files.items() if name.endswith(_TEXTS)}
    if texts:
        packed[_TEXTS_NAME] = scratch / _TEXTS_NAME
        write_text(scratch / _TEXTS_NAME, json.dumps(texts))
    return packed


def unpack(packed: Mapping[str, Path], folder: Path) -> None:
    """Writes a checkpoint's folder, marked as whole, from files whose hashes were compared; they are moved."""
    with atomic_folder(folder, replace=True) as temporary:
        for name, path in packed.items():
            if name == _TEXTS_NAME:
                _write_texts(path, temporary)
            elif name.endswith(_PACKED_JSON):
                _unpack_state(name.removesuffix(_PACKED_JSON), packed, temporary)
            elif not name.endswith(_PACKED_TENSORS):
                path.replace(_make_parent(temporary / name))
        (temporary / WHOLE_MARK).touch()


def manifest(packed: Mapping[str, Path]) -> bytes:
    """The manifest of packed files."""
    digests = {name: digest_of(path) for name, path in packed.items()}
    files = {name: {"sha256": digest.sha256, "size": digest.size} for name, digest in digests.items()}
    return json.dumps({"format": FORMAT, "files": files}, indent=1, sort_keys=True).encode()


def read_manifest(body: bytes) -> dict[str, Digest]:
    """Name -> hash and size. StudentError for another format, and for names that no packed checkpoint has."""
    try:
        content = json.loads(body)
        if content["format"] != FORMAT:
            raise StudentError(f"its format is {content['format']!r}; this version reads format {FORMAT}")
        files = {str(name): Digest(str(e["sha256"]), int(e["size"])) for name, e in content["files"].items()}
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise StudentError(f"its manifest is damaged ({error!r})") from error
    for name in files:
        if not _is_safe_name(name, _PLAIN_SUFFIXES):
            raise StudentError(f"its manifest names {name!r}, which is no file of a checkpoint")
    return files


def _pack_state(name: str, path: Path, scratch: Path) -> dict[str, Path]:
    import torch
    from safetensors.torch import save_file
    from transformers.trainer_pt_utils import safe_globals

    with safe_globals():
        # Mapped: an optimiser's state is twice the model.
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    tensors: dict[str, Any] = {}
    document, arrays = _make_parent(scratch / (name + _PACKED_JSON)), scratch / (name + _PACKED_TENSORS)
    try:
        write_text(document, json.dumps(_to_json(state, tensors), allow_nan=False))
    except TypeError as error:
        raise StudentError(f"{path}: cannot be packed: {error}") from error
    if not tensors:
        return {name + _PACKED_JSON: document}
    save_file(tensors, arrays)
    return {name + _PACKED_JSON: document, name + _PACKED_TENSORS: arrays}


def _unpack_state(name: str, packed: Mapping[str, Path], target: Path) -> None:
    import torch
    from safetensors.torch import load_file

    arrays = packed.get(name + _PACKED_TENSORS)
    tensors = load_file(arrays) if arrays is not None else {}
    try:
        state = _from_json(json.loads(packed[name + _PACKED_JSON].read_bytes()), tensors)
    except (ValueError, LookupError, TypeError) as error:
        raise StudentError(f"its {name} is damaged ({error!r})") from error
    torch.save(state, _make_parent(target / name))


def _to_json(value: Any, tensors: dict[str, Any]) -> Any:
    """Plain data stand for themselves; everything else is an object of one key, its kind."""
    import numpy as np
    import torch

    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else {"float": str(value)}
    if isinstance(value, list):
        return [_to_json(entry, tensors) for entry in value]
    if isinstance(value, tuple):
        return {"tuple": [_to_json(entry, tensors) for entry in value]}
    if isinstance(value, dict):
        return {"dict": [[_to_json(key, tensors), _to_json(entry, tensors)] for key, entry in value.items()]}
    if isinstance(value, torch.Tensor):
        return {"tensor": _keep(value, tensors)}
    if isinstance(value, np.ndarray):
        return {"array": _keep(torch.from_numpy(value.copy()), tensors)}
    raise TypeError(f"a {type(value).__name__} is neither a tensor nor plain data")


def _keep(tensor: Any, tensors: dict[str, Any]) -> str:
    # A view would share its memory with others, and safetensors writes none of those.
    whole = tensor.untyped_storage().nbytes() == tensor.numel() * tensor.element_size()
    name = str(len(tensors))
    tensors[name] = tensor.contiguous() if whole else tensor.contiguous().clone()
    return name


def _from_json(value: Any, tensors: Mapping[str, Any]) -> Any:
    if isinstance(value, list):
        return [_from_json(entry, tensors) for entry in value]
    if not isinstance(value, dict):
        return value
    ((kind, content),) = value.items()
    readers: dict[str, Callable[[Any], Any]] = {
        "float": float,
        "tuple": lambda entries: tuple(_from_json(entry, tensors) for entry in entries),
        "dict": lambda pairs: {_from_json(key, tensors): _from_json(entry, tensors) for key, entry in pairs},
        "tensor": lambda name: tensors[name],
        "array": lambda name: tensors[name].numpy(),
    }
    return readers[kind](content)


def _write_texts(path: Path, folder: Path) -> None:
    for name, text in json.loads(path.read_bytes()).items():
        if not _is_safe_name(name, _TEXTS):
            raise StudentError(f"it holds a text {name!r}, which is no file of a checkpoint")
        write_text(_make_parent(folder / name), text)


def _is_safe_name(name: str, suffixes: tuple[str, ...]) -> bool:
    """Whether a name stays within its folder, and ends as it should."""
    path = PurePosixPath(name)
    return not path.is_absolute() and ".." not in path.parts and "\\" not in name and name.endswith(suffixes)


def _make_parent(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path
