"""How long users' rows stay: the period that keeps the cache clear of expiry, and which lifecycle rules follow."""

import random
from datetime import UTC, datetime, timedelta

import pytest

from conf_profile.erasure import retention
from conf_profile.erasure.retention import Retention, period
from conf_profile.errors import ConfigError

DAY = datetime(2025, 12, 23, tzinfo=UTC)
THEIRS = {"ID": "logs", "Filter": {"Prefix": "logs/"}, "Status": "Enabled", "Expiration": {"Days": 7}}


@pytest.mark.parametrize("days", [1, 2, 3, 7, 30, 365])
def test_what_a_cache_hit_can_reach_has_half_its_time_left(days):
    """An artefact is written after its run began; another run finds it only under the same period."""
    moments = random.Random(days)
    hits = 0
    for _ in range(2000):
        first = DAY + timedelta(days=moments.uniform(0, 2 * days))
        second = first + timedelta(days=moments.uniform(0, days))
        written = first + (second - first) * moments.random()
        if period(days, first) == period(days, second):
            hits += 1
            expires = written + timedelta(days=days)
            assert expires - second > timedelta(days=days) / 2
    assert hits > 100, "a cache that is never hit would hold the law, too"


def test_a_period_is_half_the_retention_and_changes_with_it():
    assert period(30, DAY) == period(30, DAY + timedelta(days=14)) != period(30, DAY + timedelta(days=15))
    assert period(1, DAY) == period(1, DAY + timedelta(hours=11)) != period(1, DAY + timedelta(hours=12))
    assert period(30, DAY) != period(20, DAY)
    assert (period(0, DAY), period(30, DAY)) == ("", "retained-30d-1363")


@pytest.mark.parametrize("days", [-1, -30])
def test_a_retention_is_no_negative_number(days):
    with pytest.raises(ConfigError, match="0 to keep everything"):
        Retention(days)


@pytest.mark.parametrize(
    ("prefix", "name"), [("data", "data/"), ("/v2/artifacts/", "v2/artifacts/"), ("models-of-others/", None)]
)
def test_a_prefix_is_a_folder(prefix, name):
    assert retention.folder(prefix) == (name or prefix)


@pytest.mark.parametrize("prefix", ["", "/", "models", "models/", "/models/conf-profile/versions", "configurations"])
def test_models_never_expire(prefix):
    with pytest.raises(ConfigError, match="retention: "):
        retention.folder(prefix)


def test_a_rule_for_labels_reaches_uploads_and_no_table_of_the_users_own():
    upload = f"truth/{period(30, DAY)}-{'0123abcd' * 4}/labels.parquet"
    reached = [rule["Filter"]["Prefix"] for rule in retention.rules(retention.RULED_PREFIXES, Retention(30))]
    assert upload.startswith(tuple(reached))
    for own in ("truth/labels.parquet", "truth/mine/labels.parquet", "data/mine/behaviour.parquet"):
        assert not own.startswith(tuple(reached)) and retention.is_own_table(own)
    assert not retention.is_own_table(upload)
    assert not retention.is_own_table(f"data/{'0123abcd' * 4}/behaviour.parquet")


def test_rules_come_beside_those_of_others_and_go_without_them():
    merged = retention.merge([THEIRS], ["data/", "v2/artifacts"], Retention(30))
    assert [rule["ID"] for rule in merged] == [
        "logs",
        "conf-profile-retention-data",
        "conf-profile-retention-v2-artifacts",
    ]
    assert merged[0] == THEIRS
    assert merged[2] == {
        "ID": "conf-profile-retention-v2-artifacts",
        "Filter": {"Prefix": "v2/artifacts/"},
        "Status": "Enabled",
        "Expiration": {"Days": 30},
        "NoncurrentVersionExpiration": {"NoncurrentDays": 1},
        "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": 7},
    }
    assert retention.merge(merged, ["data/", "v2/artifacts"], Retention(30)) == merged
    shorter = retention.merge(merged, ["data/"], Retention(2))
    assert [rule["Expiration"]["Days"] for rule in shorter] == [7, 30, 2]
    assert shorter[2]["AbortIncompleteMultipartUpload"] == {"DaysAfterInitiation": 2}
    assert retention.merge(merged, ["data/", "v2/artifacts"], Retention(0)) == [THEIRS]


def test_a_rule_of_the_older_form_keeps_its_meaning():
    """S3 refuses a configuration in which some rules have a filter and others a bare prefix."""
    old = {"ID": "old", "Prefix": "logs/", "Status": "Enabled", "Expiration": {"Days": 7}}
    assert retention.merge([old], ["data/"], Retention(0)) == [THEIRS | {"ID": "old"}]
