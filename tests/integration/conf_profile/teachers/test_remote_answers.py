"""Answers kept in an object store: a synthesis that starts on an empty disk pays for nothing twice. Real SeaweedFS.

The disk is as empty as a pod's: the step keeps its copy in a temporary folder that ends with it.
"""

import os
import subprocess
import sys
import threading
import uuid
from contextlib import contextmanager

import pytest

from components.synthesis import step
from conf_profile import tables
from conf_profile.config import PromptConfig, TeacherConfig
from conf_profile.dialogue import task as tasks
from conf_profile.errors import RegistryError, TeacherError
from conf_profile.storage.local_s3 import local_s3
from conf_profile.storage.object_store import ObjectStore, open_location
from conf_profile.teachers import remote_answers
from conf_profile.teachers.answers import AnswerStore, file_name
from conf_profile.teachers.endpoint.advice import KEYS_SECRET
from conf_profile.teachers.protocol import Completion
from support.s3 import client_of, wait_until
from support.teacher_server import completion, error, serve

BUCKET = "conf-profile"
USERS = 12
SYNTHESIS = """
import sys
from pathlib import Path
from components.synthesis import step
from conf_profile.config import PromptConfig, TeacherConfig, parse_section
from conf_profile.teachers import remote_answers
remote_answers.SECONDS_BETWEEN_UPLOADS = 0.05
folder = Path(sys.argv[1])
print(step.run(folder / "features.parquet", folder / "task.yaml", None, folder / "candidates.parquet",
    parse_section(TeacherConfig, sys.argv[2]), PromptConfig(), 0, 0, sys.argv[3]))
"""


@pytest.fixture(scope="module")
def access(tmp_path_factory):
    with local_s3(tmp_path_factory.mktemp("s3")) as found:
        yield found


@pytest.fixture(autouse=True)
def environment(access, monkeypatch):
    for name, value in access.environment().items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def server():
    with serve() as found:
        yield found


@pytest.fixture
def place():
    return f"s3://{BUCKET}/answers/{uuid.uuid4().hex}"


@pytest.fixture
def inputs(tmp_path):
    nothing = {"search": [], "submit": [], "self_age": None, "self_gender": None, "signature": None, "region": None}
    rows = [{"user_id": f"u{n:02d}", "split": "train", "watch": [f"phrase {n:02d}"], **nothing} for n in range(USERS)]
    tables.write(tmp_path / "features.parquet", tables.from_rows(rows, tables.FEATURES), tables.FEATURES)
    tasks.parse({"attributes": {"gender": ["female", "male"]}}).save(tmp_path / "task.yaml")
    return tmp_path


def config(server, **values):
    given = {"kind": "openai", "model": "m", "samples": 2, "shards": 1, "concurrency": 1, "max_attempts": 2}
    return TeacherConfig(base_url=server.url, **{**given, **values})


def ask(inputs, server, place, shard=0, **values):
    return step.run(
        inputs / "features.parquet", inputs / "task.yaml", None, inputs / "candidates.parquet",
        config(server, **values), PromptConfig(), 0, shard, place,
    )  # fmt: skip


def objects(access, place):
    return ObjectStore(client_of(access), BUCKET).sizes(place.removeprefix(f"s3://{BUCKET}/"))


def test_a_second_start_finds_every_answer(inputs, server, place, access):
    assert ask(inputs, server, place) == {"users": USERS, "asked": 24, "kept_before": 0, "malformed": 0}
    first = tables.read(inputs / "candidates.parquet", tables.CANDIDATES)
    assert ask(inputs, server, place) == {"users": USERS, "asked": 0, "kept_before": 24, "malformed": 0}
    assert tables.read(inputs / "candidates.parquet", tables.CANDIDATES).equals(first)
    assert len(server.calls) == 24
    assert len(objects(access, place)) == 1


def test_what_had_arrived_before_a_failure_is_kept(inputs, server, place):
    server.behave = lambda number, call: completion() if number < 7 else error(401)
    with pytest.raises(TeacherError, match="401"):
        ask(inputs, server, place)
    server.behave = lambda number, call: completion()
    assert ask(inputs, server, place)["kept_before"] == 7
    assert len(server.calls) == 24 + 1


def test_what_was_copied_survives_a_kill(inputs, server, place, access):
    never = threading.Event()
    server.behave = lambda number, call: completion(wait_for=never if number >= 10 else None)
    command = [sys.executable, "-c", SYNTHESIS, str(inputs), config(server).for_step(), place]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, env={**os.environ, "TMPDIR": str(inputs)})
    try:
        wait_until(lambda: sum(map(lines_of(access), objects(access, place))) == 11, "ten answers and a header in S3")
    finally:
        process.kill()
        process.wait()
        never.set()
    server.behave = lambda number, call: completion()
    assert ask(inputs, server, place) == {"users": USERS, "asked": 14, "kept_before": 10, "malformed": 0}


