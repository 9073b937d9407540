"""Which users train, validate and test: decided for each user alone, by a hash of the user id.

The hash makes the split stable: across runs, machines and growing data sets, so that a champion and its
challenger are compared on the same people and nobody moves from training to test. Nothing here reads features
or labels.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from conf_profile.config import FeaturesConfig

TRAIN = "train"
SECOND_STAGE = "second_stage"
VALIDATION = "validation"
TEST = "test"
SPLITS = (TRAIN, SECOND_STAGE, VALIDATION, TEST)

SALT = "conf-profile"
"""Part of every hash; another salt gives another, independent split."""

Strings = npt.NDArray[np.str_]


def split_of(user_ids: Iterable[str], config: FeaturesConfig, salt: str = SALT) -> Strings:
    """[users]: one of `SPLITS` for each user id, in the given order.

    Two independent uniform numbers come from one hash. The first separates test, validation and training
    users; the second takes `second_stage_share` of the training users aside, so that changing this share
    moves no user into or out of the test.
    """
    uniform = _uniform(user_ids, salt)
    first, second = uniform[:, 0], uniform[:, 1]
    conditions = [
        first < config.test_share,
        first < config.test_share + config.validation_share,
        second < config.second_stage_share,
    ]
    return np.select(conditions, [TEST, VALIDATION, SECOND_STAGE], default=TRAIN)


def count(splits: Strings) -> dict[str, int]:
    """Users of each split, absent ones with zero."""
    return {name: int((splits == name).sum()) for name in SPLITS}


def _uniform(user_ids: Iterable[str], salt: str) -> npt.NDArray[np.float64]:
    """[users, 2] in [0, 1): the two halves of a 128-bit hash, read in a fixed byte order."""
    key = hashlib.blake2b(salt.encode(), digest_size=32).digest()
    digests = b"".join(hashlib.blake2b(user_id.encode(), digest_size=16, key=key).digest() for user_id in user_ids)
    words = np.frombuffer(digests, dtype="<u8").reshape(-1, 2)
    # The upper 53 bits: a float64 holds them exactly, so the result is never rounded up to 1.
    return (words >> np.uint64(11)).astype(np.float64) * 2.0**-53
