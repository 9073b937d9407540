"""What the two training steps share: reproducible set-up, resumable checkpoints, the log that the report draws."""

from __future__ import annotations

import hashlib
import json
import os
import sys
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from conf_profile.config import TrainingConfig
from conf_profile.files import write_text
from conf_profile.source import source_hash
from conf_profile.students import processes
from conf_profile.students.checkpoints import remote as remote_checkpoints
from conf_profile.students.checkpoints.files import WHOLE_MARK

_STATE = "trainer_state.json"


def quiet_imports(use_vllm: bool) -> None:
    """To be called before trl is imported. Without vLLM rollouts vLLM is hidden: trl would import it for 10 s."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
    if not use_vllm and "vllm" not in sys.modules:
        sys.modules["vllm"] = None  # type: ignore[assignment]
    warnings.filterwarnings("ignore", module=r"(trl|transformers|torch|peft|accelerate)(\..*)?$")


def common_arguments(config: TrainingConfig, folder: Path, seed: int, log_folder: Path) -> dict[str, Any]:
    """The arguments that TRL's SFTConfig and GRPOConfig have in common."""
    import torch

    os.environ["TENSORBOARD_LOGGING_DIR"] = str(log_folder)
    return {
        "output_dir": str(folder),
        "learning_rate": config.learning_rate,
        "gradient_checkpointing": config.gradient_checkpointing,
        "save_strategy": "steps",
        "save_steps": config.save_steps,
        # Two: while the newest is being written and an older one deleted, one in between is whole.
        "save_total_limit": 2,
        "logging_strategy": "steps",
        "report_to": list(config.report_to) or "none",
        "seed": seed,
        "data_seed": seed,
        "use_cpu": not torch.cuda.is_available(),
        "bf16": torch.cuda.is_available(),
        "disable_tqdm": True,
        "dataloader_pin_memory": torch.cuda.is_available(),
        # With several processes: every weight takes part in every step, so none needs to be looked for.
        "ddp_find_unused_parameters": False,
    }


def checkpoint_folder(workspace: str, module: str, inputs: Sequence[Path], settings: Sequence[str]) -> Path:
    """Where a step keeps its checkpoints: named by what it was given and the code that it ran, so that only the
    same work continues.

    `module` is the dotted name of the step's, whose folder names the step; `inputs` are files or folders. Without
    a workspace that outlives the step (an empty string) it is a temporary folder.
    """
    digest = hashlib.sha256(source_hash(module).encode())
    for path in inputs:
        for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
            if file.is_file():
                digest.update(hashlib.sha256(file.read_bytes()).digest())
    for setting in settings:
        digest.update(hashlib.sha256(setting.encode()).digest())
    root = Path(workspace) if workspace else Path(tempfile.mkdtemp(prefix="conf-profile-"))
    step = module.split(".")[-2]
    return root / "checkpoints" / f"{step}-{digest.hexdigest()[:16]}"


def last_checkpoint(folder: Path) -> str | None:
    """The newest whole checkpoint of an earlier, killed try; None to start afresh."""
    whole = [path for path in folder.glob("checkpoint-*") if (path / WHOLE_MARK).is_file()]
    return str(max(whole, key=lambda path: int(path.name.split("-")[1]))) if whole else None


def train(trainer: Any, checkpoints: Path) -> None:
    """Runs a trainer, from the newest whole checkpoint on where there is one.

    A training that had ended by then is loaded and not run: the trainer itself would go on after a collapse.
    """
    last = last_checkpoint(checkpoints)
    if last is None or not _has_ended(Path(last)):
        trainer.train(resume_from_checkpoint=last)
        return
    from transformers import TrainerState

    trainer._load_from_checkpoint(last)
    trainer.state = TrainerState.load_from_json(str(Path(last) / _STATE))


def _has_ended(checkpoint: Path) -> bool:
    """Whether the checkpoint is of a training's end: the last step, or a collapse."""
    state = json.loads((checkpoint / _STATE).read_text(encoding="utf-8"))
    return bool(state["stateful_callbacks"]["TrainerControl"]["args"]["should_training_stop"])


