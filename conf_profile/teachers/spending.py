"""What a budget counts: requests that a server may have charged for, over every try at the same requests.

A step that fails is tried again, by a cluster or by hand, and its budget must not begin anew. The count therefore
stands beside the kept answers, and goes where they go.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from conf_profile.teachers.answers import AnswerStore, prompt_hash
from conf_profile.teachers.protocol import Request


@dataclass
class Spending:
    """Requests so far; `on_change` is told the new number before the request that it counts is sent."""

    requests: int = 0
    on_change: Callable[[int], None] | None = None

    def add(self, requests: int) -> None:
        """Counts so many more, or fewer where one turned out to be free."""
        self.requests += requests
        if self.on_change:
            self.on_change(self.requests)

    def continue_in(self, store: AnswerStore, requests: Sequence[Request]) -> None:
        """Goes on from what earlier tries at these requests have left in the store, and leaves its own there."""
        job = _name(requests)
        self.requests = store.read_spent(job)
        self.on_change = lambda spent: store.keep_spent(job, spent)


def _name(requests: Sequence[Request]) -> str:
    """Of users and prompts, not of samples: a later run on other data, or other users, has a budget of its own."""
    asked = json.dumps([[request.user_id, prompt_hash(request.messages)] for request in requests])
    return hashlib.sha256(asked.encode()).hexdigest()[:16]
