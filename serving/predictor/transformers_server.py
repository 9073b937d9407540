"""`python -m serving.predictor.transformers_server --model FOLDER`: the predictor's API without vLLM, and far slower.

It answers what the transformer asks of vLLM: /health, /v1/models, and /v1/chat/completions with `structured_outputs`,
`logprobs`, `n` and `temperature`. It answers one request after another, so it is for trying a model out where vLLM
cannot be had, not for load. A model that is an adapter is read together with its base.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any

from aiohttp import web

from conf_profile.errors import ConfProfileError
from serving import termination
from serving.predictor.arguments import PredictorArguments, engine_options, max_length, served_names
from serving.predictor.grammar_decoding import Answer, GrammarDecoder, Sampling, Token, compile_grammar

MAX_SAMPLES, MAX_TOP_LOGPROBS = 128, 20


class RequestError(Exception):
    """What a caller has to change; `status` is what it is answered."""

    def __init__(self, status: HTTPStatus, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True)
class Question:
    """A request that has been read."""

    messages: Sequence[Mapping[str, str]]
    template: Mapping[str, Any]
    sampling: Sampling


class ChatServer:
    """One model behind the routes that the transformer calls."""

    def __init__(self, folder: Path, served_name: str) -> None:
        from conf_profile.students import model

        self._names = served_names(folder, served_name)
        network, self._tokenizer = model.load(folder, str(engine_options(folder)["dtype"]).replace("auto", "float32"))
        self._decoder, self._room = GrammarDecoder(network, self._tokenizer), max_length(folder)
        # One at a time: torch's threads already use the cores that there are.
        self._worker = ThreadPoolExecutor(1)

    def application(self) -> web.Application:
        """The routes."""
        found = web.Application()
        found.router.add_get("/health", self.report_health)
        found.router.add_get("/v1/models", self.list_models)
        found.router.add_post("/v1/chat/completions", self.complete)
        return found

    async def report_health(self, _: web.Request) -> web.Response:
        """200: the model is loaded before the server listens."""
        return web.Response()

    async def list_models(self, _: web.Request) -> web.Response:
        """The names under which the model is served."""
        return web.json_response({"object": "list", "data": [{"id": name, "object": "model"} for name in self._names]})

    async def complete(self, request: web.Request) -> web.Response:
        """A chat completion; an error has OpenAI's form."""
        try:
            body = await _read_body(request)
            question, prompt = self._read(body)
            loop = asyncio.get_running_loop()
            answers = await loop.run_in_executor(self._worker, self._decoder.answer, prompt, question.sampling)
        except RequestError as error:
            return web.json_response({"error": {"message": str(error), "code": int(error.status)}}, status=error.status)
        choices = [_to_choice(index, answer) for index, answer in enumerate(answers)]
        return web.json_response({"object": "chat.completion", "model": body["model"], "choices": choices})

    def _read(self, body: Mapping[str, Any]) -> tuple[Question, list[int]]:
        if body.get("model") not in self._names:
            raise RequestError(HTTPStatus.NOT_FOUND, f"The model `{body.get('model')}` does not exist.")
        try:
            question = _to_question(body)
            text = self._tokenizer.apply_chat_template(
                list(question.messages), tokenize=False, add_generation_prompt=True, **question.template
            )
        except (ValueError, LookupError, TypeError) as error:
            raise RequestError(HTTPStatus.BAD_REQUEST, str(error)) from error
        prompt: list[int] = self._tokenizer(text, add_special_tokens=False)["input_ids"]
        if len(prompt) + question.sampling.max_tokens > self._room:
            raise RequestError(
                HTTPStatus.BAD_REQUEST,
                f"This model's maximum context length is {self._room} tokens, but the prompt has {len(prompt)} and "
                f"max_tokens is {question.sampling.max_tokens}.",
            )
        return question, prompt


async def _read_body(request: web.Request) -> Mapping[str, Any]:
    try:
        body = await request.json()
    except ValueError as error:
        raise RequestError(HTTPStatus.BAD_REQUEST, f"the body is not JSON: {error}") from error
    if not isinstance(body, dict):
        raise RequestError(HTTPStatus.BAD_REQUEST, "the body is not a JSON object")
    return body


def _to_question(body: Mapping[str, Any]) -> Question:
    """ValueError, LookupError or TypeError where the request does not make sense."""
    grammar = (body.get("structured_outputs") or {}).get("regex")
    if grammar is not None:
        compile_grammar(grammar)
    sampling = Sampling(
        samples=int(body.get("n", 1)),
        temperature=float(body.get("temperature", 1.0)),
        max_tokens=int(body["max_tokens"]),
        top_logprobs=int(body.get("top_logprobs", 0)) if body.get("logprobs") else 0,
        grammar=grammar,
    )
    if not (1 <= sampling.samples <= MAX_SAMPLES and sampling.temperature >= 0 and sampling.max_tokens >= 1):
        raise ValueError(f"n is 1 to {MAX_SAMPLES}, temperature at least 0 and max_tokens at least 1")
    if not 0 <= sampling.top_logprobs <= MAX_TOP_LOGPROBS:
        raise ValueError(f"top_logprobs is 0 to {MAX_TOP_LOGPROBS}")
    messages = body["messages"]
    if not isinstance(messages, list) or not all(isinstance(one["content"], str) for one in messages):
        raise TypeError("messages is a list of objects with role and content")
    return Question(messages, body.get("chat_template_kwargs") or {}, sampling)


def _to_choice(index: int, answer: Answer) -> dict[str, Any]:
    return {
        "index": index,
        "finish_reason": answer.reason,
        "message": {"role": "assistant", "content": answer.text},
        "logprobs": {"content": [to_content(token) for token in answer.tokens]},
    }


def to_content(token: Token) -> dict[str, Any]:
    """A token as a chat completion's `logprobs` show it."""
    alternatives = [{"token": text, "logprob": logprob} for text, logprob in token.alternatives]
    return {"token": token.text, "logprob": token.logprob, "top_logprobs": alternatives}


def command(model: Path, given: PredictorArguments) -> list[str]:
    """The whole command; of the arguments it takes what is not vLLM's own."""
    where = ["--host", given.host, "--port", str(given.port)]
    return [sys.executable, "-m", __name__, "--model", str(model), "--served-name", given.served_name, *where]


def main(given: Sequence[str]) -> None:
    """Loads the model and serves it; ends with status 2 and one line where that fails."""
    parser = argparse.ArgumentParser(prog="python -m serving.predictor.transformers_server", allow_abbrev=False)
    parser.add_argument("--model", type=Path, required=True, help="the model's folder")
    parser.add_argument("--served-name", default="conf-profile", help="besides the version, which is served by name")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000)
    options = parser.parse_args(given)
    try:
        server = ChatServer(options.model, options.served_name)
    except ConfProfileError as error:
        termination.report_error("predictor", error)
        sys.exit(2)
    # What a caller has stopped waiting for is not begun.
    web.run_app(
        server.application(),
        host=options.host,
        port=options.port,
        print=None,
        access_log=None,
        handler_cancellation=True,
    )


if __name__ == "__main__":
    main(sys.argv[1:])
