"""What a run says when a step fails, read from the output of kfp's local runner."""

import io
from pathlib import Path

import pytest
from rich.console import Console
from rich.progress import Progress

from conf_profile.errors import LostPromotionError, PipelineError, UnreadableTeacherError
from pipelines.local.pipeline_process import _failure, _OutputReader, _read

KFP = [
    "14:52:32.204 - INFO - Task 'sft' finished with status FAILURE",
    "Traceback (most recent call last):",
    '  File "pipelines/local/__main__.py", line 42, in main',
    "RuntimeError: Pipeline 'conf-profile-training' finished with status FAILURE. Inner task failed: 'sft'.",
]


def said(tmp_path, *steps_own_output):
    watch = _OutputReader(tmp_path / "seconds.json", {}, current="sft")
    for line in (*steps_own_output, *KFP):
        watch.failure.read(line)
    return _failure(watch, Path("runs/x"))


def test_an_error_of_ours_is_told_as_it_is(tmp_path):
    error = said(
        tmp_path,
        "    Traceback (most recent call last):",
        '      File "components/sft/step.py", line 50, in run',
        "    conf_profile.errors.StudentError: labels.parquet: no training user has a pseudo-label",
    )
    message = str(error)
    assert type(error) is PipelineError
    assert message.startswith("step 'sft' failed: labels.parquet: no training user has a pseudo-label\n")
    assert "runs/x/run.log" in message


@pytest.mark.parametrize("exception", ["ValueError: bad checkpoint", "torch.OutOfMemoryError: 2 GiB", "KeyError"])
def test_another_exception_is_the_steps_own_not_kfps(tmp_path, exception):
    error = said(
        tmp_path,
        "    Traceback (most recent call last):",
        '      File "a.py", line 1, in a',
        "        a()",
        "    FileNotFoundError: first",
        "    ",
        "    During handling of the above exception, another exception occurred:",
        "    ",
        "    Traceback (most recent call last):",
        '      File "b.py", line 1, in b',
        f"    {exception}",
    )
    assert str(error).startswith(f"step 'sft' failed: {exception}\n")


def test_a_promotion_that_came_too_late_is_an_error_of_its_own(tmp_path):
    error = said(tmp_path, "    conf_profile.errors.RegistryConflictError: another promotion came first")
    assert isinstance(error, LostPromotionError) and "another promotion came first" in str(error)


def test_a_teacher_that_is_not_understood_is_an_error_of_its_own(tmp_path):
    error = said(tmp_path, "    conf_profile.errors.MalformedAnswersError: 40 of the first 40 answers are malformed")
    assert isinstance(error, UnreadableTeacherError) and "40 of the first 40" in str(error)


def test_shards_that_take_turns_are_shown_each_in_tenths(tmp_path):
    lines = [f"synthesis {shard} {done}/100 answers" for done in range(0, 101, 5) for shard in (1, 2)]
    output = io.StringIO()
    console = Console(file=output, width=200)
    watch = _OutputReader(tmp_path / "seconds.json", {}, current="synthesis")
    with Progress(console=console) as bar:
        task = bar.add_task("synthesis", total=1, detail="")
        for line in lines:
            _read(line, watch, bar, task, console)
    for shard in (1, 2):
        shown = [line.split()[2] for line in output.getvalue().splitlines() if f"synthesis {shard} " in line]
        assert shown == [f"{done}/100" for done in range(0, 101, 10)]


def test_a_step_that_died_without_a_word_shows_the_last_lines(tmp_path):
    assert "Inner task failed: 'sft'" in str(said(tmp_path, "    sft 10/20 loss 1.2"))
