"""A process ends, by whatever signal, and nothing that it has started lives on: with real processes."""

import signal
import subprocess
import sys

import psutil
import pytest

from support.running import heed_hangups, wait_until_ended

COMMAND = """
import subprocess, sys
python = [sys.executable, "-I", "-S", "-c"]
sleeps = [*python, "import time; time.sleep(600)"]
worker = subprocess.Popen(sleeps, start_new_session=True)
parent_of_orphan = "import subprocess, sys; print(subprocess.Popen(sys.argv[1:], stdout=subprocess.DEVNULL).pid)"
orphan = subprocess.run([*python, parent_of_orphan, *sleeps], stdout=subprocess.PIPE, text=True).stdout
print(worker.pid, int(orphan), flush=True)
"""
"""Starts a worker that leads a session of its own, and an orphan; prints their numbers."""
STAYS = COMMAND + "worker.wait()"
OWNER = """
import subprocess, sys
from conf_profile.processes.process_family import start_guarded
guarded = start_guarded([sys.executable, "-I", "-S", "-c", sys.argv[1]], stdout=subprocess.PIPE, text=True)
print(guarded.process.pid, guarded.pid, guarded.process.stdout.readline().strip(), flush=True)
guarded.process.wait()
"""
INTERRUPTED = """
import subprocess, sys
from conf_profile.processes.interruption import Interruption, end_processes
before = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, stderr=subprocess.DEVNULL)
with end_processes("do it again"):
    child = subprocess.Popen([sys.executable, "-I", "-S", "-c", sys.argv[1]], stdout=subprocess.PIPE, text=True)
    numbers = child.stdout.readline().strip()
    try:
        print(child.pid, numbers, flush=True)
        child.wait()
    finally:
        print("unwound", "" if before.poll() is None else "too much", flush=True)
        sys.stdin.read()
"""


@pytest.fixture
def start():
    """Starts a program that starts COMMAND, and gives it with all the processes whose numbers it prints."""
    started = []

    def start(code, command, **options):
        program = subprocess.Popen(
            [sys.executable, "-c", code, command],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            **{"preexec_fn": heed_hangups} | options,
        )  # fmt: skip
        family = [psutil.Process(int(number)) for number in program.stdout.readline().split()]
        started.append((program, family))
        return program, family

    yield start
    for program, family in started:
        for one in (program, *family):
            if one.is_running() if isinstance(one, psutil.Process) else one.poll() is None:
                one.kill()
        program.communicate()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_guarded_family_ends_with_its_owner(start, number):
    owner, family = start(OWNER, STAYS)
    owner.send_signal(number)
    wait_until_ended(family)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere nobody tells a command that its guard was killed")
def test_a_guarded_family_ends_with_its_guard(start):
    owner, (guard, command, *_) = start(OWNER, STAYS)
    guard.kill()
    wait_until_ended([command])
    assert owner.wait(20) == 0, "the owner has read the guard's status"


def test_a_command_that_ends_leaves_nobody(start):
    owner, family = start(OWNER, COMMAND)
    wait_until_ended(family)
    assert owner.wait(20) == 0


def test_a_command_that_a_signal_ends_ends_its_guard_like_that(start):
    _, (guard, command, *others) = start(
        OWNER.replace("guarded.process.wait()", "print(guarded.process.wait())"), STAYS
    )
    command.send_signal(signal.SIGSEGV)
    wait_until_ended([guard, *others])


def test_the_status_of_a_command_is_its_guards():
    from conf_profile.processes.process_family import start_guarded

    assert start_guarded([sys.executable, "-c", "raise SystemExit(3)"]).process.wait(20) == 3
    killed = start_guarded([sys.executable, "-c", "import os; os.kill(os.getpid(), 9)"])
    assert killed.process.wait(20) == -signal.SIGKILL
    missing = start_guarded(["/nowhere/program"], stderr=subprocess.PIPE, text=True)
    assert missing.pid == 0
    assert missing.process.communicate()[1].startswith("/nowhere/program: cannot be started")
    assert missing.process.returncode == 127


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_signal_unwinds_the_blocks_and_ends_every_child_of_theirs(start, number):
    program, family = start(INTERRUPTED, STAYS)
    program.send_signal(number)
    assert program.stdout.readline().split() == ["unwound"]
    _, errors = program.communicate()
    wait_until_ended(family)
    assert program.returncode == 128 + number, errors
    assert errors.splitlines()[-1] == f"conf-profile: ended by {number.name}; do it again"


def test_a_second_signal_does_not_wait_for_the_blocks(start):
    program, family = start(INTERRUPTED, STAYS)
    program.send_signal(signal.SIGTERM)
    program.stdout.readline()
    program.send_signal(signal.SIGINT)
    assert program.wait(20) == 128 + signal.SIGINT
    wait_until_ended(family)


def test_what_nohup_ignores_stays_ignored(start):
    def ignore():
        signal.signal(signal.SIGHUP, signal.SIG_IGN)

    program, family = start(INTERRUPTED, STAYS, preexec_fn=ignore)
    program.send_signal(signal.SIGHUP)
    program.send_signal(signal.SIGTERM)
    program.communicate()
    assert program.returncode == 128 + signal.SIGTERM
    wait_until_ended(family)


def test_a_terminal_that_is_gone_does_not_change_the_status(start):
    """Blocks that write while they unwind fail then."""
    program, family = start(
        INTERRUPTED.replace('print("unwound"', 'raise OSError(5, "terminal gone"); print(""'), STAYS
    )
    program.send_signal(signal.SIGTERM)
    program.communicate()
    assert program.returncode == 128 + signal.SIGTERM
    wait_until_ended(family)
