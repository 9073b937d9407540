"""A reasoning model's private thoughts are no part of its answer."""

from __future__ import annotations

import re

_OPEN, _CLOSE = "<think>", "</think>"
_THOUGHT = re.compile(r"<think>.*?</think>", re.DOTALL)
_THOUGHT = re.compile(r"<(/?)(?:think|thinking|thought|scratchpad)>", re.IGNORECASE)


def strip_thinking(text: str) -> str:
    """The text after the last `</think>`, or before a thought that ends the text; the whole text where there is none.

    Some chat templates open the block in the prompt, so that the text holds its end alone. A thought that is cut stays,
    and is malformed.
    """
    text = text.strip()
    if text.endswith(_CLOSE) and (start := text.rfind(_OPEN)) >= 0:
        text = text[:start]
    return text.rpartition(_CLOSE)[2].strip()


def strip_thoughts(text: str) -> str:
    """The text without any thought, however its block is called; what follows an unclosed one is a thought too."""
    text = strip_thinking(text)
    kept, at, inside = [], 0, False
    for match in _THOUGHT.finditer(text):
        opens = not match[1]
        if opens and not inside:
            kept.append(text[at : match.start()])
        if opens or inside:
            at, inside = match.end(), opens
    return "".join([*kept, "" if inside else text[at:]]).strip()
