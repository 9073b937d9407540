"""The answer store: what is kept, found again, and paid for once."""

import asyncio
import json
import logging
import subprocess
import sys
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conf_profile.errors import TeacherError
from conf_profile.teachers.answers import AnswerStore, AskCounts, ask, kept_texts, prompt_hash
from conf_profile.teachers.protocol import Completion, Request

HELLO = ({"role": "user", "content": "watch: rose pruning"},)
CHANGED = ({"role": "user", "content": "watch: rose pruning; chess"},)


class Echo:
    """A teacher that answers at once and counts; it fails after `limit` answers."""

    fingerprint = "echo"

    def __init__(self, limit: int = 1_000_000) -> None:
        self.asked: list[tuple[str, int]] = []
        self.closed = False
        self._limit = limit

    async def complete(self, requests: Sequence[Request]):
        try:
            for request in requests:
                for sample in request.samples:
                    if len(self.asked) == self._limit:
                        raise TeacherError("no more")
                    self.asked.append((request.user_id, sample))
                    yield Completion(request.user_id, sample, f"{request.user_id} says {sample}")
        finally:
            self.closed = True

    async def aclose(self) -> None:
        pass


class Lazy(Echo):
    async def complete(self, requests: Sequence[Request]):
        yield Completion(requests[0].user_id, requests[0].samples[0], "only one")


def asking(teacher, requests, folder, watcher=None, writer="answers"):
    with AnswerStore(folder, teacher.fingerprint, writer) as store:
        return asyncio.run(ask(teacher, requests, store, watcher))


def text(folder, user_id, sample, messages=HELLO, fingerprint="echo"):
    with AnswerStore(folder, fingerprint) as store:
        return store.text(user_id, messages, sample)


def kept_lines(folder):
    return [line for path in sorted(folder.glob("*.jsonl")) for line in path.read_bytes().splitlines()[1:]]


def test_asks_for_all_samples_once(tmp_path):
    requests = [Request("u1", HELLO, (0, 1)), Request("u2", HELLO, (0,))]
    teacher = Echo()
    assert asking(teacher, requests, tmp_path) == AskCounts(asked=3, kept_before=0)
    assert asking(teacher, requests, tmp_path) == AskCounts(asked=0, kept_before=3)
    assert teacher.asked == [("u1", 0), ("u1", 1), ("u2", 0)]
    assert text(tmp_path, "u1", 1) == "u1 says 1"
    assert text(tmp_path, "u2", 1) is None


def test_the_reason_of_an_answer_without_a_text_is_kept(tmp_path):
    with AnswerStore(tmp_path, "echo") as store:
        store.keep(HELLO, Completion("u1", 0, "", "content_filter"))
        store.keep(HELLO, Completion("u1", 1, "text"))
    with AnswerStore(tmp_path, "echo") as store:
        assert [store.reason("u1", HELLO, sample) for sample in range(3)] == ["content_filter", "", ""]
        assert store.missing_samples(Request("u1", HELLO, (0, 1, 2))) == (2,)
    assert [b"reason" in line for line in kept_lines(tmp_path)] == [True, False]


def test_more_samples_ask_for_the_new_ones_only(tmp_path):
    teacher = Echo()
    asking(teacher, [Request("u1", HELLO, (0, 1))], tmp_path)
    assert asking(teacher, [Request("u1", HELLO, (0, 1, 2))], tmp_path) == AskCounts(1, 2)
    assert teacher.asked[2:] == [("u1", 2)]


def test_a_changed_prompt_is_asked_again(tmp_path):
    teacher = Echo()
    asking(teacher, [Request("u1", HELLO, (0,))], tmp_path)
    assert asking(teacher, [Request("u1", CHANGED, (0,))], tmp_path) == AskCounts(1, 0)
    assert text(tmp_path, "u1", 0, HELLO) == text(tmp_path, "u1", 0, CHANGED) == "u1 says 0"


def test_another_teacher_has_other_answers(tmp_path):
    asking(Echo(), [Request("u1", HELLO, (0,))], tmp_path)
    assert text(tmp_path, "u1", 0, fingerprint="another") is None


