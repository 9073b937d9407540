"""A process and all that it has started, with real ones: orphans, workers in sessions of their own, who never ends."""

import signal
import subprocess
import sys

import psutil
import pytest

from conf_profile.processes import process_family
from conf_profile.processes.process_family import ProcessFamily
from support.s3 import wait_until

STAYS = "print(0, flush=True); input()"
STARTS = "import subprocess, sys; print(subprocess.Popen([sys.executable, '-c', {code!r}], **{given}).pid, flush=True)"
IGNORES = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(0, flush=True); time.sleep(600)"
SAYS_SO = """
import pathlib, signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: sys.exit(pathlib.Path(sys.argv[1]).write_text("ended")))
print(0, flush=True)
time.sleep(600)
"""
SLEEPS = "import time; time.sleep(600)"
HOLDS_64_MIB = "held = b'x' * 2**26; import time; time.sleep(600)"


@pytest.fixture
def start():
    """Starts a program in a new session, and gives it with the process number that it prints first."""
    started = []

    def start(code, *arguments):
        command = [sys.executable, "-c", code, *arguments]
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
        )
        started.append((process, int(process.stdout.readline())))
        return started[-1]

    yield start
    for process, number in started:
        for one in {process.pid, number} - {0}:
            if psutil.pid_exists(one):
                psutil.Process(one).kill()
        process.communicate()


def starts(code, **given):
    return STARTS.format(code=code, given=given)


def has_ended(number):
    """Whether its parent, or init, has read its status already or has still to."""
    return not psutil.pid_exists(number) or psutil.Process(number).status() == psutil.STATUS_ZOMBIE


def numbers(family):
    return {member.pid for member in family.members()}


def test_an_orphan_is_found_by_its_group(start):
    process, orphan = start(starts(SLEEPS))
    family = ProcessFamily(process.pid)
    process.wait()
    assert numbers(family) == {orphan}
    process_family.end([family])
    assert numbers(family) == set() and has_ended(orphan)


def test_a_worker_in_a_session_of_its_own_is_found_by_its_parent(start):
    process, worker = start(f"{starts(SLEEPS, start_new_session=True)}; input()")
    family = ProcessFamily(process.pid)
    assert numbers(family) == {process.pid, worker}
    process_family.end([family])
    assert numbers(family) == set() and has_ended(worker)
    assert process.wait() == -signal.SIGKILL, "its status is left for whoever started it"


@pytest.mark.parametrize(("grace", "said"), [(60.0, "ended"), (0.0, None)])
def test_with_a_grace_members_may_end_by_themselves(start, tmp_path, grace, said):
    process, _ = start(SAYS_SO, str(tmp_path / "said"))
    process_family.end([ProcessFamily(process.pid)], grace)
    assert ((tmp_path / "said").read_text() if (tmp_path / "said").exists() else None) == said


def test_who_does_not_end_in_the_grace_is_killed_and_several_families_share_it(start):
    processes = [start(IGNORES)[0], start(IGNORES)[0]]
    process_family.end([ProcessFamily(process.pid) for process in processes], 0.2)
    assert [process.wait(10) for process in processes] == [-signal.SIGKILL] * 2


def test_memory_is_that_of_all_members(start):
    process, _ = start(f"{starts(HOLDS_64_MIB)}; input()")
    family = ProcessFamily(process.pid)
    wait_until(lambda: family.resident_mib() > 64, "the child to take its memory")
    assert psutil.Process(process.pid).memory_info().rss < 2**26


def test_who_was_not_there_is_no_member(start):
    first, _ = start(STAYS)
    second, _ = start(STAYS)
    assert numbers(ProcessFamily(first.pid)) == {first.pid} and numbers(ProcessFamily(second.pid)) == {second.pid}
