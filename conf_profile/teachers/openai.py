"""A teacher behind any OpenAI-compatible `/chat/completions` endpoint: DeepSeek, OpenAI, Azure, a vLLM or KServe URL.

Several samples of a user are one request (`n`) where the endpoint answers with as many; else a request is one sample.
`teacher.concurrency` counts answers, so that neither way has more of them under way.

What is retried: refused and cut connections, timeouts, 408, 409, 425, 429, 5xx and bodies that are not a chat
completion. What is not: every other 4xx, because asking again would not help, and a quota that is used up. A refused
field of the request is learned (`endpoint.request_form`); a refused prompt is an answer without a text, with its
reason. A pause that the endpoint asks for holds back all requests, not only the one that was told; a 429 does not use
up a request's attempts while other requests are being answered, nor before THROTTLED_SECONDS have passed.

Where the environment gives a budget of seconds (`transient`), a request that has used up its attempts goes on for as
long as that lasts: connections, timeouts, statuses, not bodies that are no chat completion. All requests share the
count of how long the server has been away, and its lines in the log.

The budget (`teacher.max_requests`) counts HTTP requests that the server may have charged for: retries count,
a refused connection, a refused field and a 429 do not. What `spending` says of earlier tries counts too; kept answers
cost nothing.

After a failure nothing new is asked, but requests that are under way may finish: they are paid for.

No library keeps such a budget. The openai client retries each request alone; async-batch-llm 0.28 holds back all of
them and resumes, but its budget counts the tokens of one run, from what the answers report once they are paid for.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
import math
import random
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace

from conf_profile.config import TeacherConfig
from conf_profile.dialogue.thinking import strip_thinking
from conf_profile.errors import TeacherError
from conf_profile.teachers.endpoint import advice
from conf_profile.teachers.endpoint.chat_answer import ChatAnswer, NotACompletionError, read_answer
from conf_profile.teachers.endpoint.http import BrokenAnswerError, EndpointHTTP, NotConnectedError, Response
from conf_profile.teachers.endpoint.model_names import same_model
from conf_profile.teachers.endpoint.rate_limits import seconds_to_wait
from conf_profile.teachers.endpoint.refusals import Refusal, read_refusal
from conf_profile.teachers.endpoint.request_form import ManySamples, RequestForm
from conf_profile.teachers.endpoint.run import Job, Run
from conf_profile.teachers.protocol import Completion, Request
from conf_profile.teachers.spending import Spending
from conf_profile.transient import Outage, retry_seconds

UNREACHED_ATTEMPTS = 3
"""Tries while the endpoint has never given an answer, at connecting or at reading a body that is no chat completion:
a wrong address should be known within seconds."""
THROTTLED_SECONDS = 90.0
"""A request that is refused for coming too fast is not given up before: limits are mostly those of a minute."""
LONGEST_RETRY_AFTER = 600.0
"""Seconds; a server that wants a longer pause ends the run, which can be started again later."""
COPIES = 10
"""Requests for several samples, each of which brought one text only, from which on that is no chance."""
LONGEST_BACKOFF = 30.0
"""Seconds."""
_log = logging.getLogger(__name__)


class _RetryableError(Exception):
    """An attempt that failed in a way that another one may not.

    `reached`: the server may have seen it; `throttled`: it was refused for coming too fast; `wait`: seconds that it
    asks for; `outage`: what it is called in the log if the server, or the way to it, is away; empty for a body that is
    no chat completion.
    """

    def __init__(
        self, reason: str, reached: bool = True, throttled: bool = False, wait: float = 0.0, outage: str = ""
    ) -> None:
        super().__init__(reason)
        self.outage = outage
        self.reached = reached
        self.throttled = throttled
        self.wait = wait


class _OtherFormError(Exception):
    """The request is to be sent again in the form that was learned meanwhile."""


class _RefusedPromptError(Exception):
    """The endpoint does not take this user's prompt; the text is the reason."""


