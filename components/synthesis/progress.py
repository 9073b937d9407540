"""How far the teacher is, what its answers are like, and what they have cost: a line every few seconds.

The lines hold counts alone: an answer may quote a user, and lines go into logs.
"""

from __future__ import annotations

import sys
import time
from collections import Counter, deque
from collections.abc import Sequence

from components.synthesis import inspection
from conf_profile.config import TeacherConfig
from conf_profile.dialogue.answer_reader import read_answer
from conf_profile.dialogue.prompts import Message
from conf_profile.dialogue.reasons import AnswerForm
from conf_profile.dialogue.task import Task
from conf_profile.teachers.cost import Price, price_of, usage_of
from conf_profile.teachers.protocol import Completion, Usage

SECONDS_BETWEEN_LINES = 5.0


class AnswerProgress:
    """The `Watcher` of a shard's answers: prints lines, and stops the asking when answers have become malformed."""

    def __init__(self, title: str, total: int, task: Task, config: TeacherConfig) -> None:
        self._title = title
        self._total = total
        self._task = task
        self._limit = config.malformed_limit
        self._counts_tokens = config.kind != "lexicon"
        self._price = price_of(config)
        self._there = 0
        self._forms: Counter[AnswerForm] = Counter()
        self._latest: deque[AnswerForm] = deque(maxlen=inspection.LATEST_ANSWERS)
        self._usage = Usage(0, 0)
        self._told_at = -SECONDS_BETWEEN_LINES
        self._told = -1

    def begin(self, kept: int) -> None:
        """So many answers had been kept before."""
        self._there += kept
        self._tell_if_due()

    def add(self, messages: Sequence[Message], completion: Completion) -> None:
        """Counts an answer; MalformedAnswersError where most of the latest ones are malformed."""
        form = read_answer(completion.text, self._task, completion.reason).form
        self._there += 1
        self._forms[form] += 1
        self._latest.append(form)
        used = usage_of(messages, completion)
        self._usage = Usage(
            self._usage.prompt_tokens + used.prompt_tokens, self._usage.answer_tokens + used.answer_tokens
        )
        self._tell_if_due()
        if not form.well_formed and len(self._latest) == self._latest.maxlen:
            inspection.require_well_formed(Counter(self._latest), self._limit, "latest")

    def _tell_if_due(self) -> None:
        due = self._there == self._total or time.monotonic() - self._told_at >= SECONDS_BETWEEN_LINES
        if due and self._told != self._there:
            self._told, self._told_at = self._there, time.monotonic()
            print(self.line(), file=sys.stderr, flush=True)

    def line(self) -> str:
        """As `synthesis 1 40/300 answers, 95.0% of 40 new ones well-formed, cost about 0.12 so far`."""
        parts = [f"{self._title} {self._there}/{self._total} answers"]
        if new := self._forms.total():
            share = sum(count for form, count in self._forms.items() if form.well_formed) / new
            parts.append(f"{share:.1%} of {new:,} new ones well-formed")
            if self._counts_tokens:
                parts.append(describe_usage(self._usage, self._price))
        return ", ".join(parts)


def describe_usage(usage: Usage, price: Price | None) -> str:
    """The cost, or where nobody has named a price the tokens."""
    if price is None:
        return f"about {usage.prompt_tokens + usage.answer_tokens:,} tokens so far"
    cost = price.cost(usage)
    return f"cost about {cost:,.2f} so far" if cost >= 1 else f"cost about {cost:.4f} so far"
