"""What the workers of one call of a teacher share: the samples that are left, those under way, and what has arrived."""

from __future__ import annotations

import asyncio
import time
from collections import Counter, deque
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

from conf_profile.errors import TeacherError
from conf_profile.teachers.endpoint import advice
from conf_profile.teachers.endpoint.http import EndpointHTTP
from conf_profile.teachers.endpoint.request_form import encode_messages
from conf_profile.teachers.protocol import Completion, Request
from conf_profile.transient import Outage

JUDGED_USERS = 20
"""Before so many users have an answer or a refusal nobody knows whether a refused prompt is the exception."""
ALL_REFUSED_USERS = 4
"""At the end fewer users are ground enough to stop, if nobody was answered at all."""
REFUSED_SHARE = 0.9
"""Of the users; from here on it is not about single prompts."""


@dataclass(frozen=True)
class Job:
    """Samples of one user that are asked for in one request; the messages are encoded."""

    user_id: str
    messages: bytes
    samples: tuple[int, ...]


class Slots:
    """As many answers as may be under way at once; those who wait go in their order."""

    def __init__(self, free: int) -> None:
        self._free = free
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    @asynccontextmanager
    async def take(self, number: int) -> AsyncIterator[None]:
        """Waits until so many are free, and gives them back at the end of the block."""
        await self._acquire(number)
        try:
            yield
        finally:
            self._free += number
            self._wake()

    async def _acquire(self, number: int) -> None:
        if not self._waiting and number <= self._free:
            self._free -= number
            return
        place = (number, asyncio.get_running_loop().create_future())
        self._waiting.append(place)
        # Only the end of the whole run cancels a wait, and then nobody takes a slot any more.
        await place[1]

    def _wake(self) -> None:
        while self._waiting and self._waiting[0][0] <= self._free:
            number, place = self._waiting.popleft()
            if not place.done():
                self._free -= number
                place.set_result(None)


class Run:
    """One call of `complete`: jobs, arrivals, the first failure, and the prompts that were refused."""

    def __init__(
        self, http: EndpointHTTP, outage: Outage, requests: Sequence[Request], total: int, concurrency: int
    ) -> None:
        self.http, self.outage, self.total = http, outage, total
        self.slots = Slots(concurrency)
        self.arrivals: asyncio.Queue[Completion | None] = asyncio.Queue()
        self.stopped = asyncio.Event()
        self.failure: Exception | None = None
        self.refused: dict[str, str] = {}
        self.arrived = 0
        self.reached = False
        self.not_before = 0.0
        self._requests = iter(requests)
        self._backlog: deque[Job] = deque()
        self._answered: set[str] = set()
        self._held: list[Completion] = []

    def take(self, most: int) -> Job | None:
        """The next samples of one user, `most` at most; None when there are none left to hand out."""
        if not self._backlog:
            request = next(self._requests, None)
            if request is None:
                return None
            self._backlog.append(Job(request.user_id, encode_messages(request.messages), request.samples))
        job = self._backlog.popleft()
        if len(job.samples) <= most:
            return job
        self._backlog.appendleft(Job(job.user_id, job.messages, job.samples[most:]))
        return Job(job.user_id, job.messages, job.samples[:most])

    def put_back(self, job: Job) -> None:
        """Samples that did not come with the others; whoever puts them back takes jobs until there are none."""
        self._backlog.append(job)

    def arrive(self, completion: Completion) -> None:
        """A completion that the endpoint gave."""
        self.arrived += 1
        self._answered.add(completion.user_id)
        self.arrivals.put_nowait(completion)
        if self._held and self._is_judged():
            self._release()

    def refuse(self, job: Job, reason: str) -> None:
        """A prompt that the endpoint does not take: its samples are completions without a text.

        They are held back until it is known that not nearly all prompts are refused: what is wrong with all of them
        will be put right, and must not be kept as an answer.
        """
        self.refused[job.user_id] = reason
        self._held += [Completion(job.user_id, sample, "", reason) for sample in job.samples]
        if self._is_judged():
            if len(self.refused) >= REFUSED_SHARE * len(self._answered | self.refused.keys()):
                self.fail(self._refusals_error())
            else:
                self._release()

    def finish(self) -> Iterator[Completion]:
        """What is still held back when all workers have ended; a failure where nobody at all was answered."""
        if len(self.refused) >= ALL_REFUSED_USERS and not self._answered and not self.failure:
            self.fail(self._refusals_error())
        held, self._held = self._held, []
        self.arrived += len(held)
        return iter(held)

    def fail(self, error: Exception) -> None:
        """Keeps the first error and wakes everyone who waits."""
        self.failure = self.failure or error
        self.stopped.set()

    async def pause(self, seconds: float) -> None:
        """Waits, but not beyond a failure elsewhere."""
        if seconds > 0 and not self.failure:
            with suppress(TimeoutError):
                await asyncio.wait_for(self.stopped.wait(), seconds)
        if self.failure:
            raise self.failure

    async def turn(self) -> None:
        """Waits while the server wants to be left alone."""
        while (wait := self.not_before - time.monotonic()) > 0:
            await self.pause(wait)
        await self.pause(0)

    def _is_judged(self) -> bool:
        return len(self._answered) + len(self.refused) >= JUDGED_USERS

    def _release(self) -> None:
        for completion in self.finish():
            self.arrivals.put_nowait(completion)

    def _refusals_error(self) -> TeacherError:
        self._held.clear()
        reason, count = Counter(self.refused.values()).most_common(1)[0]
        return TeacherError(
            f"{self.outage.server}: refuses the prompts of {len(self.refused)} of the first "
            f"{len(self._answered | self.refused.keys())} users ({count} times {reason}): "
            + advice.for_refused_prompts(reason)
        )
