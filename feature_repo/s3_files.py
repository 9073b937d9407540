"""s3:// paths for Feast's file store, by pyarrow.

Feast reads tables with Dask, and Dask with fsspec, whose own package for S3 asks for an older boto3 than the registry
has. pyarrow, which is here anyway, reads S3 as well. Address, region, keys and certificates come from AWS's usual
environment variables.
"""

from __future__ import annotations

import os
from functools import cache
from typing import Any

import fsspec
from fsspec.implementations.arrow import ArrowFSWrapper

from conf_profile.storage import object_address


class PyarrowS3(ArrowFSWrapper):  # type: ignore[misc]  # fsspec is not typed
    """pyarrow's S3 file system with fsspec's interface."""

    protocol = "s3"

    def __init__(self, **kwargs: Any) -> None:
        from pyarrow.fs import S3FileSystem

        endpoint = object_address.environment_endpoint()
        is_amazon = endpoint in ("", object_address.AWS)
        given = {
            "endpoint_override": "" if is_amazon else endpoint,
            "tls_ca_file_path": os.environ.get("AWS_CA_BUNDLE"),
            # Of another store's region pyarrow would ask the machine's cloud, which may not answer.
            "region": object_address.find_region(None) or ("" if is_amazon else object_address.REGION),
        }
        super().__init__(S3FileSystem(**{name: value for name, value in given.items() if value}), **kwargs)


@cache
def read_s3_by_pyarrow() -> None:
    """From now on, in this process, fsspec opens s3:// paths this way."""
    fsspec.register_implementation("s3", PyarrowS3, clobber=True)
