"""Answers sampled from a student, and how sure it is of the levels that it states.

Plain transformers generation; a GPU preset generates with vLLM instead (`use_vllm`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from conf_profile.dialogue.output_format import LEVELS
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


def device() -> str:
    """Where a model answers: on the GPU where torch finds one. Of several it is the one of this process."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def generate(
    model: Any, tokenizer: Any, prompts: Sequence[str], sampling: Sampling, progress: Progress | None = None
) -> list[list[str]]:
    """`sampling.samples` completions for each prompt, as text, in the prompts' order.

    Prompts of similar length are generated together; `batch_size` counts completions, not prompts. The model is left
    on `device()`, since what follows, more questions or a training, needs it there.
    """
    import torch

    torch.manual_seed(sampling.seed)
    # Here and not where it is loaded: a step that samples with vLLM loads it too, and leaves the GPU to vLLM.
    model.to(device()).eval()
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
    stated = [_stated_levels(tokenizer, ids) for ids in completion_ids]
    # The logits at a token are for the next one.
    places = [(row, len(prompt_ids[row]) + at - 1) for row, found in enumerate(stated) for at, _ in found]
    digits = torch.tensor([ids for found in stated for _, ids in found], dtype=torch.long).reshape(-1, len(LEVELS))
    rows = [first + second for first, second in zip(prompt_ids, completion_ids, strict=True)]
    logits = _logits(model, rows, tokenizer.pad_token_id, places)
    probabilities = torch.softmax(logits.gather(1, digits.to(logits.device)).float().cpu(), dim=-1)
    expected = (probabilities * torch.tensor(LEVELS, dtype=torch.float32)).sum(dim=-1).double().numpy()
    return np.split(expected, np.cumsum([len(found) for found in stated])[:-1])


def _stated_levels(tokenizer: Any, completion_ids: list[int]) -> list[tuple[int, list[int]]]:
    """Of each level: the index of its token, and the tokens that the five levels would have there."""
    pieces = tokenizer.convert_ids_to_tokens(completion_ids)
    return [
        (position, tokenizer.convert_tokens_to_ids(level_alternatives(pieces, position, digit_at)))
        for position, digit_at in level_positions(pieces)
    ]


def _logits(model: Any, rows: list[list[int]], padding: int, places: list[tuple[int, int]]) -> Any:
    """[places, vocabulary]: the logits at these places (row, token) of the padded batch.

    The logits of every token of a large batch would not fit on a GPU. The places are picked where the hidden states
    enter the head, so that the model still does to its logits what it does after the head (Granite scales them, Gemma
    caps them); transformers' own `logits_to_keep` can only pick the same tokens of every row.
    """
    import torch

    tokens = torch.full((len(rows), max(map(len, rows))), padding)
    mask = torch.zeros_like(tokens)
    for index, row in enumerate(rows):
        tokens[index, : len(row)] = torch.tensor(row)
        mask[index, : len(row)] = 1
    at = [row for row, _ in places], [token for _, token in places]
    head = model.get_output_embeddings()
    picking = head.register_forward_pre_hook(lambda _, given: given[0][at])
    try:
        with torch.inference_mode():
            return model(
                input_ids=tokens.to(model.device), attention_mask=mask.to(model.device), use_cache=False
            ).logits
    finally:
        picking.remove()
