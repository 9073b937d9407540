"""Which store is meant by configuration and environment, and what an upload asks it for; no request is sent."""

import pytest

from conf_profile.config import StorageConfig, resolve
from conf_profile.errors import ConfigError, RegistryError
from conf_profile.storage import encryption, object_address, object_store
from conf_profile.storage.object_address import ENDPOINT_VARIABLE, ObjectAddress
from pipelines import cluster_data

AMAZON = "https://s3.eu-central-1.amazonaws.com"


@pytest.fixture(autouse=True)
def environment(monkeypatch, tmp_path):
    """Keys that lie about, and nothing that names a store."""
    for name in ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", ENDPOINT_VARIABLE, encryption.VARIABLE,
                 "AWS_REGION", "AWS_DEFAULT_REGION", "AWS_PROFILE"):  # fmt: skip
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    (tmp_path / "config").write_text("[profile work]\nregion = eu-central-1\n")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    return monkeypatch


@pytest.mark.parametrize("variables", [
    {"AWS_REGION": "eu-central-1"},
    {"AWS_DEFAULT_REGION": "eu-central-1"},
    {"AWS_PROFILE": "work"},
    # boto3 reads the first alone, and a cluster's roles set the second beside what the chart says.
    {"AWS_DEFAULT_REGION": "eu-central-1", "AWS_REGION": "us-east-2"},
])  # fmt: skip
def test_amazons_own_store_is_where_the_environment_or_the_profile_says(variables, environment):
    for name, value in variables.items():
        environment.setenv(name, value)
    assert object_store.connect("mine", "aws").endpoint == AMAZON
    environment.setenv(ENDPOINT_VARIABLE, "aws")
    assert object_store.locate("s3://mine/key")[0].endpoint == AMAZON


def test_a_region_that_is_said_wins_and_the_first_one_is_the_last_resort(environment):
    environment.setenv("AWS_REGION", "us-east-2")
    assert object_store.connect("mine", "aws", "eu-central-1").endpoint == AMAZON
    environment.delenv("AWS_REGION")
    assert object_store.connect("mine", "aws").client.meta.region_name == object_address.REGION
    assert object_store.connect("mine", "http://127.0.0.1:9").client.meta.region_name == object_address.REGION


def test_keys_alone_name_no_store():
    with pytest.raises(RegistryError, match=r"no S3 endpoint: .*storage\.endpoint to aws"):
        object_store.connect("mine")


def test_an_address_of_aws_goes_before_the_word(environment):
    environment.setenv(ENDPOINT_VARIABLE, "aws")
    environment.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    assert object_store.connect("mine").endpoint == "http://127.0.0.1:9"


@pytest.mark.parametrize("variables", [{}, {"AWS_ENDPOINT_URL_S3": "https://store.example"}])
def test_amazons_names_of_buckets_and_anothers_paths(variables, environment):
    for name, value in variables.items():
        environment.setenv(name, value)
    client = object_store.connect("mine", "aws", "eu-central-1").client
    url = client.generate_presigned_url("get_object", Params={"Bucket": "mine", "Key": "k"}).partition("?")[0]
    assert url == ("https://store.example/mine/k" if variables else "https://mine.s3.amazonaws.com/k")


def test_at_amazon_nobody_is_given_the_default_bucket():
    with pytest.raises(RegistryError, match=r"'conf-profile' at Amazon's S3: .*name your own"):
        object_store.connect("conf-profile", "aws")


@pytest.mark.parametrize(("text", "parameters"), [
    ("sse-s3", {"ServerSideEncryption": "AES256"}),
    ("sse-kms", {"ServerSideEncryption": "aws:kms"}),
    ("sse-kms:arn:aws:kms:eu:1:key/a", {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": "arn:aws:kms:eu:1:key/a"}),
])  # fmt: skip
def test_an_encryption_is_two_headers_at_most(text, parameters):
    assert encryption.parameters(text) == parameters
    assert StorageConfig(encryption=text).encryption == text


def test_another_encryption_is_refused_wherever_it_is_said(environment):
    with pytest.raises(ConfigError, match=r"storage\.encryption"):
        resolve(overrides=["storage.encryption=aes"])
    environment.setenv(encryption.VARIABLE, "aes")
    with pytest.raises(RegistryError, match="is 'aes'; write sse-s3"):
        object_store.connect("mine", "http://127.0.0.1:9")


def test_the_steps_are_told_of_the_encryption_with_the_places_that_they_write_to():
    storage = StorageConfig(endpoint="aws", bucket="mine", encryption="sse-kms:arn:aws:kms:eu:1:key/a")
    told = object_address.parse(cluster_data.address_of(storage, "answers/m"))
    assert told == ObjectAddress("mine", "answers/m", "aws", "", "sse-kms:arn:aws:kms:eu:1:key/a")
    assert object_address.parse(cluster_data.complete_address("s3://theirs/tables", storage)).encryption == ""
