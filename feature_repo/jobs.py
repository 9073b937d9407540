"""What the jobs of a feature repository on a cluster share: opening it, and ending with one line that says why."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from feast import FeatureStore

from conf_profile.errors import ConfProfileError, DataError
from feature_repo import store as feature_store
from feature_repo.s3_files import read_s3_by_pyarrow

REPOSITORY = Path("/var/lib/conf-profile/features")
"""Where a pod has its feature_store.yaml."""


def run_job(name: str, job: Callable[[], None]) -> None:
    """Runs a job; what a user can put right ends it with status 2 and one line."""
    try:
        job()
    except ConfProfileError as error:
        print(f"{name}: {error}", file=sys.stderr)
        sys.exit(2)


@contextmanager
def repository(folder: Path) -> Iterator[FeatureStore]:
    """The feature store of a folder, tables on S3 readable. What S3 or the online store raise becomes a DataError."""
    from botocore.exceptions import BotoCoreError, ClientError
    from feast.errors import FeastError
    from redis.exceptions import RedisError

    # Feast writes its registry by boto3, which would send a checksum behind the body: many servers do not know that.
    os.environ.setdefault("AWS_REQUEST_CHECKSUM_CALCULATION", "when_required")
    read_s3_by_pyarrow()
    try:
        yield feature_store.connect(folder)
    except (RedisError, BotoCoreError, ClientError, FeastError, OSError) as error:
        what = " ".join(str(error).split())
        raise DataError(
            f"{folder}: registry, tables or online store cannot be used: {type(error).__name__}: {what}; "
            "see feature_store.yaml there, the tables' paths and AWS_ENDPOINT_URL"
        ) from error
