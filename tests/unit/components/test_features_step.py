"""The moment that a run without `as_of` goes by, which is what a schedule does."""

from datetime import UTC, datetime

import pytest

from components.features import task
from components.features.step import find_newest_time
from conf_profile import tables
from conf_profile.errors import ConfigError, DataError


@pytest.fixture
def write(tmp_path):
    """Tables with a row for each of these days of June 2026."""

    def write(behaviour, demographics):
        acted = [
            {"user_id": "u", "event_timestamp": day(d), "watch": [], "search": [], "submit": []} for d in behaviour
        ]
        said = [{"user_id": "u", "event_timestamp": day(d), "consent": True} for d in demographics]
        paths = tmp_path / "behaviour.parquet", tmp_path / "demographics.parquet"
        tables.write(paths[0], tables.from_rows(acted, tables.BEHAVIOUR), tables.BEHAVIOUR)
        tables.write(paths[1], tables.from_rows(said, tables.DEMOGRAPHICS), tables.DEMOGRAPHICS)
        return paths

    return write


def day(number):
    return datetime(2026, 6, number, tzinfo=UTC)


@pytest.mark.parametrize(("behaviour", "demographics"), [((1, 5, 3), (2,)), ((3,), (5, 1)), ((), (5,)), ((5,), ())])
def test_it_is_the_newest_row_of_both_tables(write, behaviour, demographics):
    assert find_newest_time(*write(behaviour, demographics)) == day(5)


def test_without_any_row_there_is_none(write):
    with pytest.raises(DataError, match="nobody can be profiled"):
        find_newest_time(*write((), ()))


def test_a_table_that_cannot_be_read_is_named(tmp_path):
    (tmp_path / "behaviour.parquet").write_bytes(b"not Parquet")
    with pytest.raises(DataError, match=r"behaviour\.parquet: the column 'event_timestamp' cannot be read"):
        find_newest_time(tmp_path / "behaviour.parquet", tmp_path / "demographics.parquet")


def test_a_run_whose_data_the_cache_could_not_tell_apart_is_refused():
    """Started from KFP's own page, on a version that takes steps from the cache: the next run would find this one."""
    with pytest.raises(ConfigError, match=r"data_digest is empty, .* --upload-only"):
        task.run(None, None, "s3://b/behaviour.parquet", "s3://b/demographics.parquet", "s3://b/task.yaml", "", "", "")
