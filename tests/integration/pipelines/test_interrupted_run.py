"""A run is ended while it asks the teacher: nothing lives on, nothing is asked, and the next one asks for the rest."""

import json
import signal
import subprocess
import sys
import threading
from collections import Counter

import psutil
import pytest

from conf_profile.dialogue import task as tasks
from support import teacher_server
from support.running import environment, heed_hangups, wait_until_ended
from support.teacher_server import completion

UNDER_WAY = 4
ANSWER = "<rationale>x</rationale>" + "".join(
    f"<{attribute.name}>{attribute.tags[0]}<level>3</level></{attribute.name}>"
    for attribute in tasks.builtin("profile").attributes
)


class Teacher:
    """Answers so many requests more, then holds what it is sent until the run has ended."""

    def __init__(self, server):
        self.server, self.answered, self.left = server, Counter(), 0
        self.waiting, self.ended = threading.Event(), threading.Event()
        server.behave = self.behave

    def behave(self, number, call):
        with self.server.lock:
            self.left -= 1
            if self.left >= 0:
                self.answered[prompt(call)] += 1
                return completion(ANSWER)
            if self.left == -UNDER_WAY:
                self.waiting.set()
        return completion(ANSWER, wait_for=self.ended)

    def end(self, process, number):
        """Sends the signal to a run that waits for UNDER_WAY answers; its output, once nobody lives."""
        assert self.waiting.wait(300), "the run has not come so far"
        family = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(number)
        wait_until_ended([psutil.Process(process.pid), *family])
        assert len(family) > 3
        output, _ = process.communicate(timeout=60)
        self.waiting.clear()
        self.ended.set()
        self.ended = threading.Event()
        return output


def prompt(call):
    return json.dumps(call.body["messages"])


@pytest.fixture
def start(teacher):
    """Starts a command with this teacher."""
    started = []

    def start(*arguments):
        started.append(start_command(arguments, teacher.server.url))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


def start_command(arguments, url):
    teacher = {"kind": "openai", "model": "m", "base_url": url, "samples": 3, "shards": 1, "concurrency": UNDER_WAY}
    settings = [f"--set=teacher.{key}={value}" for key, value in teacher.items()]
    return subprocess.Popen(
        [sys.executable, "-m", "conf_profile", *arguments, "--users=40", *settings],
        env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, preexec_fn=heed_hangups,
    )  # fmt: skip


@pytest.fixture
def teacher():
    with teacher_server.serve() as server:
        yield Teacher(server)


def test_a_killed_run_asks_nothing_more_and_the_next_one_asks_for_the_rest(teacher, start, tmp_path):
    arguments = ["run", f"--out={tmp_path / 'run'}", "--until=synthesis"]
    asked = []
    for number, answers in ((signal.SIGTERM, 20), (signal.SIGKILL, 15), (signal.SIGHUP, 10)):
        teacher.left = answers
        process = start(*arguments)
        output = teacher.end(process, number)
        asked.append(len(teacher.server.calls))
        if number == signal.SIGKILL:
            assert process.returncode == -number
        else:
            assert process.returncode == 128 + number
            assert f"ended by {number.name}; what is done is kept" in output
    assert asked == [24, 24 + 19, 24 + 19 + 14], "nothing is sent after the signal, and no answer is asked for again"
    teacher.left = 1000
    last = start(*arguments)
    output, _ = last.communicate(timeout=120)
    assert last.returncode == 0, output
    assert min(teacher.answered.values()) >= 3
    assert sum(teacher.answered.values()) - 3 * len(teacher.answered) <= 3 * UNDER_WAY


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_an_experiment_that_is_ended_asks_nothing_more(teacher, start, tmp_path, number):
    teacher.left = 5
    process = start("experiment", "figure5", "--seeds=1", f"--out={tmp_path / 'evidence'}")
    teacher.end(process, number)
    assert process.returncode == (-number if number == signal.SIGKILL else 128 + number)
    assert len(teacher.server.calls) == 5 + UNDER_WAY
