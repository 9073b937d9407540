"""Rollouts with vLLM, for presets with a GPU: the same contract as `rollouts.generate`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from conf_profile.students.rollouts.rollouts import Sampling

SHUTDOWN_SECONDS = 10.0


def generate(student: Path, prompts: Sequence[str], sampling: Sampling) -> list[list[str]]:
    """`sampling.samples` completions for each rendered prompt; vLLM batches by itself.

    The engine is stopped before this returns: the training that may follow in this process needs the GPU's memory.
    """
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
    try:
        outputs = engine.generate(list(prompts), parameters)
    finally:
        engine.llm_engine.engine_core.shutdown(timeout=SHUTDOWN_SECONDS)
    return [[completion.text for completion in output.outputs] for output in outputs]
