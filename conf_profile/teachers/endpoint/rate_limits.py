"""How long an endpoint that refuses a request for coming too fast wants to be left alone, by its headers.

The most exact one wins: `retry-after-ms`, `Retry-After` (seconds, or an HTTP date), then the moment at which a limit is
full again: `x-ratelimit-reset` and its kin, whose forms differ from server to server: `1s`, `6m0s`, `250ms`, seconds,
seconds or milliseconds since 1970, or an ISO time.
"""

from __future__ import annotations

import email.utils
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from datetime import UTC, datetime

_OVERALL = ("x-ratelimit-reset", "ratelimit-reset", "x-ratelimit-reset-after")
_LIMITS = ("requests", "tokens")
_PREFIXES = ("x-ratelimit", "anthropic-ratelimit")
_DURATION = re.compile(r"(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m(?!s))?(?:(\d+(?:\.\d+)?)s)?(?:(\d+(?:\.\d+)?)ms)?")
_UNITS = (86400.0, 3600.0, 60.0, 1.0, 0.001)
_EPOCH_FROM = 1e9
"""Numbers from here on are moments, not durations: 1e9 seconds are 31 years."""
_MILLISECONDS_FROM = 1e11


def seconds_to_wait(headers: Mapping[str, str], now: float, throttled: bool = True) -> float:
    """Seconds that the headers ask to wait; 0 where they say nothing. `now` is in seconds since 1970.

    Unless the request was `throttled` the limits' own headers say nothing: some servers send them with every answer.
    Names are looked up as they stand in lower case: `headers` should not mind the case.
    """
    milliseconds = _number(headers.get("retry-after-ms"))
    if milliseconds is not None:
        return max(0.0, milliseconds / 1000)
    if headers.get("retry-after"):
        return retry_after_seconds(headers.get("retry-after"), now)
    return reset_seconds(headers, now) if throttled else 0.0


def retry_after_seconds(header: str | None, now: float) -> float:
    """Seconds that a Retry-After header asks for: a number or an HTTP date; 0 where it says nothing."""
    number = _number(header)
    if number is not None:
        return max(0.0, number)
    with suppress(ValueError, TypeError):
        return max(0.0, _timestamp(email.utils.parsedate_to_datetime(header or "")) - now)
    return 0.0


def reset_seconds(headers: Mapping[str, str], now: float) -> float:
    """Seconds until the limit that was hit is full again: the one of which nothing remains, else the first to be."""
    waits = {name: parse_reset(headers[name], now) for name in _OVERALL if headers.get(name)}
    if waits:
        return max(waits.values())
    limits = list(_limits(headers, now))
    used_up = [wait for wait, remaining in limits if remaining == 0]
    return max(used_up) if used_up else min((wait for wait, _ in limits), default=0.0)


def parse_reset(text: str, now: float) -> float:
    """Seconds from `now` that one value of such a header stands for; 0 where it cannot be read."""
    text = text.strip().lower()
    number = _number(text)
    if number is not None:
        return max(0.0, _moment(number) - now if number >= _EPOCH_FROM else number)
    duration = _DURATION.fullmatch(text)
    if duration and text:
        return sum(float(part) * unit for part, unit in zip(duration.groups(), _UNITS, strict=True) if part)
    with suppress(ValueError):
        return max(0.0, _timestamp(datetime.fromisoformat(text.upper())) - now)
    return 0.0


def _limits(headers: Mapping[str, str], now: float) -> Iterator[tuple[float, float | None]]:
    """Seconds until it is full, and what remains, of each limit."""
    for prefix in _PREFIXES:
        for limit in _LIMITS:
            names = (f"{prefix}-reset-{limit}", f"{prefix}-remaining-{limit}")
            if prefix == "anthropic-ratelimit":
                names = (f"{prefix}-{limit}-reset", f"{prefix}-{limit}-remaining")
            if headers.get(names[0]):
                yield parse_reset(headers[names[0]], now), _number(headers.get(names[1]))


def _moment(number: float) -> float:
    return number / 1000 if number >= _MILLISECONDS_FROM else number


def _timestamp(moment: datetime) -> float:
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def _number(text: str | None) -> float | None:
    try:
        number = float(text or "")
    except ValueError:
        return None
    return number if abs(number) < float("inf") else None
