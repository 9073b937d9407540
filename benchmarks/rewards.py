"""What share of a GRPO step our reward functions take.

    python -m benchmarks.rewards [--run FOLDER]

Times the three reward functions on the completions of one step at the preset's size (prompts x rollouts) and
divides by the median step time that the trainer logged in FOLDER (default: runs/world-tiny). Prints JSON.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path

from conf_profile import config
from conf_profile.consensus import rewards
from conf_profile.consensus.rewards import Reference
from conf_profile.dialogue import task as tasks
from conf_profile.dialogue.output_format import Answer, ProfileAnswer, render


def reward_seconds(prompts: int, rollouts: int) -> float:
    """Median time of all three rewards over one step's completions."""
    tags = tasks.builtin("profile")
    answers = {name: Answer(tags[name].tags[0], 3) for name in tags.names}
    text = render(ProfileAnswer("rose pruning calendar; pension calculator; hearing aid review", answers), tags)
    reference = tuple(Reference(tags[name].tags[0], 0.6, 3) for name in tags.names)
    users = [f"u{prompt}" for prompt in range(prompts) for _ in range(rollouts)]
    functions = rewards.make_rewards(tags, dict.fromkeys(users, reference), "frozen", "reference")
    times = []
    for _ in range(20):
        start = time.perf_counter()
        for function in functions:
            function(prompts=users, completions=[text] * len(users), user_id=users)
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def main() -> None:
    """Prints seconds and share."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", type=Path, default=Path("runs/world-tiny"))
    folder = parser.parse_args().run
    settings = config.resolve("tiny").grpo
    outputs = json.loads((folder / "workspace" / "outputs.json").read_text(encoding="utf-8"))
    log = json.loads(Path(outputs["grpo_log"]).read_text(encoding="utf-8"))
    step = statistics.median(entry["seconds"] for entry in log if "seconds" in entry)
    own = reward_seconds(settings.prompts_per_step, settings.rollouts)
    print(json.dumps({"reward_seconds": round(own, 4), "step_seconds": round(step, 3), "share": round(own / step, 4)}))


if __name__ == "__main__":
    main()
