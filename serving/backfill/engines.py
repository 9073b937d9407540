"""Greedy answers for many users at once, in this process: with vLLM, or with plain transformers.

Both give tables.PREDICTIONS with the levels of the model's own partition, as the server does. vLLM holds answers to
the grammar, as the server does; transformers does not, as the evaluation does not.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

import pyarrow as pa

from conf_profile import tables
from conf_profile.dialogue.prompts import UserFeatures
from conf_profile.errors import ServingError
from conf_profile.processes.machine import usable_cores
from conf_profile.students import examples
from serving.model import profile
from serving.model.bundle import Bundle
from serving.model.levels import TOP_LOGPROBS, expected_levels
from serving.model.profile import Completion, Profile
from serving.predictor.arguments import CPU_BLOCK, PredictorArguments, engine_options, environment, max_length

EngineName = Literal["vllm", "transformers"]
USERS_AT_ONCE = 1024
"""Users handed to vLLM together: log-probabilities of a whole shard's tokens would fill the memory."""


class Engine(Protocol):
    """Answers for users; a user whose answer is malformed, or whose prompt does not fit, has null tags."""

    def answer(self, people: Sequence[UserFeatures]) -> pa.Table: ...


def make_engine(name: EngineName, model: Path, bundle: Bundle, dtype: str, batch_size: int) -> Engine:
    """Loads the model; ServingError or StudentError where that fails. `dtype` and `batch_size`: transformers only."""
    if name == "vllm":
        return VLLMEngine(model, bundle)
    return TransformersEngine(model, dtype, batch_size)


class TransformersEngine:
    """The student as the evaluation asks it."""

    def __init__(self, model: Path, dtype: str, batch_size: int) -> None:
        from conf_profile.students import folder

        self._student = folder.load(model, dtype)
        self._calibration = folder.load_calibration(model)
        self._batch_size = batch_size

    def answer(self, people: Sequence[UserFeatures]) -> pa.Table:
        from conf_profile.students.rollouts import predict

        answers = self._student.answer(list(people), self._batch_size)
        return predict.to_table(answers, self._calibration, self._student.task)


class VLLMEngine:
    """vLLM without its server: the same prompt, grammar and levels, and nothing but batches."""

    def __init__(self, model: Path, bundle: Bundle) -> None:
        self._bundle = bundle
        self.llm = _start(model)
        self._tokenizer = self.llm.get_tokenizer()
        self._room = max_length(model) - bundle.max_completion_tokens

    def answer(self, people: Sequence[UserFeatures]) -> pa.Table:
        parts = [self._answer(people[start : start + USERS_AT_ONCE]) for start in range(0, len(people), USERS_AT_ONCE)]
        return pa.concat_tables([tables.PREDICTIONS.schema.empty_table(), *parts])

    def _answer(self, people: Sequence[UserFeatures]) -> pa.Table:
        bundle = self._bundle
        found = [profile.profile([said], bundle, bundle.thresholds) for said in self._completions(people)]
        return to_table([person.user_id for person in people], found)

    def _completions(self, people: Sequence[UserFeatures]) -> list[Completion]:
        """A prompt that leaves no room for its answer has an empty one; vLLM would refuse the others with it."""
        prompts = examples.prompt_texts(map(self._bundle.messages, people), self._tokenizer)
        ids = self._tokenizer(prompts, add_special_tokens=False)["input_ids"]
        fitting = [row for row, tokens in enumerate(ids) if len(tokens) <= self._room]
        outputs = self.llm.generate(
            [{"prompt_token_ids": ids[row]} for row in fitting], sampling(self._bundle), use_tqdm=False
        )
        found = [Completion("")] * len(people)
        for row, output in zip(fitting, outputs, strict=True):
            found[row] = _completion(output.outputs[0])
        return found


def to_table(user_ids: Sequence[str], profiles: Sequence[Profile]) -> pa.Table:
    """tables.PREDICTIONS; an answer below its threshold keeps its tag here, as in every table of predictions."""
    return tables.from_rows(
        [
            {"user_id": user_id, "attribute": name, "tag": said.tag, "level": said.level, "score": said.score}
            for user_id, found in zip(user_ids, profiles, strict=True)
            for name, said in found.attributes.items()
        ],
        tables.PREDICTIONS,
    )


def _completion(output: Any) -> Completion:
    """From vLLM's log-probabilities to the form that its server returns them in."""
    content = [_token(step, token) for step, token in zip(output.logprobs, output.token_ids, strict=True)]
    return Completion(output.text, expected_levels(content))


def _token(step: Mapping[int, Any], token: int) -> dict[str, Any]:
    alternatives = list(step.values())[:TOP_LOGPROBS]
    return {
        "token": step[token].decoded_token,
        "top_logprobs": [{"token": other.decoded_token, "logprob": other.logprob} for other in alternatives],
    }


def sampling(bundle: Bundle) -> Any:
    """vLLM's parameters for one answer: greedy, in the grammar, with the log-probabilities that levels are made of."""
    from vllm import SamplingParams
    from vllm.sampling_params import StructuredOutputsParams

    return SamplingParams(
        temperature=0.0,
        max_tokens=bundle.max_completion_tokens,
        logprobs=TOP_LOGPROBS,
        skip_special_tokens=False,
        structured_outputs=StructuredOutputsParams(regex=bundle.grammar),
    )


def _start(model: Path) -> Any:
    import torch

    gpu = torch.cuda.is_available()
    threads = usable_cores()
    for name, value in environment(PredictorArguments(device="gpu" if gpu else "cpu"), threads).items():
        os.environ.setdefault(name, value)  # vLLM reads them when it is imported
    try:
        from vllm import LLM
    except ImportError as error:
        raise ServingError(f"vLLM is not installed here: {error}; choose --engine transformers") from error
    # As the predictor is started: no compiling on a CPU, and blocks that a short prompt fills.
    machine = {} if gpu else {"enforce_eager": True, "block_size": CPU_BLOCK}
    try:
        return LLM(str(model), enable_prefix_caching=True, **engine_options(model), **machine)
    except (OSError, ValueError, RuntimeError) as error:
        raise ServingError(f"{model}: vLLM cannot start on it: {error}; see its lines above") from error
