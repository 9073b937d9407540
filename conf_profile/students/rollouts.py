"""Answers sampled from a student, and how sure it is of the levels that it states.

Plain transformers generation; a GPU preset generates with vLLM instead (`use_vllm`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from conf_profile.output_format import LEVELS
from conf_profile.students.tokenizer import level_alternatives, level_positions

Progress = Callable[[int], None]


@dataclass(frozen=True)
class Sampling:
    """How to generate. Temperature 0 is greedy."""

    temperature: float
    samples: int
    batch_size: int
    max_completion_tokens: int
    seed: int


def generate(
    model: Any, tokenizer: Any, prompts: Sequence[str], sampling: Sampling, progress: Progress | None = None
) -> list[list[str]]:
    """`sampling.samples` completions for each prompt, as text, in the prompts' order.

    Prompts of similar length are generated together; `batch_size` counts completions, not prompts.
    """
    import torch

    torch.manual_seed(sampling.seed)
    model.eval()
    texts: list[list[str]] = [[] for _ in prompts]
    order = sorted(range(len(prompts)), key=lambda index: (len(prompts[index]), index))
    step = max(1, sampling.batch_size // sampling.samples)
    for start in range(0, len(order), step):
        rows = order[start : start + step]
        completions = _generate_batch(model, tokenizer, [prompts[row] for row in rows], sampling)
        for position, row in enumerate(rows):
            texts[row] = completions[position * sampling.samples : (position + 1) * sampling.samples]
        if progress is not None:
            progress(len(rows))
    return texts


def expected_levels(
    model: Any, tokenizer: Any, prompts: Sequence[str], completions: Sequence[str], batch_size: int
) -> list[npt.NDArray[np.float64]]:
    """For each completion, the expected value of each level that it states, in [1, 5], in order of appearance.

    The model's own probabilities of the five digits at the level's position make the verbal level finer than
    its five steps, which is what calibration by partition needs to balance the levels.
    """
    results: list[npt.NDArray[np.float64]] = [np.empty(0)] * len(prompts)
    order = sorted(range(len(prompts)), key=lambda index: len(prompts[index]))
    for start in range(0, len(order), batch_size):
        rows = order[start : start + batch_size]
        levels = _expected_levels_batch(
            model, tokenizer, [prompts[row] for row in rows], [completions[row] for row in rows]
        )
        for row, values in zip(rows, levels, strict=True):
            results[row] = values
    return results


def _generate_batch(model: Any, tokenizer: Any, prompts: list[str], sampling: Sampling) -> list[str]:
    import torch

    inputs = tokenizer(
        prompts, return_tensors="pt", padding=True, add_special_tokens=False, return_token_type_ids=False
    ).to(model.device)
    sampled = sampling.temperature > 0
    options = {"temperature": sampling.temperature, "top_k": 0, "top_p": 1.0} if sampled else {}
    expanded = {name: tensor.repeat_interleave(sampling.samples, dim=0) for name, tensor in inputs.items()}
    with torch.inference_mode():
        output = model.generate(
            **expanded,
            past_key_values=_shared_prefix(model, inputs, sampling.samples),
            do_sample=sampled,
            max_new_tokens=sampling.max_completion_tokens,
            pad_token_id=tokenizer.pad_token_id,
            eos_token_id=tokenizer.eos_token_id,
            **options,
        )
    new = output[:, expanded["input_ids"].shape[1] :]
    return [_decode(tokenizer, row.tolist()) for row in new]


def _shared_prefix(model: Any, inputs: Any, samples: int) -> Any:
    """The cache of all prompt tokens but the last, computed once for each prompt and repeated for its samples."""
    if samples == 1:
        return None
    mask = inputs["attention_mask"][:, :-1]
    positions = (mask.cumsum(dim=-1) - 1).clamp(min=0)
    cache = model(
        input_ids=inputs["input_ids"][:, :-1],
        attention_mask=mask,
        position_ids=positions,
        use_cache=True,
        logits_to_keep=1,
    ).past_key_values
    cache.batch_repeat_interleave(samples)
    return cache


def _decode(tokenizer: Any, ids: list[int]) -> str:
    """The text up to the end token. Special tokens inside stay visible, so that the strict parser sees them."""
    if tokenizer.eos_token_id in ids:
        ids = ids[: ids.index(tokenizer.eos_token_id)]
    ids = [token for token in ids if token != tokenizer.pad_token_id]
    return str(tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False))


def _expected_levels_batch(
    model: Any, tokenizer: Any, prompts: list[str], completions: list[str]
) -> list[npt.NDArray[np.float64]]:
    import torch

    prompt_ids = tokenizer(prompts, add_special_tokens=False)["input_ids"]
    completion_ids = tokenizer(completions, add_special_tokens=False)["input_ids"]
    rows = [first + second for first, second in zip(prompt_ids, completion_ids, strict=True)]
    width = max(map(len, rows))
    tokens = torch.full((len(rows), width), tokenizer.pad_token_id)
    mask = torch.zeros((len(rows), width), dtype=torch.long)
    for index, row in enumerate(rows):
        tokens[index, : len(row)] = torch.tensor(row)
        mask[index, : len(row)] = 1
    with torch.inference_mode():
        logits = model(input_ids=tokens.to(model.device), attention_mask=mask.to(model.device)).logits
    return [
        _expectations(tokenizer, second, logits[index, len(first) - 1 :])
        for index, (first, second) in enumerate(zip(prompt_ids, completion_ids, strict=True))
    ]


def _expectations(tokenizer: Any, completion_ids: list[int], logits: Any) -> npt.NDArray[np.float64]:
    """`logits[i]` predicts the completion's token i."""
    import torch

    pieces = tokenizer.convert_ids_to_tokens(completion_ids)
    values = []
    for position, digit_at in level_positions(pieces):
        alternatives = tokenizer.convert_tokens_to_ids(level_alternatives(pieces, position, digit_at))
        probabilities = torch.softmax(logits[position, alternatives].float(), dim=-1)
        values.append(float((probabilities * torch.tensor(LEVELS, dtype=torch.float32)).sum()))
    return np.array(values)
