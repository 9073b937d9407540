"""What prompts and answers cost: an estimate from their lengths, unless the endpoint counted their tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from conf_profile.config import TeacherConfig
from conf_profile.dialogue.prompts import Message
from conf_profile.teachers.protocol import Completion, Usage

CHARACTERS_A_TOKEN = 4


@dataclass(frozen=True)
class Price:
    """Of a million tokens, in any currency."""

    prompt: float
    answer: float

    def cost(self, usage: Usage) -> float:
        """In the price's currency."""
        return (usage.prompt_tokens * self.prompt + usage.answer_tokens * self.answer) / 1e6


def price_of(config: TeacherConfig) -> Price | None:
    """The price that the configuration names."""
    if config.price is None:
        return None
    return Price(config.price, config.price if config.answer_price is None else config.answer_price)


def usage_of(messages: Sequence[Message], completion: Completion) -> Usage:
    """The tokens that the endpoint counted, else characters / 4: of what is kept, without thoughts."""
    if completion.usage is not None:
        return completion.usage
    given = sum(len(message["content"]) for message in messages)
    return Usage(given // CHARACTERS_A_TOKEN, len(completion.text) // CHARACTERS_A_TOKEN)