def lines_of(access):
    store = ObjectStore(client_of(access), BUCKET)
    return lambda key: store.read(key).body.count(b"\n")


def test_tries_on_empty_disks_share_one_budget(inputs, server, place):
    for _ in range(3):
        with pytest.raises(TeacherError, match="budget of 5 requests"):
            ask(inputs, server, place, max_requests=5)
    assert len(server.calls) == 5
    assert ask(inputs, server, place, max_requests=24)["asked"] == 19


@contextmanager
def answers_at(place):
    with (
        remote_answers.folder_of(place, "a teacher", "shard-0", "shard-*") as folder,
        AnswerStore(folder, "a teacher", "shard-0") as store,
    ):
        yield store


@pytest.mark.parametrize("stored", [True, False])
def test_an_upload_whose_reply_is_lost_loses_no_answer(place, monkeypatch, stored):
    """The lines of the first upload are stored and nobody knows, or a conflict says that they are, and they are not."""
    write_new, first = ObjectStore.write_new, threading.Event()

    def unreliable(store, key, source):
        if first.is_set():
            return write_new(store, key, source)
        if stored:
            write_new(store, key, source)
        first.set()
        if stored:
            raise RegistryError("the reply is lost")
        return False

    monkeypatch.setattr(ObjectStore, "write_new", unreliable)
    monkeypatch.setattr(remote_answers, "SECONDS_BETWEEN_UPLOADS", 0.05)
    message = ({"role": "user", "content": "watch: rose pruning"},)
    with answers_at(place) as store:
        store.keep(message, Completion("u0", 0, "before"))
        assert first.wait(60)
        store.keep(message, Completion("u1", 0, "after"))
    with answers_at(place) as store:
        assert [store.text(user, message, 0) for user in ("u0", "u1")] == ["before", "after"]
        assert len(store) == 2


def test_of_two_uploads_from_one_offset_the_longer_one_is_read_last(place):
    store, prefix = open_location(place, create=True)
    lines = [b'{"spent": 1, "job": "j"}\n', b'{"spent": 2, "job": "j"}\n']
    part = f"{prefix}/{file_name('a teacher', 'shard-0')}/{0:015d}"
    store.write_new(f"{part}-a", b"".join(lines))
    store.write_new(f"{part}-b", lines[0])
    with answers_at(place) as found:
        assert found.read_spent("j") == 2


def test_another_number_of_shards_finds_the_same_answers(inputs, server, place):
    asked = [ask(inputs, server, place, shard, shards=2)["asked"] for shard in (0, 1)]
    assert sum(asked) == 24 and all(asked)
    assert ask(inputs, server, place)["asked"] == 0


def test_a_shard_does_not_fetch_what_the_others_keep(inputs, server, place, access):
    for shard in (0, 1):
        ask(inputs, server, place, shard, shards=2)
    store, prefix = open_location(place)
    teacher = step.make_teacher(config(server, shards=2), tasks.load(inputs / "task.yaml"), None, 0)
    writer, others = "shard-0000-of-0002", "shard-*-of-0002"
    with remote_answers.folder_of(place, teacher.fingerprint, writer, others) as folder:
        assert [path.name.split("-", 1)[1] for path in folder.iterdir()] == ["shard-0000-of-0002.jsonl"]
    assert len(store.folders(f"{prefix}/")) == 2


def test_the_address_may_say_where_the_server_is(inputs, server, place, access, monkeypatch):
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    with pytest.raises(RegistryError, match=r"no S3 endpoint: .*pipelines\.s3Secret"):
        ask(inputs, server, place)
    assert server.calls == []
    assert ask(inputs, server, f"{place}?endpoint={access.endpoint}&region=us-east-1")["asked"] == 24


def test_an_object_store_that_is_down_is_told_before_anything_is_paid(inputs, server, place, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(RegistryError, match="does not answer"):
        ask(inputs, server, place)
    assert server.calls == []


def test_an_expired_key_names_variable_and_secret(inputs, server, place, monkeypatch):
    monkeypatch.setenv("DEEPSEEK_API_KEY", "sk-expired")
    monkeypatch.setenv(KEYS_SECRET, "key 'api-key' of the secret 'teacher'")
    server.behave = lambda number, call: error(401, "sk-expired has expired")
    with pytest.raises(TeacherError) as caught:
        ask(inputs, server, place, api_key_env="DEEPSEEK_API_KEY")
    message = str(caught.value)
    assert "DEEPSEEK_API_KEY (key 'api-key' of the secret 'teacher')" in message and "run again" in message
    assert "sk-expired" not in message