def mark_whole_checkpoints() -> Any:
    """A trainer callback that marks each checkpoint once all of its files are written, and then has it copied.

    The trainer's own files do not tell: a kill can cut the last one short, or hit while an old one is deleted.
    """
    from transformers import TrainerCallback

    class Mark(TrainerCallback):  # type: ignore[misc]  # transformers is not analysed
        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            # What was summed up since the last log entry is in no checkpoint; so at one the sum begins anew.
            if control.should_save and not control.should_training_stop:
                control.should_log = True

        def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            # Each process writes the state of its own random numbers.
            processes.wait()
            checkpoint = Path(args.output_dir) / f"checkpoint-{state.global_step}"
            (checkpoint / WHOLE_MARK).touch()
            remote_checkpoints.upload(checkpoint)

    return Mark()


def batch_order(lengths: Sequence[int], batch_size: int, epochs: float, seed: int) -> list[int]:
    """Row numbers for `epochs` passes: batches of similar length, in random order.

    transformers' own grouping by length runs through each group from long to short, which is a curriculum
    that a small model learns much less from; so the rows are laid out here and read sequentially.
    """
    random = np.random.default_rng(seed)
    order: list[int] = []
    while len(order) < epochs * len(lengths):
        rows = random.permutation(len(lengths))
        groups = [sorted(part, key=lambda row: lengths[row]) for part in _parts(rows.tolist(), 20 * batch_size)]
        batches = [batch for group in groups for batch in _parts(group, batch_size)]
        order += [row for number in random.permutation(len(batches)) for row in batches[number]]
    return order[: round(epochs * len(lengths))]


def _parts(rows: list[int], size: int) -> list[list[int]]:
    return [rows[start : start + size] for start in range(0, len(rows), size)]


def progress_callback(label: str, keys: Mapping[str, str]) -> Any:
    """A trainer callback that prints one line for each log entry: 'grpo 12/40 reward 0.61 kl 0.004'."""
    from transformers import TrainerCallback

    class Progress(TrainerCallback):  # type: ignore[misc]  # transformers is not analysed
        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
            shown = [f"{name} {float(logs[key]):.4g}" for key, name in keys.items() if key in (logs or {})]
            if shown and processes.is_first():
                print(f"{label} {state.global_step}/{state.max_steps} {' '.join(shown)}", flush=True)

    return Progress()


COLLAPSE_WINDOW = 5
"""Log entries that are averaged before two entropies are compared: each is of other users' answers."""


def collapse_guard(key: str, max_loss: float) -> Any:
    """A trainer callback that ends the training once `key`, averaged over the last entries, has lost more than
    the share `max_loss` of its average over the first ones."""
    from transformers import TrainerCallback

    class Guard(TrainerCallback):  # type: ignore[misc]  # transformers is not analysed
        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
            # From the history, not from calls seen: a continued training remembers its beginning.
            values = logged_values(state.log_history, key)
            if has_collapsed(values, max_loss):
                control.should_training_stop = True
                if processes.is_first():
                    print(f"collapse: {key} fell from {values[0]:.2f} to {values[-1]:.2f}; training ends", flush=True)

    return Guard()


def logged_values(history: Sequence[Mapping[str, Any]], key: str) -> list[float]:
    """One value of every entry of the trainer's history that has it."""
    return [float(entry[key]) for entry in history if key in entry]


def has_collapsed(values: Sequence[float], max_loss: float) -> bool:
    """Whether the mean of the last entries lies more than `max_loss` below that of the first, non-overlapping ones."""
    if len(values) < 2 * COLLAPSE_WINDOW:
        return False
    first, last = np.mean(values[:COLLAPSE_WINDOW]), np.mean(values[-COLLAPSE_WINDOW:])
    return bool(last < (1 - max_loss) * first)


def write_log(path: Path, history: Sequence[Mapping[str, Any]], keys: Mapping[str, str]) -> None:
    """The trainer's history as a JSON list [{step, ...}], with our names for TRL's keys."""
    rows = [
        {"step": entry["step"], **{name: float(entry[key]) for key, name in keys.items() if key in entry}}
        for entry in history
        if any(key in entry for key in keys)
    ]
    write_text(path, json.dumps(rows))
