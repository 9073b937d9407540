"""KServe's storage initialiser for `champion://` URIs: a verified model in a pod's volume before the model is used.

    python -m serving.storage champion://BUCKET/models/NAME[@VERSION] FOLDER [--without-weights | --vllm-config NAME]

Resolves the champion, fetches several files at once, compares every SHA-256 on the way, and writes the manifest last.
What an earlier try of the same pod has left is kept where its hash is right. What is wrong ends with status 1 and one
line, on standard error and in the container's termination log.

An image that holds vLLM and nothing of this project is told of the model by `vllm.yaml`: `--config FOLDER/vllm.yaml`.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from conf_profile.errors import ConfProfileError
from conf_profile.files import write_text
from conf_profile.registry.download import FillResult, exclude_weights, select_all
from conf_profile.registry.format import parse_uri
from serving import termination
from serving.model import model_source
from serving.predictor.arguments import config_file

VLLM_CONFIG = "vllm.yaml"


def main(given: Sequence[str] | None = None) -> int:
    """The program; its result is the exit status."""
    parser = argparse.ArgumentParser(prog="python -m serving.storage", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("uri", help="champion://BUCKET/models/NAME, or ...@VERSION")
    parser.add_argument("folder", type=Path, help="where the files go")
    parser.add_argument("--without-weights", action="store_true", help="what the transformer reads, and no more")
    parser.add_argument(
        "--vllm-config", metavar="NAME", help=f"also write {VLLM_CONFIG}: served as NAME and as VERSION"
    )
    parser.add_argument("--termination-log", type=Path, default=termination.TERMINATION_LOG)
    options = parser.parse_args(given)
    started = time.monotonic()
    try:
        filled = fetch(options.uri, options.folder, options.without_weights)
        if options.vllm_config:
            write_text(options.folder / VLLM_CONFIG, config_file(options.folder, options.vllm_config))
    except ConfProfileError as error:
        termination.report_error("storage", error, options.termination_log)
        return 1
    print(_summary(filled, options.folder, time.monotonic() - started), flush=True)
    return 0


def fetch(uri: str, folder: Path, without_weights: bool = False) -> FillResult:
    """Makes `folder` hold the version that the URI names. ConfProfileError says what is wrong and what to do."""
    wanted = parse_uri(uri)
    registry = model_source.open_registry(wanted)
    return registry.fill(wanted.version, folder, exclude_weights if without_weights else select_all)


def _summary(filled: FillResult, folder: Path, seconds: float) -> str:
    size = f"{filled.bytes / 2**20:.1f} MiB"
    kept = f", {filled.kept} were there" if filled.kept else ""
    return f"{filled.version.name} in {folder}: {filled.fetched} files, {size}, {seconds:.1f} s, hashes verified{kept}"


if __name__ == "__main__":
    sys.exit(main())
