"""Users a second of `conf-profile backfill`, against a bare `LLM.chat` over the same prompts.

    python -m benchmarks.backfill --run runs/world-tiny [--rounds 3]

Both use one vLLM in one process, in turns, so that a noisy machine hits both; the prefix cache is emptied before each
turn. The backfill's side is everything between the run's tables and whole Parquet files: features through Feast,
prompts, parsing, levels. The bare side gets messages that lie ready and the very same sampling parameters, grammar and
log-probabilities included, and throws the answers away. `ratio` is over the medians of all rounds after a first turn of
each that only warms up. Prints JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from benchmarks.teacher_vllm import machine
from conf_profile.data import run_folder
from serving.backfill import backfill as work
from serving.backfill import engines as backfill_engines


def main() -> None:
    """Runs the comparison and prints it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--run", type=Path, required=True, help="a finished run")
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")  # its lines go to standard output
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(compare(given.run.resolve(), Path(folder), given.rounds), indent=2))


def compare(run: Path, folder: Path, rounds: int) -> dict[str, Any]:
    """Both sides over all users of the run with consent."""
    student = Path(json.loads((run / "workspace" / "outputs.json").read_text(encoding="utf-8"))["student"])
    source = work.source_of(run_folder.read_arguments(run))
    plans = [work.plan(source, student, folder / str(turn), "vllm") for turn in range(rounds + 1)]
    engine = backfill_engines.VLLMEngine(student, plans[0].bundle)
    plan, bundle = plans[0], plans[0].bundle
    conversations = [list(bundle.messages(person)) for shard in plan.shards for person in work.people(plan, shard)]
    sampling, template = backfill_engines.sampling(bundle), {"enable_thinking": False}
    turns: Mapping[str, Callable[[int], Any]] = {
        "chat": lambda turn: engine.llm.chat(conversations, sampling, use_tqdm=False, chat_template_kwargs=template),
        "backfill": lambda turn: work.fill(plans[turn], lambda: engine),
    }
    seconds: dict[str, list[float]] = {name: [] for name in turns}
    for turn in range(rounds + 1):
        for name in sorted(turns, reverse=bool(turn % 2)):
            engine.llm.reset_prefix_cache()
            began = time.perf_counter()
            turns[name](turn)
            seconds[name].append(time.perf_counter() - began)
    rates = {name: [len(conversations) / one for one in all_[1:]] for name, all_ in seconds.items()}
    return {
        "users": len(conversations),
        "users_per_second": {name: [round(rate, 1) for rate in found] for name, found in rates.items()},
        "ratio": round(statistics.median(rates["backfill"]) / statistics.median(rates["chat"]), 3),
        "machine": machine(),
    }


if __name__ == "__main__":
    main()