class OpenAITeacher:
    """Asks `teacher.model` at `teacher.base_url`, with `teacher.concurrency` answers under way at a time."""

    def __init__(self, config: TeacherConfig, spending: Spending | None = None) -> None:
        """Reads the key from the environment; no key means none is sent (a server of your own).

        `spending` is what counts against the budget, from now on or from earlier tries on.
        """
        self._config = config
        self._spending = spending or Spending()
        self._url = advice.endpoint_url(config.base_url or "")
        # A query may hold a key; it is sent and never shown.
        self._name = str(self._url.with_query(None))
        self._key = advice.read_key(config.api_key_env)
        self._retry_seconds = retry_seconds()
        most = min(config.samples_per_request or config.samples, config.concurrency)
        self._most_samples = most
        self._copies: int | None = 0
        self._form = RequestForm(
            str(config.model), config.temperature, config.max_tokens, config.extra_body,
            many=ManySamples.UNTRIED if most > 1 else ManySamples.REFUSED,
        )  # fmt: skip

    @property
    def fingerprint(self) -> str:
        """Endpoint, model, temperature, length and further fields; never the key."""
        config = self._config
        parts = {"url": self._name, "model": config.model, "temperature": config.temperature}
        further = {"extra_body": config.extra_body} if config.extra_body else {}
        return json.dumps({"kind": "openai", **parts, "max_tokens": config.max_tokens, **further})

    async def complete(self, requests: Sequence[Request]) -> AsyncIterator[Completion]:
        """Yields each completion as it arrives; see the module for retries, budget and errors."""
        total = sum(len(request.samples) for request in requests)
        workers = min(self._config.concurrency, total)
        tokens = self._config.max_tokens * self._most_samples
        async with EndpointHTTP(self._url, self._key, workers, self._config.timeout_seconds, tokens) as http:
            outage = Outage(f"the teacher at {self._name}", self._retry_seconds)
            run = Run(http, outage, requests, total, self._config.concurrency)
            tasks = [asyncio.create_task(self._work(run)) for _ in range(workers)]
            try:
                while workers:
                    completion = await run.arrivals.get()
                    if completion is None:
                        workers -= 1
                    else:
                        yield completion
                for completion in run.finish():
                    yield completion
            finally:
                await _cancel(tasks)
        if run.failure:
            raise run.failure

    async def aclose(self) -> None:
        """Nothing to do: connections live as long as one call of `complete`."""

    async def _work(self, run: Run) -> None:
        try:
            while not run.failure and (job := run.take(self._samples_at_once())):
                async with run.slots.take(len(job.samples)):
                    await self._ask(run, job)
        except Exception as error:
            run.fail(error)
        finally:
            run.arrivals.put_nowait(None)

    def _samples_at_once(self) -> int:
        return 1 if self._form.many is ManySamples.REFUSED else self._most_samples

    async def _ask(self, run: Run, job: Job) -> None:
        """One request's samples: those that arrive are yielded, those that do not are put back."""
        if job.user_id in run.refused:
            return run.refuse(job, run.refused[job.user_id])
        try:
            answer = await self._answer(run, job)
        except _RefusedPromptError as refused:
            run.outage.end()
            return run.refuse(job, str(refused))
        run.outage.end()
        self._watch_for_copies(answer)
        for index, (sample, choice) in enumerate(zip(job.samples, answer.choices, strict=False)):
            text, usage = strip_thinking(choice.text), answer.usage_of(index)
            run.arrive(Completion(job.user_id, sample, text, choice.reason, usage))
        if rest := job.samples[len(answer.choices) :]:
            run.put_back(replace(job, samples=rest))
        return self._require_model(run, answer.model)

    def _watch_for_copies(self, answer: ChatAnswer) -> None:
        """An endpoint that answers `n` with copies of one text makes every vote unanimous."""
        if len(answer.choices) == 1 or not self._config.temperature or self._copies is None:
            return
        self._copies = self._copies + 1 if len({choice.text for choice in answer.choices}) == 1 else None
        if self._copies == COPIES:
            self._copies = None
            _log.warning(
                "%s: the samples of each of the first %d requests are the same text; see with "
                "teacher.samples_per_request: 1 whether the endpoint copies one answer",
                self._name, COPIES,
            )  # fmt: skip

    def _require_model(self, run: Run, model: str) -> None:
        """The answers that arrived are kept: what they cost is not paid again if the name is right after all."""
        if not model or same_model(str(self._config.model), model) or {"*", model} & set(self._config.answers_as):
            return
        run.fail(
            TeacherError(
                f"{self._name}: teacher.model is {self._config.model!r}, but the answers say that {model!r} gave them. "
                f"If that is the model that you want, run again with --set 'teacher.answers_as=[{model}]' (what had "
                "arrived is kept); else correct teacher.model or teacher.base_url"
            )
        )

    async def _answer(self, run: Run, job: Job) -> ChatAnswer:
        """One request's samples, tried until they arrive, or the attempts and the time for retries are spent."""
        attempts, arrived, failed = 0, run.arrived, math.inf
        for tries in itertools.count(1):
            await run.turn()
            began = run.outage.now()
            try:
                return await self._attempt(run, job)
            except _OtherFormError:
                continue
            except _RetryableError as error:
                # Being throttled while others are served is no sign of trouble.
                served = error.throttled and run.arrived > arrived
                attempts, arrived = 0 if served else attempts + 1, run.arrived
                failed, pause = min(failed, run.outage.now()), None
                if error.outage and self._retry_seconds and not served:
                    pause = run.outage.next_pause("get an answer", error.outage, began, failed, tries)
                hopeless = not error.throttled or run.outage.now() - failed >= THROTTLED_SECONDS
                if pause is None and hopeless and attempts >= self._allowed_attempts(run, error):
                    raise self._exhausted_error(run, error, attempts, failed) from error
                await run.pause(error.wait + (_backoff(tries) if pause is None else pause))
        raise AssertionError("unreachable")

    def _allowed_attempts(self, run: Run, error: _RetryableError) -> int:
        allowed = self._config.max_attempts
        wrong_address = (not run.arrived and not error.outage) or not (run.reached or error.reached)
        return min(allowed, UNREACHED_ATTEMPTS) if wrong_address else allowed

    def _exhausted_error(self, run: Run, error: _RetryableError, attempts: int, failed: float) -> TeacherError:
        problem = "does not answer properly" if error.reached else "cannot be reached"
        given_up = TeacherError(
            f"{self._name}: the teacher {problem}: {error} (attempt {attempts}). "
            f"{advice.for_failed_attempts(self._url, str(error), error.throttled)}; what had arrived is kept, so run "
            "again"
        )
        return run.outage.add_duration(given_up, failed) if error.outage and self._retry_seconds else given_up

    async def _attempt(self, run: Run, job: Job) -> ChatAnswer:
        form = self._form
        samples = len(job.samples) if form.many is not ManySamples.REFUSED else 1
        self._spend()
        try:
            response = await run.http.post(form.encode(job.messages, samples))
        except NotConnectedError as error:
            self._spending.add(-1)
            raise _RetryableError(str(error), reached=False, outage=error.outage) from error
        except BrokenAnswerError as error:
            self._refuse_many(form, samples)
            raise _RetryableError(str(error), outage=error.outage) from error
        run.reached = True
        answer = self._read(run, response, form, samples)
        if samples > 1 and self._form.many is ManySamples.UNTRIED:
            self._learn_many(ManySamples.WORKS if len(answer.choices) >= samples else ManySamples.REFUSED)
        return answer

    def _spend(self) -> None:
        budget = self._config.max_requests
        if budget is not None and self._spending.requests >= budget:
            raise TeacherError(
                f"{self._name}: the budget of {budget} requests (teacher.max_requests) is spent; "
                "what had arrived is kept, so raise it and run again for the rest"
            )
        self._spending.add(1)

    def _read(self, run: Run, response: Response, form: RequestForm, samples: int) -> ChatAnswer:
        try:
            answer = read_answer(response) if response.status == 200 else read_refusal(response.status, response.body)
        except NotACompletionError as error:
            self._refuse_many(form, samples)
            raise _RetryableError(str(error)) from error
        if isinstance(answer, Refusal):
            raise self._refusal_error(run, response, answer, form, samples)
        return answer

    def _refusal_error(
        self, run: Run, response: Response, refusal: Refusal, form: RequestForm, samples: int
    ) -> Exception:
        if refusal.is_quota:
            return TeacherError(
                f"{self._name}: the teacher's quota is used up: it answers {refusal.status or 'an error'} "
                f"({self._excerpt(refusal)}): {advice.QUOTA}"
            )
        if reason := refusal.prompt_reason:
            return _RefusedPromptError(reason)
        if refusal.may_pass:
            return self._throttled_error(run, response, refusal, form, samples)
        if self._learn(form, refusal) or self._refuse_many(form, samples, refusal.is_about_the_form):
            self._spending.add(-1)
            return _OtherFormError()
        return TeacherError(
            f"{self._name}: the teacher answers {refusal.status} ({self._excerpt(refusal)}): "
            + advice.for_refusal(refusal, self._url, self._config.api_key_env, response.headers.get("Location", ""))
        )

    def _learn(self, sent: RequestForm, refusal: Refusal) -> bool:
        """Whether there is another form to send it in; learned now, or by another request meanwhile."""
        new = sent.learn(refusal)
        if new is None:
            return False
        if sent == self._form:
            _log.warning("%s: the teacher %s", self._name, sent.describe_change(new))
            self._form = new
        return True

    def _refuse_many(self, sent: RequestForm, samples: int, at_all: bool = False) -> bool:
        """Gives up several samples in a request, whatever the failure, unless the endpoint has answered with some.

        `at_all`: even then, since it may know a limit. True where the request is to be sent again with one.
        """
        if samples == 1 or (not at_all and ManySamples.WORKS in (sent.many, self._form.many)):
            return False
        self._learn_many(ManySamples.REFUSED)
        return True

    def _learn_many(self, many: ManySamples) -> None:
        if self._form.many is not ManySamples.REFUSED and self._form.many is not many:
            new = replace(self._form, many=many)
            _log.info("%s: the teacher %s", self._name, self._form.describe_change(new))
            self._form = new

    def _throttled_error(
        self, run: Run, response: Response, refusal: Refusal, form: RequestForm, samples: int
    ) -> Exception:
        throttled = refusal.status == 429
        if throttled:
            self._spending.add(-1)
        else:
            self._refuse_many(form, samples)
        told = f"{refusal.status} {self._excerpt(refusal)}" if refusal.status else f"an error: {self._excerpt(refusal)}"
        wait = seconds_to_wait(response.headers, time.time(), throttled)
        if wait > max(LONGEST_RETRY_AFTER, self._retry_seconds):
            return TeacherError(
                f"{self._name}: the teacher answers {told} and asks to wait {wait:.0f} s; what had arrived "
                "is kept, so run again then"
            )
        run.not_before = max(run.not_before, time.monotonic() + wait)
        outage = f"status {refusal.status}" if refusal.status else ""
        return _RetryableError(told, throttled=throttled, wait=wait, outage=outage)

    def _excerpt(self, refusal: Refusal) -> str:
        words = " ".join(part for part in (refusal.code, refusal.message) if part).split()
        text = " ".join(words)
        return (text.replace(self._key, "***") if self._key else text)[:300] or "no text"


def _backoff(tries: int) -> float:
    return random.uniform(0.0, min(LONGEST_BACKOFF, 0.25 * 2 ** min(tries, 16)))


async def _cancel(tasks: Sequence[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
