"""Locks between processes: they refuse or wait while another process holds them, and go with it, however it ends."""

import subprocess
import sys
from contextlib import contextmanager

import pytest

from conf_profile.data import run_folder
from conf_profile.errors import PipelineError, TeacherError
from conf_profile.teachers.answers import AnswerStore, forget
from support.paths import ROOT

RUN = "from conf_profile.data.run_folder import lock_run_folder\nheld = lock_run_folder(folder)\nheld.__enter__()"
ANSWERS = "from conf_profile.teachers.answers import AnswerStore\nheld = AnswerStore(folder, 'teacher')"


@contextmanager
def held_elsewhere(code, folder):
    """Another process that holds a lock; it is killed at the end of the block."""
    program = (
        f"import sys\nfrom pathlib import Path\nfolder = Path({str(folder)!r})\n{code}\nprint(flush=True)\ninput()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT
    ) as other:
        assert other.stdout.readline() == b"\n"
        try:
            yield
        finally:
            other.kill()


def test_a_runs_folder_is_for_one_process(tmp_path):
    with (
        held_elsewhere(RUN, tmp_path),
        pytest.raises(PipelineError, match="is under way in this folder"),
        run_folder.lock_run_folder(tmp_path),
    ):
        pass
    with run_folder.lock_run_folder(tmp_path), pytest.raises(PipelineError), run_folder.lock_run_folder(tmp_path):
        pass
    with run_folder.lock_run_folder(tmp_path):
        pass


def test_the_lock_file_of_an_earlier_release_is_taken(tmp_path):
    (tmp_path / "run.lock").write_text("")
    with run_folder.lock_run_folder(tmp_path):
        pass


def test_a_failure_inside_is_not_taken_for_a_lock(tmp_path):
    with pytest.raises(TimeoutError, match="the store"), run_folder.lock_run_folder(tmp_path):
        raise TimeoutError("the store")
    with run_folder.lock_run_folder(tmp_path):
        pass


def test_answers_have_one_writer_whose_file_is_not_touched(tmp_path):
    with AnswerStore(tmp_path, "teacher"):
        (path,) = tmp_path.iterdir()
    kept = path.read_bytes()
    with held_elsewhere(ANSWERS, tmp_path):
        with pytest.raises(TeacherError, match="another process is asking the same teacher"):
            AnswerStore(tmp_path, "teacher")
        with pytest.raises(TeacherError, match="another process is asking the same teacher"):
            forget(tmp_path, "somebody")
    assert kept and path.read_bytes() == kept
    assert forget(tmp_path, "somebody") == 0
    with AnswerStore(tmp_path, "teacher"):
        pass
