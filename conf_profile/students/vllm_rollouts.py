"""Rollouts with vLLM, for presets with a GPU: the same contract as `rollouts.generate`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from conf_profile.students.rollouts import Sampling


def generate(student: Path, prompts: Sequence[str], sampling: Sampling) -> list[list[str]]:
    """`sampling.samples` completions for each rendered prompt; vLLM batches by itself."""
    from vllm import LLM, SamplingParams

    engine = LLM(model=str(student), seed=sampling.seed, enable_prefix_caching=True)
    parameters = SamplingParams(
        n=sampling.samples,
        temperature=sampling.temperature,
        top_p=1.0,
        max_tokens=sampling.max_completion_tokens,
        seed=sampling.seed,
        # The strict parser must see whatever stands in the answer.
        skip_special_tokens=False,
    )
    outputs = engine.generate(list(prompts), parameters)
    return [[completion.text for completion in output.outputs] for output in outputs]
