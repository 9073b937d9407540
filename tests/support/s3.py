"""What the S3 tests share: processes of their own, waiting on facts, small models."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from conf_profile.config import StorageConfig
from conf_profile.storage import object_store
from conf_profile.storage.local_s3 import S3Access, local_s3

PATIENCE_SECONDS = 60
OPEN_PREFIXES = ("answers", "checkpoints", "configurations", "data", "models", "pipelines")
"""All that the project keeps in its bucket, but for the labels (`truth`)."""


@dataclass(frozen=True)
class GuardedS3:
    """One server, two sets of keys: the owner's may do all, those of `steps` are refused outside certain prefixes."""

    owner: S3Access
    steps: S3Access


@contextmanager
def guarded_s3(
    folder: Path, bucket: str = "conf-profile", prefixes: Sequence[str] = OPEN_PREFIXES
) -> Iterator[GuardedS3]:
    """A server with this bucket, whose `steps` may list all of it, and read and write below these prefixes alone."""
    # SeaweedFS has no "deny" here: what is not allowed is refused. Without List:BUCKET no list without prefix passes.
    allowed = [f"{right}:{bucket}/{prefix}/*" for prefix in prefixes for right in ("Read", "Write")]
    owner = _identity("owner", ["Admin", "Read", "Write", "List", "Tagging"])
    folder.mkdir(parents=True, exist_ok=True)
    # local_s3 uses the first one.
    identities = [owner, _identity("steps", [f"List:{bucket}", *allowed])]
    (folder / "s3.json").write_text(json.dumps({"identities": identities}))
    with local_s3(folder) as access:
        client_of(access).create_bucket(Bucket=bucket)
        yield GuardedS3(access, replace(access, access_key="steps-key", secret_key="steps-secret"))


def _identity(name: str, actions: Sequence[str]) -> dict[str, object]:
    pair = {"accessKey": f"{name}-key", "secretKey": f"{name}-secret"}
    return {"name": name, "credentials": [pair], "actions": list(actions)}


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