def test_what_arrived_before_an_error_is_kept(tmp_path):
    requests = [Request(f"u{n}", HELLO, (0,)) for n in range(5)]
    with pytest.raises(TeacherError, match="no more"):
        asking(Echo(limit=3), requests, tmp_path)
    assert asking(Echo(), requests, tmp_path) == AskCounts(asked=2, kept_before=3)


def test_a_teacher_that_stops_early_is_an_error(tmp_path):
    with pytest.raises(TeacherError, match="1 answers are missing"):
        asking(Lazy(), [Request("u1", HELLO, (0, 1))], tmp_path)


class Notes:
    """A watcher that notes what it is told, and how many answers are on disk then."""

    def __init__(self, folder):
        self.folder, self.seen = folder, []

    def begin(self, kept):
        self.seen.append((kept, len(kept_lines(self.folder))))

    def add(self, messages, completion):
        self.seen.append((messages, completion.text, len(kept_lines(self.folder))))


def test_each_answer_is_on_disk_when_a_watcher_is_told(tmp_path):
    for kept, samples in ((0, (0, 1)), (2, (0, 1, 2))):
        notes = Notes(tmp_path)
        asking(Echo(), [Request("u1", HELLO, samples)], tmp_path, notes)
        assert notes.seen == [(kept, kept), *((HELLO, f"u1 says {n}", n + 1) for n in samples[kept:])]


def test_a_watcher_stops_the_asking_and_what_had_arrived_is_kept(tmp_path):
    class Stop(Notes):
        def add(self, messages, completion):
            if completion.sample == 1:
                raise TeacherError("enough")

    with pytest.raises(TeacherError, match="enough"):
        asking(Echo(), [Request("u1", HELLO, (0, 1, 2))], tmp_path, Stop(tmp_path))
    assert asking(Echo(), [Request("u1", HELLO, (0, 1, 2))], tmp_path) == AskCounts(asked=1, kept_before=2)


def test_all_texts_of_a_teacher_are_listed_whoever_wrote_them(tmp_path):
    for writer in ("one", "two"):
        asking(Echo(), [Request(f"user {writer}", HELLO, (0,))], tmp_path, writer=writer)
    assert list(kept_texts(tmp_path, "echo")) == ["user one says 0", "user two says 0"]
    assert list(kept_texts(tmp_path, "another")) == []


@pytest.mark.parametrize("cut", [1, 10, 40])
def test_a_half_written_last_line_is_dropped_and_asked_again(tmp_path, cut):
    requests = [Request("u1", HELLO, (0, 1, 2))]
    asking(Echo(), requests, tmp_path)
    (file,) = tmp_path.glob("*.jsonl")
    file.write_bytes(file.read_bytes()[:-cut])
    assert asking(Echo(), requests, tmp_path) == AskCounts(asked=1, kept_before=2)
    assert [json.loads(line)["sample"] for line in kept_lines(tmp_path)] == [0, 1, 2]
    assert text(tmp_path, "u1", 2) == "u1 says 2"


def test_a_file_that_is_cut_in_its_first_line_starts_anew(tmp_path):
    asking(Echo(), [Request("u1", HELLO, (0,))], tmp_path)
    (file,) = tmp_path.glob("*.jsonl")
    file.write_bytes(file.read_bytes()[:9])
    assert asking(Echo(), [Request("u1", HELLO, (0,))], tmp_path) == AskCounts(1, 0)
    assert json.loads(file.read_bytes().splitlines()[0]) == {"fingerprint": "echo"}


def test_a_damaged_line_is_reported_and_asked_again(tmp_path, caplog):
    requests = [Request("u1", HELLO, (0, 1))]
    asking(Echo(), requests, tmp_path)
    (file,) = tmp_path.glob("*.jsonl")
    lines = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(lines[0] + b"\0\0\0\n" + lines[2])
    with caplog.at_level(logging.WARNING):
        assert asking(Echo(), requests, tmp_path) == AskCounts(asked=1, kept_before=1)
    assert "line 2 is damaged" in caplog.text


