"""What a teacher is: many requests in, completions out as they arrive.

A teacher knows nothing of votes, taxonomies or files; it turns messages into text. `answers.ask` keeps every
completion on disk the moment it arrives and never asks for one that is kept.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from conf_profile.dialogue.prompts import Message


@dataclass(frozen=True)
class Request:
    """One user's prompt and the sample numbers that are wanted of it (those not kept yet)."""

    user_id: str
    messages: tuple[Message, ...]
    samples: tuple[int, ...]


@dataclass(frozen=True)
class Usage:
    """Tokens that were paid for."""

    prompt_tokens: int
    answer_tokens: int


@dataclass(frozen=True)
class Completion:
    """One sampled answer, as text; nothing is known of its form yet.

    `reason` says why the text is empty or not whole, in one word (`length`, `content_filter`,
    `context_length_exceeded`, `refusal`, `empty`); it is empty where the teacher knows of nothing.
    `usage` is None where nobody has counted.
    """

    user_id: str
    sample: int
    text: str
    reason: str = ""
    usage: Usage | None = None


class Teacher(Protocol):
    """A source of completions. `fingerprint` names everything that changes its answers (model, temperature...)."""

    @property
    def fingerprint(self) -> str: ...

    def complete(self, requests: Sequence[Request]) -> AsyncIterator[Completion]:
        """Yields each completion as it arrives, in any order.

        Raises TeacherError when it cannot go on (unreachable, budget spent, refused key). An answer that is
        malformed is no error: it is yielded as it is and counted later.
        """
        ...

    async def aclose(self) -> None: ...
