"""A reasoning model's private thoughts are no part of its answer."""

from __future__ import annotations

import re

# Some chat templates open the block in the prompt, so that the text holds its end alone.
_THINKING = re.compile(r"\A.*</think>", re.DOTALL)


def strip_thinking(text: str) -> str:
    """The text after the last `</think>`; the whole text where there is none (a cut thought is malformed)."""
    return _THINKING.sub("", text).strip()
