"""The local S3 server: its objects outlive it, and it outlives nobody."""

import json
import os
import signal
import stat
from concurrent.futures import ThreadPoolExecutor

import pytest

from conf_profile.errors import RegistryError
from conf_profile.storage.local_s3 import S3Access, credentials, local_s3, start
from support.s3 import client_of, python, wait_until

OWNER = """
import sys
from pathlib import Path
from conf_profile.storage.local_s3 import start
server = start(Path(sys.argv[1]))
print(server.guard.process.pid, server.pid, server.access.endpoint, flush=True)
sys.stdin.read()
"""

SHARER = """
import sys
from pathlib import Path
from conf_profile.storage.local_s3 import local_s3
with local_s3(Path(sys.argv[1])) as access:
    print(access.endpoint)
"""


def put(access, key, body):
    client = client_of(access)
    if not client.list_buckets()["Buckets"]:
        client.create_bucket(Bucket="kept")
    client.put_object(Bucket="kept", Key=key, Body=body)


def get(access, key):
    return client_of(access).get_object(Bucket="kept", Key=key)["Body"].read()


def test_objects_and_credentials_outlive_the_server_and_its_violent_death(tmp_path):
    server = start(tmp_path)
    put(server.access, "key", b"value")
    os.kill(server.pid, signal.SIGKILL)
    server.stop()
    with local_s3(tmp_path) as again:
        assert get(again, "key") == b"value"
        assert (again.access_key, again.secret_key) == (server.access.access_key, server.access.secret_key)
    assert not (tmp_path / "server.json").exists()


@pytest.mark.parametrize("victim", ["owner", "guard"])
def test_no_server_is_left_when_its_owner_or_its_guard_is_killed(tmp_path, victim):
    owner = python(OWNER, str(tmp_path))
    guard_pid, _, endpoint = owner.stdout.readline().split()
    os.kill(owner.pid if victim == "owner" else int(guard_pid), signal.SIGKILL)
    # The lock is the server's own: that it can be taken says that the server is gone.
    after = wait_until(lambda: new_owner(tmp_path), "the lock of the killed server")
    assert after.access.endpoint != endpoint
    after.stop()
    owner.kill()
    owner.communicate()


def new_owner(folder):
    """A server of ours on this folder, None while the other one still holds it."""
    try:
        server = start(folder, timeout_seconds=20)
    except RegistryError:
        return None
    return server if server.guard is not None else None


def test_a_server_survives_the_thread_that_started_it_and_the_process_that_shares_it(tmp_path):
    with ThreadPoolExecutor(1) as pool:
        server = pool.submit(start, tmp_path).result()
    put(server.access, "key", b"value")
    assert python(SHARER, str(tmp_path)).communicate()[0].strip() == server.access.endpoint
    assert get(server.access, "key") == b"value"
    server.stop()


def test_credentials_are_made_once_and_for_the_owner_alone(tmp_path):
    first = credentials(tmp_path)
    assert credentials(tmp_path) == first
    assert stat.S_IMODE((tmp_path / "s3.json").stat().st_mode) == 0o600
    assert first[1] not in repr(S3Access("http://127.0.0.1:1", *first))


def test_damaged_credentials_are_named(tmp_path):
    (tmp_path / "s3.json").write_text(json.dumps({"identities": []}))
    with pytest.raises(RegistryError, match=r"s3\.json"):
        credentials(tmp_path)


def test_a_server_that_cannot_start_says_why(tmp_path):
    (tmp_path / "data").write_text("a file where a folder must be")
    with pytest.raises(RegistryError, match="data"):
        start(tmp_path)
