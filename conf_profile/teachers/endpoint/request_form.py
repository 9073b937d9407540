"""The form in which an endpoint takes a request; what it refuses is learned once and kept.

OpenAI's reasoning models take `max_completion_tokens` in place of `max_tokens` and no temperature, some servers answer
in streams only, some take no `n`. None of them says so before it is asked, so the first refusal teaches it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Any

from conf_profile.dialogue.prompts import Message
from conf_profile.teachers.endpoint.refusals import Refusal

MAX_TOKENS, MAX_COMPLETION_TOKENS = "max_tokens", "max_completion_tokens"
_UNSUPPORTED_CODES = frozenset({"unsupported_parameter", "unsupported_value", "unknown_parameter"})
_UNSUPPORTED_PHRASE = re.compile(
    r"unsupported|not support|not compatible|instead|deprecated|unrecogni[sz]ed|unknown|unexpected|not permitted"
    r"|not allowed|extra (?:inputs|fields)|only the default",
    re.I,
)
_STREAM_ONLY = re.compile(r"only support\w* stream|stream\w* (?:mode )?(?:is )?(?:required|only)|non-stream\w*", re.I)
_STREAM_MUST = re.compile(r"['\"`]?stream['\"`]? (?:must|should|has to) be (?:set to )?true", re.I)


class ManySamples(Enum):
    """Whether the endpoint answers several samples in one request."""

    UNTRIED = "untried"
    WORKS = "works"
    REFUSED = "refused"


@dataclass(frozen=True)
class RequestForm:
    """A request's fields besides the messages. `extra` is the configuration's: a null takes a field out."""

    model: str
    temperature: float
    max_tokens: int
    extra: Mapping[str, Any] = field(default_factory=dict)
    length_field: str = MAX_TOKENS
    with_temperature: bool = True
    stream: bool = False
    many: ManySamples = ManySamples.UNTRIED

    def encode(self, messages: bytes, samples: int) -> bytes:
        """The body; `messages` are encoded already, since all samples of a user have the same ones."""
        return json.dumps(self._fields(samples)).encode()[:-1] + b', "messages": ' + messages + b"}"

    def learn(self, refusal: Refusal) -> RequestForm | None:
        """Another form that the endpoint may take, after it refused this one; None where there is none."""
        if not refusal.is_about_the_form:
            return None
        if not self.stream and (_STREAM_ONLY.search(refusal.message) or _STREAM_MUST.search(refusal.message)):
            return replace(self, stream=True)
        if refusal.code not in _UNSUPPORTED_CODES and not _UNSUPPORTED_PHRASE.search(refusal.message):
            return None
        if self.length_field == MAX_TOKENS and refusal.names(MAX_TOKENS):
            return replace(self, length_field=MAX_COMPLETION_TOKENS)
        if self.with_temperature and refusal.names("temperature"):
            return replace(self, with_temperature=False)
        return None

    def describe_change(self, new: RequestForm) -> str:
        """What `new` does otherwise, for the log."""
        if new.length_field != self.length_field:
            return f"takes {new.length_field} in place of {self.length_field}"
        if new.with_temperature != self.with_temperature:
            return f"takes no temperature: its own holds, not teacher.temperature ({self.temperature:g})"
        if new.stream != self.stream:
            return "answers in streams only"
        return f"takes {'one sample' if new.many is ManySamples.REFUSED else 'several samples'} in a request"

    def _fields(self, samples: int) -> dict[str, Any]:
        fields: dict[str, Any] = {"model": self.model}
        if self.with_temperature:
            fields["temperature"] = self.temperature
        if MAX_COMPLETION_TOKENS not in self.extra:
            fields[self.length_field] = self.max_tokens
        if samples > 1:
            fields["n"] = samples
        if self.stream:
            fields["stream"] = True
        given = {**fields, **self.extra}
        return {name: value for name, value in given.items() if value is not None}


def encode_messages(messages: Sequence[Message]) -> bytes:
    """The messages as JSON."""
    return json.dumps(list(messages)).encode()
