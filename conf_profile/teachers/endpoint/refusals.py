"""What an endpoint's error means: whose fault it is, and whether asking again helps.

Providers agree on statuses, hardly on codes, and not at all on words. A code is believed first; of a message only
phrases that several of them use. The lists below are those of OpenAI, Azure, DeepSeek, vLLM, llama.cpp, DashScope,
OpenRouter and Anthropic's compatible endpoint.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

CONTENT_FILTER = "content_filter"
CONTEXT_LENGTH = "context_length_exceeded"
RETRIED_STATUSES = frozenset({408, 409, 425, 429})
_ABOUT_THE_PROMPT = frozenset({400, 413, 422})
_QUOTA_CODES = frozenset({
    "insufficient_quota", "insufficient_user_quota", "insufficient_balance", "billing_hard_limit_reached",
    "billing_not_active", "arrearage",
})  # fmt: skip
_QUOTA_PHRASE = re.compile(r"credit balance is too low|insufficient (?:account )?(?:balance|credits?|funds)", re.I)
_FILTER_CODES = frozenset({
    "content_filter", "content_policy_violation", "responsibleaipolicyviolation", "data_inspection_failed",
    "datainspectionfailed", "invalid_prompt",
})  # fmt: skip
_FILTER_PHRASE = re.compile(r"content (?:management )?(?:policy|filter)|content exists risk", re.I)
_LENGTH_CODES = frozenset({"context_length_exceeded", "string_above_max_length", "exceed_context_size_error"})
_LENGTH_PHRASE = re.compile(
    r"(?:maximum|max|available|model's) context|context (?:length|window|size)|(?:prompt|input) is too long", re.I
)


@dataclass(frozen=True)
class Refusal:
    """An error as an endpoint tells it; empty texts where it does not say. `status` is 0 for one without a status."""

    status: int
    code: str = ""
    parameter: str = ""
    message: str = ""

    @property
    def is_quota(self) -> bool:
        """What was paid for is used up: waiting does not help."""
        return self.status == 402 or self.code in _QUOTA_CODES or bool(_QUOTA_PHRASE.search(self.message))

    @property
    def prompt_reason(self) -> str:
        """Why this one prompt is refused; empty where it is not about the prompt."""
        if self.status and self.status not in _ABOUT_THE_PROMPT:
            return ""
        if self.code in _FILTER_CODES or _FILTER_PHRASE.search(self.message):
            return CONTENT_FILTER
        if self.status == 413 or self.code in _LENGTH_CODES or _LENGTH_PHRASE.search(self.message):
            return CONTEXT_LENGTH
        return ""

    @property
    def may_pass(self) -> bool:
        """Whether the same request may be answered later."""
        return self.status in RETRIED_STATUSES or self.status >= 500 or self.status == 0

    @property
    def is_about_the_form(self) -> bool:
        """Whether another form of the same request may be taken."""
        return self.status in (400, 422)

    def names(self, field: str) -> bool:
        """Whether it is about a field of the request."""
        return self.parameter == field or bool(re.search(rf"\b{re.escape(field)}\b", self.message))


def read_refusal(status: int, body: bytes) -> Refusal:
    """The error of a response that is none of success."""
    try:
        told = error_in(json.loads(body))
    except (ValueError, RecursionError):
        told = None
    return Refusal(status, message=body[:2000].decode(errors="replace")) if told is None else _refusal(status, told)


def read_hidden_refusal(data: Any) -> Refusal | None:
    """The error in a body that came with status 200; None where there is none. Its code may be a status."""
    told = error_in(data)
    if told is None:
        return None
    code = str(told.get("code")) if isinstance(told, dict) else ""
    status = int(code) if code.isdecimal() and 400 <= int(code) < 600 else 0
    return _refusal(status, told)


def error_in(data: Any) -> Any:
    """The error's own part of a body, in the forms that are about; None where there is none."""
    if isinstance(data, list) and len(data) == 1:
        data = data[0]
    if not isinstance(data, dict):
        return None
    if data.get("error"):
        return data["error"]
    choices = data.get("choices")
    if isinstance(choices, list) and choices:
        first = choices[0]
        return first.get("error") if isinstance(first, dict) else None
    return data if choices is None and (data.get("message") or data.get("detail")) else None


def _refusal(status: int, told: Any) -> Refusal:
    if not isinstance(told, dict):
        return Refusal(status, message=str(told))
    codes = [told.get("code"), told.get("type")]
    inner = told.get("innererror") or told.get("inner_error")
    if isinstance(inner, dict):
        codes.append(inner.get("code"))
    known = _QUOTA_CODES | _FILTER_CODES | _LENGTH_CODES
    words = [code.lower() for code in codes if isinstance(code, str)]
    code = next((word for word in words if word in known), words[0] if words else "")
    message = told.get("message") or told.get("detail") or json.dumps(told, ensure_ascii=False)
    parameter = told.get("param")
    return Refusal(status, code, parameter if isinstance(parameter, str) else "", str(message))
