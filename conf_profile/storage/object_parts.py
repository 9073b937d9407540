"""A large object in parts: several under way at once, given out in order, so that it can be hashed as it comes."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

T = TypeVar("T")


def fetch_in_order(fetch: Callable[[int], T], starts: Iterator[int], parallel: int) -> Iterator[T]:
    """What `fetch` gives for each start, in order.

    So many are under way at once; none begins before the one that many places earlier was taken, so memory is bounded.
    """
    pool = ThreadPoolExecutor(parallel)
    try:
        under_way = deque(pool.submit(fetch, start) for start in islice(starts, parallel))
        while under_way:
            yield under_way.popleft().result()
            under_way.extend(pool.submit(fetch, start) for start in islice(starts, 1))
    finally:
        # After a failure the parts that have not begun are not worth waiting for.
        pool.shutdown(cancel_futures=True)
