"""What a successful response says: texts, or why there is none. Whole bodies and event streams, in the forms that are
about.

A text is returned as it is; whether it is a well-formed answer is not decided here. Where there is no whole text the
reason says why, in one word of the API's.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from conf_profile.teachers.endpoint.http import EVENT_STREAM, Response
from conf_profile.teachers.endpoint.refusals import CONTENT_FILTER, Refusal, read_hidden_refusal
from conf_profile.teachers.protocol import Usage

LENGTH, REFUSAL, NO_TEXT = "length", "refusal", "empty"
_TEXT_PARTS = frozenset({"text", "output_text"})
_REASONING_FIELDS = ("reasoning_content", "reasoning")


class NotACompletionError(Exception):
    """The body is no chat completion; its text is not told, since it may be an answer's."""


@dataclass(frozen=True)
class Choice:
    """One sample. `reason` is empty for a text that ended by itself."""

    text: str
    reason: str = ""


@dataclass(frozen=True)
class ChatAnswer:
    """The samples of one request, the model that says it gave them (empty: it does not say), and what they cost."""

    choices: Sequence[Choice]
    model: str = ""
    usage: Usage | None = None

    def usage_of(self, index: int) -> Usage | None:
        """One sample's share: the first one bears the prompt, the answers' tokens are shared out evenly."""
        if self.usage is None:
            return None
        each, rest = divmod(self.usage.answer_tokens, len(self.choices))
        return Usage(self.usage.prompt_tokens if index == 0 else 0, each + (index < rest))


def read_answer(response: Response) -> ChatAnswer | Refusal:
    """Reads a response of status 200: an answer, or an error inside. Raises NotACompletionError."""
    if response.content_type == EVENT_STREAM or response.body.lstrip().startswith((b"data:", b":", b"event:")):
        return _read_stream(response.body)
    try:
        data = json.loads(response.body)
    except (ValueError, RecursionError) as error:
        kind = response.content_type
        shown = f" but {kind}" if kind and "json" not in kind else ""
        raise NotACompletionError(f"the body is not a chat completion{shown}") from error
    return _read_body(data)


def _read_body(data: Any) -> ChatAnswer | Refusal:
    if refusal := read_hidden_refusal(data):
        return refusal
    try:
        choices = sorted(data["choices"], key=lambda choice: choice.get("index") or 0)
        answer = ChatAnswer([_choice(choice) for choice in choices], str(data.get("model") or ""), _usage(data))
    except (KeyError, TypeError, AttributeError) as error:
        raise NotACompletionError("the body is not a chat completion") from error
    if not answer.choices:
        raise NotACompletionError("the completion has no choices")
    return answer


def _usage(data: dict[str, Any]) -> Usage | None:
    """The tokens that the endpoint counted, where it did."""
    told = data.get("usage")
    if not isinstance(told, dict):
        return None
    prompt, answer = told.get("prompt_tokens"), told.get("completion_tokens")
    return Usage(prompt, answer) if isinstance(prompt, int) and isinstance(answer, int) else None


def _choice(choice: Any) -> Choice:
    message, finish = choice["message"], choice.get("finish_reason")
    text = _text(message.get("content"))
    if not text and finish not in (LENGTH, CONTENT_FILTER) and not message.get("refusal"):
        # Servers that take a whole answer for a thought put it here, and leave the content empty.
        text = next((found for name in _REASONING_FIELDS if (found := _text(message.get(name)))), "")
    if finish in (LENGTH, CONTENT_FILTER):
        return Choice(text, finish)
    if not text:
        return Choice("", REFUSAL if message.get("refusal") else NO_TEXT)
    return Choice(text)


def _text(content: Any) -> str:
    """A message's content: null, a text, or parts, of which thoughts are left out."""
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        return "".join(_part(part) for part in content)
    raise NotACompletionError("the completion's content is not text")


def _part(part: Any) -> str:
    if isinstance(part, str):
        return part
    if not isinstance(part, dict):
        raise NotACompletionError("the completion's content is not text")
    return str(part.get("text") or "") if part.get("type", "text") in _TEXT_PARTS else ""


@dataclass
class _StreamedChoice:
    """What the events say of one choice."""

    parts: dict[str, list[str]] = field(default_factory=dict)
    finish: str | None = None

    def add(self, choice: dict[str, Any]) -> None:
        delta = choice.get("delta") or choice.get("message") or {}
        for name in ("content", "refusal", *_REASONING_FIELDS):
            if delta.get(name):
                self.parts.setdefault(name, []).append(_text(delta[name]))
        self.finish = choice.get("finish_reason") or self.finish

    def as_choice(self) -> Choice:
        message = {name: "".join(parts) for name, parts in self.parts.items()}
        return _choice({"message": message, "finish_reason": self.finish})


def _read_stream(body: bytes) -> ChatAnswer | Refusal:
    choices: dict[int, _StreamedChoice] = {}
    model, ended, usage = "", False, None
    for event in _events(body):
        if event is None:
            ended = True
            continue
        if refusal := read_hidden_refusal(event):
            return refusal
        model, usage = str(event.get("model") or model), _usage(event) or usage
        for choice in event.get("choices") or ():
            choices.setdefault(choice.get("index") or 0, _StreamedChoice()).add(choice)
    if not choices or not (ended or all(choice.finish for choice in choices.values())):
        raise NotACompletionError("the stream ended before the answer did")
    return ChatAnswer([choices[index].as_choice() for index in sorted(choices)], model, usage)


def _events(body: bytes) -> Iterator[dict[str, Any] | None]:
    """The data of each event; None for the mark of the end. Comments and names of events are passed over."""
    for line in body.splitlines():
        if not line.startswith(b"data:"):
            continue
        data = line[5:].strip()
        if data == b"[DONE]":
            yield None
            continue
        try:
            event = json.loads(data)
        except (ValueError, RecursionError) as error:
            raise NotACompletionError("the stream was cut") from error
        if not isinstance(event, dict):
            raise NotACompletionError("the stream's events are not those of a chat completion")
        yield event
