"""Answers within a grammar, token by token with plain transformers: for machines that have no vLLM.

At each place the likeliest token (or one that is sampled) is taken among those with which the text can still become an
answer of the grammar, as vLLM's structured output does. Log-probabilities are the model's own, before the grammar has
ruled anything out and before temperature, as vLLM returns them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

UNFINISHED_CHARACTER = "\ufffd"
"""What a tokenizer shows of a character that further tokens complete."""


@dataclass(frozen=True)
class Sampling:
    """How one prompt is answered. `grammar`: a regular expression of the whole answer, None: anything."""

    samples: int = 1
    temperature: float = 0.0
    max_tokens: int = 256
    top_logprobs: int = 0
    grammar: str | None = None


@dataclass(frozen=True)
class Token:
    """One token of an answer as text; `alternatives` are the likeliest ones, with their log-probabilities."""

    text: str
    logprob: float
    alternatives: Sequence[tuple[str, float]]


@dataclass
class Answer:
    """One sample, as far as it has come."""

    ids: list[int] = field(default_factory=list)
    tokens: list[Token] = field(default_factory=list)
    text: str = ""
    reason: str = ""


@lru_cache(maxsize=16)
def compile_grammar(grammar: str) -> Any:
    """The expression, for partial matches; ValueError where it is none."""
    import regex

    try:
        return regex.compile(grammar)
    except regex.error as error:
        raise ValueError(f"structured_outputs.regex is not a regular expression: {error}") from error


class GrammarDecoder:
    """Answers prompts with one model, one prompt at a time and its samples together."""

    def __init__(self, model: Any, tokenizer: Any) -> None:
        self._model, self._tokenizer = model.eval(), tokenizer
        stops = model.generation_config.eos_token_id
        self._stops = {tokenizer.eos_token_id, *(stops if isinstance(stops, list) else [stops])} - {None}

    def answer(self, prompt: Sequence[int], sampling: Sampling) -> list[Answer]:
        """The samples for a prompt of these tokens. ValueError for a grammar that is none."""
        import torch

        pattern = compile_grammar(sampling.grammar) if sampling.grammar is not None else None
        answers = [Answer() for _ in range(sampling.samples)]
        with torch.inference_mode():
            read = self._model(torch.tensor([list(prompt)]), use_cache=True)
            cache, logits = read.past_key_values, read.logits[:, -1].expand(sampling.samples, -1)
            cache.batch_repeat_interleave(sampling.samples)
            for _ in range(sampling.max_tokens):
                for answer, row in zip(answers, logits.float(), strict=True):
                    if not answer.reason:
                        self._extend(answer, row, sampling, pattern)
                if all(answer.reason for answer in answers):
                    break
                last = torch.tensor([answer.ids[-1:] or [self._filler] for answer in answers])
                read = self._model(last, past_key_values=cache, use_cache=True)
                cache, logits = read.past_key_values, read.logits[:, -1]
        for answer in answers:
            answer.reason = answer.reason or "length"
        return answers

    @property
    def _filler(self) -> int:
        return int(next(iter(self._stops), 0))

    def _extend(self, answer: Answer, logits: Any, sampling: Sampling, pattern: Any) -> None:
        """One more token, or the reason why there is none."""
        for token in self._candidates(logits, sampling.temperature):
            if token in self._stops:
                if pattern is None or pattern.fullmatch(answer.text):
                    answer.reason = "stop"
                    return
                continue
            text = self._decode([*answer.ids, token])
            if pattern is None or pattern.fullmatch(text.rstrip(UNFINISHED_CHARACTER), partial=True):
                answer.tokens.append(self._describe(answer, token, text, logits, sampling.top_logprobs))
                answer.ids.append(token)
                answer.text = text
                return
        # Nothing can follow: with a grammar, because the answer is whole.
        answer.reason = "stop"

    def _candidates(self, logits: Any, temperature: float) -> Iterator[int]:
        """All tokens in the order in which they are tried: the likeliest first, or drawn one after the other."""
        import torch

        if temperature > 0:
            # Gumbel's noise makes an order that is a draw without replacement from the tempered distribution.
            uniform = torch.rand_like(logits).clamp_min(torch.finfo(logits.dtype).tiny)
            logits = logits / temperature - torch.log(-torch.log(uniform))
        yield int(logits.argmax())
        yield from logits.argsort(descending=True)[1:].tolist()

    def _describe(self, answer: Answer, token: int, text: str, logits: Any, alternatives: int) -> Token:
        import torch

        logprobs = torch.log_softmax(logits, dim=-1)
        best = logprobs.topk(min(alternatives, logprobs.numel())) if alternatives else None
        shown = [] if best is None else zip(best.indices.tolist(), best.values.tolist(), strict=True)
        before = answer.text.rstrip(UNFINISHED_CHARACTER)
        return Token(
            text[len(before) :],
            float(logprobs[token]),
            [(self._decode([*answer.ids, other])[len(before) :], value) for other, value in shown],
        )

    def _decode(self, ids: Sequence[int]) -> str:
        return str(self._tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False))