def test_what_was_spent_is_found_again_and_is_no_answer(tmp_path, caplog):
    with AnswerStore(tmp_path, "echo") as store:
        store.keep_spent("job", 3)
        store.keep(HELLO, Completion("u1", 0, "text"))
        store.keep_spent("another", 9)
        store.keep_spent("job", 2)
        assert store.read_spent("job") == 2
    with AnswerStore(tmp_path, "echo") as store:
        assert [store.read_spent(job) for job in ("job", "another", "none")] == [2, 9, 0]
        assert (len(store), store.text("u1", HELLO, 0)) == (1, "text")
    assert caplog.text == ""


def test_answers_of_other_writers_are_found_and_their_cut_line_is_left_alone(tmp_path):
    requests = [Request("u1", HELLO, (0, 1))]
    asking(Echo(), requests, tmp_path, writer="shard-0-of-1")
    (file,) = tmp_path.glob("*.jsonl")
    file.write_bytes(file.read_bytes()[:-5])
    before = file.read_bytes()
    assert asking(Echo(), requests, tmp_path, writer="shard-0-of-2") == AskCounts(1, 1)
    assert file.read_bytes() == before
    with AnswerStore(tmp_path, "echo", "shard-1-of-2") as store:
        assert store.text("u1", HELLO, 0) == "u1 says 0"
        assert store.text("u1", HELLO, 1) == "u1 says 1"


def test_unrelated_writers_are_not_read(tmp_path):
    asking(Echo(), [Request("u1", HELLO, (0,))], tmp_path, writer="shard-0-of-2")
    with AnswerStore(tmp_path, "echo", "shard-1-of-2", unrelated="shard-*-of-2") as store:
        assert len(store) == 0
    with AnswerStore(tmp_path, "echo", "shard-0-of-2", unrelated="shard-*-of-2") as store:
        assert len(store) == 1


def test_one_file_has_one_writer(tmp_path):
    with (
        AnswerStore(tmp_path, "echo"),
        pytest.raises(TeacherError, match="another process"),
    ):
        AnswerStore(tmp_path, "echo")


def test_a_folder_that_cannot_be_made_is_a_clear_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(TeacherError, match=r"file/.*cannot be opened.*choose another folder"):
        AnswerStore(tmp_path / "file", "echo")


FULL_DISK = """
import asyncio, resource, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from test_answers import Echo, HELLO, asking
from conf_profile.errors import TeacherError
from conf_profile.teachers.protocol import Request

resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
teacher = Echo()
try:
    asking(teacher, [Request("u1", HELLO, tuple(range(100)))], Path(sys.argv[1]))
except TeacherError as error:
    print(error)
    print(len(teacher.asked), teacher.closed)
"""


def test_a_full_disk_stops_the_asking_and_keeps_what_was_there(tmp_path, request):
    command = [sys.executable, "-c", FULL_DISK, str(tmp_path), str(request.path.parent)]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    message, figures = output.splitlines()
    asked, closed = figures.split()
    assert "cannot be written" in message and "run again" in message
    assert closed == "True"
    kept = len(kept_lines(tmp_path))
    # The answer that did not fit was lost, and nothing was asked after it.
    assert 0 < kept == int(asked) - 1
    assert asking(Echo(), [Request("u1", HELLO, tuple(range(100)))], tmp_path) == AskCounts(100 - kept, kept)


@given(st.lists(st.text(), min_size=1, max_size=5))
def test_any_text_comes_back(tmp_path_factory, texts):
    folder = tmp_path_factory.mktemp("answers")
    with AnswerStore(folder, "echo") as store:
        for sample, answer in enumerate(texts):
            store.keep(HELLO, Completion("u1", sample, answer))
        assert [store.text("u1", HELLO, sample) for sample in range(len(texts))] == texts
    assert [text(folder, "u1", sample) for sample in range(len(texts))] == texts


def test_a_lone_surrogate_becomes_text_that_can_be_stored(tmp_path):
    with AnswerStore(tmp_path, "echo") as store:
        store.keep(HELLO, Completion("u1", 0, "a\ud800b"))
        assert store.text("u1", HELLO, 0) == "a?b"


def test_the_prompt_hash_sees_role_and_content_apart():
    hashes = {
        prompt_hash(({"role": "user", "content": "ab"},)),
        prompt_hash(({"role": "usera", "content": "b"},)),
        prompt_hash(({"role": "user", "content": "a"}, {"role": "user", "content": "b"})),
    }
    assert len(hashes) == 3
