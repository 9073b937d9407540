"""Faults of the network that pass: tried again for as long as the environment allows.

CONF_PROFILE_RETRY_SECONDS is how long a server may be away without a break before a step fails: seconds from the first
failure on. Any answer of that server ends the count, so a server that comes back may go away again; but one operation
is given up so long after its own first failure, whatever others are answered. Absent, empty or 0: nothing is tried
again here, only what a client does by itself.

What counts as transient is not decided here: each boundary knows its own (`object_errors`, `teachers.openai`,
`serving_cluster`). Not `tenacity`: the count is one server's, shared by all threads and tasks that wait for it.
"""

from __future__ import annotations

import logging
import math
import os
import random
import threading
import time
from collections.abc import Callable
from itertools import count
from typing import TypeVar

from conf_profile.errors import ConfigError, ConfProfileError

RETRY_SECONDS = "CONF_PROFILE_RETRY_SECONDS"
FIRST_PAUSE = 1.0
"""Seconds at most before the second try; each further pause may be twice as long."""
LONGEST_PAUSE = 30.0
"""Seconds."""
_SHORTEST_SHARE = 0.5
"""Of a pause, so that those who failed together do not all come back at once."""
_FORGET_FACTOR = 2
"""Longest pauses without a request: what failed before that says nothing of the time between."""
_MOST_DOUBLINGS = 16

T = TypeVar("T")
E = TypeVar("E", bound=ConfProfileError)
Cause = Callable[[BaseException], str]
"""The class or the status of a transient error, in a word; empty for any other error."""
_log = logging.getLogger(__name__)


def is_caused_by(error: BaseException | None, *kinds: type[BaseException]) -> bool:
    """Whether an error is one of these types, or was raised from one, or while one was handled.

    Clients wrap what the socket raised in types of their own, which tell less.
    """
    while error is not None:
        if isinstance(error, kinds):
            return True
        error = error.__cause__ or error.__context__
    return False


def retry_seconds() -> float:
    """The budget that the environment gives, in seconds; 0 for none. ConfigError for what is not a number of them."""
    given = os.environ.get(RETRY_SECONDS, "").strip()
    try:
        seconds = float(given or 0)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds < math.inf:
        raise ConfigError(
            f"the environment variable {RETRY_SECONDS} is {given!r}; expected seconds, e.g. 900, or 0 for no retries "
            "(on a cluster: pipelines.retrySeconds)"
        )
    return seconds


class Outage:
    """How long one server has been away, to all threads and tasks of this process that share the object.

    `seconds` is the budget; `jitter` gives a number between its two arguments.
    """

    def __init__(
        self,
        server: str,
        seconds: float,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
        jitter: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self.server, self.seconds, self.now = server, seconds, clock
        self._sleep, self._jitter = sleep, jitter
        self._lock = threading.Lock()
        self._since: float | None = None
        self._last_failure = -math.inf
        self._announced_until = -math.inf

    def call(self, action: str, once: Callable[[], T], cause_of: Cause) -> T:
        """What `once` returns, tried again while its ConfProfileError has a transient cause and the budget lasts.

        `action` is for the log. When the budget is used up the last error says for how long it was tried.
        """
        failed = math.inf
        for tries in count(1):
            began = self.now()
            try:
                result = once()
            except ConfProfileError as error:
                cause = cause_of(error)
                if not cause:
                    self.end()
                if not (cause and self.seconds):
                    raise
                failed = min(failed, self.now())
                pause = self.next_pause(action, cause, began, failed, tries)
                if pause is None:
                    raise self.add_duration(error, failed) from error.__cause__
            else:
                self.end()
                return result
            self._sleep(pause)
        raise AssertionError("unreachable")

    def next_pause(self, action: str, cause: str, began: float, failed: float, tries: int) -> float | None:
        """Seconds until an operation's next try; None when the budget is used up.

        The last try began at `began`, the first one of the operation failed at `failed`. Logs one line for all who fail
        before the pause that it announces is over.
        """
        now = self.now()
        with self._lock:
            if self._since is None or began - self._last_failure > _FORGET_FACTOR * LONGEST_PAUSE:
                self._since = now
            self._last_failure = now
            left = self.seconds - (now - min(failed, self._since))
            if left <= 0:
                return None
            pause = min(self._pause(tries), left)
            announced = now < self._announced_until
            if not announced:
                self._announced_until = now + pause
        if not announced:
            _log.warning(
                "%s: cannot %s: %s; next try in %.1f s, %.0f s of %.0f s left", self.server, action, cause, pause, left,
                self.seconds,
            )  # fmt: skip
        return pause

    def end(self) -> None:
        """The server has answered, whatever it was."""
        with self._lock:
            since, self._since = self._since, None
        # Of a server that fails now and then there would be a line for each time.
        if since is not None and (lasted := self.now() - since) >= FIRST_PAUSE:
            _log.warning("%s: answers again after %.0f s", self.server, lasted)

    def add_duration(self, error: E, failed: float) -> E:
        """The same error with a sentence on how long it was tried; `failed` as in `next_pause`."""
        with self._lock:
            tried = self.now() - min(failed, failed if self._since is None else self._since)
        return type(error)(f"{error}; tried for {tried:.0f} s ({RETRY_SECONDS}={self.seconds:g})")

    def _pause(self, tries: int) -> float:
        longest = min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** min(tries - 1, _MOST_DOUBLINGS))
        return self._jitter(_SHORTEST_SHARE * longest, longest)
