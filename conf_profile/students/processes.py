"""A training step on several processes: one for each GPU of a machine, or of several machines.

`call` starts torch's launcher on a step's function; every process runs the whole function, the trainer (through
accelerate) shares the batches between them and averages the gradients, and only the first process writes. With one
process the function is called as it is. The weights must fit on one GPU: they are copied, not divided.

    python -m torch.distributed.run ... -m conf_profile.students.processes JOB.json RESULT.json
"""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any, get_type_hints

from conf_profile import errors
from conf_profile.config import Section, parse_section
from conf_profile.errors import ConfProfileError, StudentError
from conf_profile.files import write_text

PROCESSES = "CONF_PROFILE_PROCESSES"
"""Environment variable: how many processes a training step gets on this machine."""
Step = Callable[..., dict[str, int]]
_LONGEST_WAIT = timedelta(hours=24)
"""For the first process, which alone samples, calibrates and writes."""


def read_process_count() -> int:
    """The number of processes that the environment asks for; StudentError for anything but a number from 1."""
    given = os.environ.get(PROCESSES, "1")
    if not given.isdecimal() or int(given) < 1:
        raise StudentError(f"{PROCESSES} is {given!r}; expected the number of processes, 1 or more")
    return int(given)


def count() -> int:
    """How many processes take part, this one included."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_first() -> bool:
    """Whether this process is the one that writes."""
    return os.environ.get("RANK", "0") == "0"


def call(step: Step, number: int, /, **arguments: Any) -> dict[str, int]:
    """The step's result, from so many processes; more than one take paths, sections, numbers and texts as arguments.

    An error of ours in any process is raised here; another one becomes a StudentError, its traceback was printed.
    """
    if number == 1:
        return step(**arguments)
    with tempfile.TemporaryDirectory(prefix="processes-") as folder:
        job, result = Path(folder) / "job.json", Path(folder) / "result.json"
        write_text(job, to_json(step, arguments))
        launched = subprocess.run([*launcher(number), "-m", __name__, str(job), str(result)], check=False)
        return _outcome(result, launched.returncode, number)


def launcher(number: int) -> list[str]:
    """The command that starts so many processes on this machine."""
    return [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(number)]


def to_json(step: Step, arguments: Mapping[str, Any]) -> str:
    """A call as text, for another process."""
    plain = {name: _to_json_value(value) for name, value in arguments.items()}
    return json.dumps({"function": f"{step.__module__}:{step.__qualname__}", "arguments": plain})


def from_json(text: str) -> tuple[Step, dict[str, Any]]:
    """Reads a call back; the function's annotations tell what the texts stand for."""
    job = json.loads(text)
    module, name = job["function"].split(":")
    step = getattr(importlib.import_module(module), name)
    hints = get_type_hints(step)
    return step, {name: _from_json_value(hints[name], value) for name, value in job["arguments"].items()}


def join() -> None:
    """Makes this process one of the launcher's group; it waits for the first one as long as a step may take."""
    import torch
    from accelerate import PartialState

    PartialState(cpu=not torch.cuda.is_available(), timeout=_LONGEST_WAIT)


def wait() -> None:
    """Until every process has come so far."""
    if count() > 1:
        from accelerate import PartialState

        PartialState().wait_for_everyone()


def broadcast_text(make: Callable[[], str]) -> str:
    """The text that the first process makes, in every process."""
    if count() == 1:
        return make()
    import torch
    from accelerate import PartialState
    from torch import distributed

    text = make().encode() if is_first() else b""
    device = PartialState().device
    size = torch.tensor([len(text)], device=device)
    distributed.broadcast(size, 0)
    body = torch.zeros(int(size.item()), dtype=torch.uint8, device=device)
    if text:
        body.copy_(torch.frombuffer(bytearray(text), dtype=torch.uint8))
    distributed.broadcast(body, 0)
    return bytes(body.cpu().numpy()).decode()


def share(rows: int, accumulation: int) -> tuple[int, int]:
    """Rows of one process in one pass, and passes in a step, so that a step sees the rows it would see on one process.

    StudentError where they cannot be shared evenly.
    """
    number = count()
    if accumulation % number == 0:
        return rows, accumulation // number
    if rows % number == 0:
        return rows // number, accumulation
    raise StudentError(
        f"a step of {accumulation} x {rows} rows cannot be shared by {number} processes; make the batch size or "
        f"gradient_accumulation a multiple of {number}, or give the step another number of GPUs"
    )


def main(job: Path, result: Path) -> None:
    """What each process does: the step, then its result or its error into a file."""
    step, arguments = from_json(job.read_text(encoding="utf-8"))
    join()
    try:
        counts = step(**arguments)
    except ConfProfileError as error:
        failed = {"error": type(error).__name__, "message": str(error)}
        write_text(result, json.dumps(failed))
        raise
    if is_first():
        write_text(result, json.dumps({"counts": counts}))


def _outcome(result: Path, status: int, number: int) -> dict[str, int]:
    outcome: dict[str, Any] = json.loads(result.read_text(encoding="utf-8")) if result.is_file() else {}
    if "error" in outcome:
        kind = getattr(errors, outcome["error"], StudentError)
        raise kind(outcome["message"])
    if status or "counts" not in outcome:
        raise StudentError(f"training on {number} processes ended with status {status}; their output above says why")
    counts: dict[str, int] = outcome["counts"]
    return counts


def _to_json_value(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value)
    return value.for_step() if isinstance(value, Section) else value


def _from_json_value(kind: Any, value: Any) -> Any:
    if isinstance(kind, type) and issubclass(kind, Section):
        return parse_section(kind, value)
    return Path(value) if kind is Path else value


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:3]))
