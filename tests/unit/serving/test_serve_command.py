"""What `conf-profile serve` takes from a champion URI and from its options, and which of them contradict each other."""

import pytest
from click.testing import CliRunner

from conf_profile.cli.main import cli
from conf_profile.cli.models import Storage
from conf_profile.errors import RegistryError
from serving.commands.serve import resolve_target

URI = "champion://shop/models/people"


def storage(endpoint=None, bucket=None, model=None, run=None):
    return Storage(endpoint, bucket, model, run)


@pytest.mark.parametrize(
    ("uri", "given", "wanted"),
    [
        (None, storage("http://s3", "b", "m"), (storage("http://s3", "b", "m"), None)),
        (URI, storage("http://s3", run="r"), (storage("http://s3", "shop", "people", "r"), None)),
        (f"{URI}@v7", storage(), (storage(None, "shop", "people"), "v7")),
        (f"{URI}@v7", storage(bucket="shop", model="people"), (storage(None, "shop", "people"), "v7")),
    ],
)
def test_a_uri_names_bucket_model_and_version(uri, given, wanted):
    assert resolve_target(uri, given, None) == wanted


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((URI, "--bucket=b"), f"--bucket b contradicts {URI}, which names shop: leave the option out"),
        ((f"{URI}@v7", "--model=m"), f"--model m contradicts {URI}@v7, which names people: leave the option out"),
        ((f"{URI}@v7", "--poll=1"), f"--poll looks for another champion, but {URI}@v7 names one version"),
    ],
)
def test_an_option_that_contradicts_the_uri_is_refused(arguments, message):
    result = CliRunner().invoke(cli, ["serve", *arguments])
    assert result.exit_code == 2
    assert message in " ".join(result.output.split())


@pytest.mark.parametrize("uri", ["s3://shop/models/people", "champion://shop/people", f"{URI}@", "v7"])
def test_what_is_no_model_uri_is_refused(uri):
    result = CliRunner().invoke(cli, ["serve", uri])
    assert isinstance(result.exception, RegistryError)
    assert "expected champion://BUCKET/models/NAME" in str(result.exception)
