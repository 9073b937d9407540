"""The split of users: stable, independent of the others, and of the shares that were asked for."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from conf_profile.config import FeaturesConfig
from conf_profile.data import splits

IDS = [f"user-{number}" for number in range(20_000)]


def test_the_same_ids_have_the_same_split_on_every_machine() -> None:
    given_ids = ["u1", "u2", "ü", "", "u5", "u6", "u7"]
    assert splits.split_of(given_ids, FeaturesConfig()).tolist() == [
        "second_stage", "second_stage", "test", "test", "train", "second_stage", "train",
    ]  # fmt: skip


@given(st.lists(st.text(max_size=12), unique=True, max_size=30), st.randoms())
def test_a_split_depends_on_nobody_else(user_ids, random) -> None:
    alone = {user_id: splits.split_of([user_id], FeaturesConfig())[0] for user_id in user_ids}
    shuffled = list(user_ids)
    random.shuffle(shuffled)
    assert splits.split_of(shuffled, FeaturesConfig()).tolist() == [alone[user_id] for user_id in shuffled]


def test_the_shares_are_the_configured_ones() -> None:
    config = FeaturesConfig(test_share=0.2, validation_share=0.1, second_stage_share=0.5)
    counts = splits.count(splits.split_of(IDS, config))
    # Three standard errors of a share of 20,000 users are at most 0.0105.
    for name, share in {"test": 0.2, "validation": 0.1, "second_stage": 0.35, "train": 0.35}.items():
        assert abs(counts[name] / len(IDS) - share) < 0.0105, name
    assert sum(counts.values()) == len(IDS)


def test_the_second_stage_share_moves_nobody_into_or_out_of_the_test() -> None:
    none, half = (splits.split_of(IDS, FeaturesConfig(second_stage_share=share)) for share in (0.0, 0.5))
    changed = none != half
    assert splits.count(none)["second_stage"] == 0
    assert set(none[changed]) == {"train"} and set(half[changed]) == {"second_stage"}


def test_a_larger_test_share_keeps_the_former_test_users() -> None:
    small, large = (splits.split_of(IDS, FeaturesConfig(test_share=share)) for share in (0.1, 0.3))
    assert set(large[small == "test"]) == {"test"}


def test_another_salt_is_another_split() -> None:
    first, second = (splits.split_of(IDS, FeaturesConfig(), salt) for salt in ("a", "b"))
    both = np.mean((first == "test") & (second == "test"))
    assert abs(both - 0.25 * 0.25) < 0.01


def test_nobody() -> None:
    empty = splits.split_of([], FeaturesConfig())
    assert splits.count(empty) == {"train": 0, "second_stage": 0, "validation": 0, "test": 0}
