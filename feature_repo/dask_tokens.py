"""Makes Feast's file store fast on lists: Dask, under it, need not hash the contents of every frame.

Dask names each step of a computation by a hash of its data, only so that equal steps run once. Feast 0.67
keeps about ten frames a read, and for columns of lists Dask hashes by pickling every row again and again, which
is nearly all the time of a read. A name that is merely unique gives the same results without that work.
"""

from __future__ import annotations

import uuid
from functools import cache

import pandas as pd
from dask.base import normalize_token, tokenize


@cache
def name_frames_without_hashing() -> None:
    """From now on, in this process, Dask names every pandas frame by a random number."""
    # Dask registers its own tokenizers for pandas when it meets the first frame; ours must come after them.
    tokenize(pd.DataFrame())
    normalize_token.register(pd.DataFrame, _unique_name)  # type: ignore[no-untyped-call]


def _unique_name(frame: pd.DataFrame) -> str:
    return uuid.uuid4().hex
