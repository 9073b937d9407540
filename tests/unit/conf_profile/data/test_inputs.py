"""What a step reads of a data set by its address: files of this machine. Those in S3: test_guarded_labels.py."""

import pytest

from conf_profile.data import inputs
from conf_profile.errors import DataError, RegistryError


def test_a_file_of_this_machine_is_read_where_it_lies(tmp_path):
    path = tmp_path / "behaviour.parquet"
    path.write_bytes(b"anything")
    assert inputs.fetch(str(path), "behaviour.parquet", tmp_path / "copy") == path
    assert not (tmp_path / "copy").exists()


def test_what_may_be_absent_is_an_empty_address(tmp_path):
    assert inputs.fetch_optional("", "ceiling.parquet", tmp_path) is None
    assert inputs.fetch_truth("", "ceiling.parquet", tmp_path) is None
    assert inputs.fetch_lexicon("", tmp_path / "task.yaml", tmp_path) is None


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("", "behaviour.parquet: no address was given; name the file"),
        ("/nowhere/behaviour.parquet", "/nowhere/behaviour.parquet: there is no such file"),
    ],
)
def test_what_is_missing_is_named(tmp_path, address, message):
    with pytest.raises(DataError, match=message):
        inputs.fetch(address, "behaviour.parquet", tmp_path)


def test_an_address_without_a_bucket_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    with pytest.raises(RegistryError, match="expected s3://BUCKET/PREFIX"):
        inputs.fetch("s3:///behaviour.parquet", "behaviour.parquet", tmp_path)
