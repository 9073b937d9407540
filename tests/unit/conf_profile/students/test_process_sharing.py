"""How a training step is shared by processes, and how its call reaches them; the training itself is tested apart."""

from pathlib import Path

import pytest

from components.sft import step as sft
from conf_profile.config import PromptConfig, SFTConfig, StudentConfig
from conf_profile.errors import StudentError
from conf_profile.students import examples, processes
from conf_profile.students.examples import Example

CALL = {
    "features": Path("/a/features"),
    "config": SFTConfig(epochs=2),
    "student_config": StudentConfig(),
    "prompt": PromptConfig(),
    "seed": 3,
}


@pytest.mark.parametrize(
    ("number", "rows", "accumulation", "expected"),
    [
        (1, 64, 1, (64, 1)),
        (2, 64, 1, (32, 1)),
        (4, 4, 8, (4, 2)),  # fewer passes rather than smaller ones
        (4, 8, 2, (2, 2)),
        (3, 9, 2, (3, 2)),
    ],
)
def test_a_step_sees_as_many_rows_as_on_one_process(monkeypatch, number, rows, accumulation, expected):
    monkeypatch.setenv("WORLD_SIZE", str(number))
    shared = processes.share(rows, accumulation)
    assert shared == expected
    assert shared[0] * shared[1] * number == rows * accumulation


def test_what_cannot_be_shared_evenly_is_refused(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "4")
    with pytest.raises(StudentError, match="1 x 6 rows cannot be shared by 4 processes"):
        processes.share(6, 1)


@pytest.mark.parametrize(("given", "expected"), [(None, 1), ("1", 1), ("4", 4)])
def test_the_environment_says_how_many(monkeypatch, given, expected):
    monkeypatch.delenv(processes.PROCESSES, raising=False)
    if given:
        monkeypatch.setenv(processes.PROCESSES, given)
    assert processes.read_process_count() == expected


@pytest.mark.parametrize("given", ["0", "-1", "two", ""])
def test_anything_else_is_refused(monkeypatch, given):
    monkeypatch.setenv(processes.PROCESSES, given)
    with pytest.raises(StudentError, match=processes.PROCESSES):
        processes.read_process_count()


def test_a_call_is_the_same_in_another_process():
    assert processes.from_json(processes.to_json(sft.run, CALL)) == (sft.run, CALL)


def test_one_process_is_a_plain_call():
    def step(**arguments):
        return arguments

    assert processes.call(step, 1, **CALL) == CALL
    assert (processes.count(), processes.is_first()) == (1, True)
    assert processes.broadcast_text(lambda: "text") == "text"


def test_sequences_are_the_same_in_another_process():
    sequences = [Example("ü", ({"role": "user", "content": "watch: rose"},), "<gender>male</gender>")]
    assert examples.from_json(examples.to_json(sequences)) == sequences
