"""A circuit breaker: after too many failures in a row it refuses at once, and lets one trial through later."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

State = Literal["closed", "open", "half_open"]


@dataclass
class CircuitBreaker:
    """Opens after `failures` in a row, for `seconds`; then one call decides whether it closes again.

    Not for threads: one event loop calls it.
    """

    failures: int
    seconds: float
    clock: Callable[[], float] = time.monotonic
    _failed: int = field(default=0, init=False)
    _succeeded_at: float = field(default=-math.inf, init=False)
    _opened_at: float | None = field(default=None, init=False)
    _on_trial: bool = field(default=False, init=False)

    @property
    def state(self) -> State:
        if self._opened_at is None:
            return "closed"
        return "half_open" if self.clock() - self._opened_at >= self.seconds else "open"

    def allow(self) -> bool:
        """Whether a call may be made now; every call that was allowed reports `succeeded`, `failed` or `gave_up`."""
        if self.state == "closed":
            return True
        if self.state == "open" or self._on_trial:
            return False
        self._on_trial = True
        return True

    def record_success(self) -> None:
        self._failed, self._opened_at, self._on_trial = 0, None, False
        self._succeeded_at = self.clock()

    def record_failure(self) -> None:
        self._failed += 1
        if self._on_trial or self._failed >= self.failures:
            self._opened_at, self._on_trial = self.clock(), False

    def record_timeout(self, since: float) -> None:
        """A failure, unless the server answered anybody after `since` (a time of `clock`): then it is only busy."""
        if self._succeeded_at < since:
            self.record_failure()

    def release_trial(self) -> None:
        """The call ended without a word about the server (the caller went away): a trial is free again."""
        self._on_trial = False
