"""What the S3 tests share: processes of their own, waiting on facts, small models."""

import subprocess
import sys
import time
from pathlib import Path

from conf_profile import object_store
from conf_profile.config import StorageConfig
from conf_profile.local_s3 import S3Access

PATIENCE_SECONDS = 60


def wait_until(fact, what: str):
    """Polls until `fact` gives something true, and returns it."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        found = fact()
        if found:
            return found
    raise AssertionError(f"waited {PATIENCE_SECONDS} s in vain for: {what}")


def python(code: str, *arguments: str, environment: dict[str, str] | None = None) -> subprocess.Popen:
    """A Python process with pipes on its input and output."""
    return subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment,
    )  # fmt: skip


def client_of(access: S3Access):
    return object_store.s3_client(access.endpoint, access.region, access.access_key, access.secret_key)


def storage(access: S3Access, model: str, bucket: str = "conf-profile") -> StorageConfig:
    return StorageConfig(endpoint=access.endpoint, bucket=bucket, model=model)


def model_folder(folder: Path, weights: bytes = b"weights") -> Path:
    """A folder in the shape of a model's, with these weights."""
    (folder / "tokenizer").mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(weights)
    (folder / "config.json").write_text("{}")
    (folder / "tokenizer" / "tokenizer.json").write_text("{}")
    return folder


def parts_under_way(client, bucket: str, prefix: str) -> int:
    """Parts that the server holds of unfinished uploads."""
    if bucket not in {entry["Name"] for entry in client.list_buckets()["Buckets"]}:
        return 0
    uploads = client.list_multipart_uploads(Bucket=bucket, Prefix=prefix).get("Uploads", ())
    return sum(
        len(client.list_parts(Bucket=bucket, Key=one["Key"], UploadId=one["UploadId"]).get("Parts", ()))
        for one in uploads
    )
