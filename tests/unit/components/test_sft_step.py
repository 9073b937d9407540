"""The rows that SFT reads: how many, what of them the loss sees, and which are left out."""

import pytest

from components.sft.step import epochs
from conf_profile.config import PromptConfig, SFTConfig, StudentConfig
from conf_profile.dialogue import task as tasks
from conf_profile.dialogue.prompts import UserFeatures
from conf_profile.errors import StudentError
from conf_profile.students import examples, supervised
from conf_profile.students.examples import Example
from conf_profile.students.tokenizer import train_tokenizer

TAGS = tasks.parse({"attributes": {"gender": ["female", "male"]}})
ANSWER = "<rationale>rose pruning</rationale><gender>male<level>3</level></gender>"


@pytest.mark.parametrize(
    ("users", "min_steps", "expected"),
    [(1000, 0, 3.0), (1000, 40, 3.0), (10, 40, 64.0), (1000, 800, 12.8)],
)
def test_a_small_data_set_is_repeated_until_it_fills_the_steps(users, min_steps, expected):
    config = SFTConfig(batch_size=16, gradient_accumulation=1, rationales_per_user=1, min_steps=min_steps)
    assert epochs(users, config) == expected


@pytest.fixture(scope="module")
def pieces():
    return train_tokenizer(["watch: rose pruning; weather tomorrow"] * 200, TAGS, 200)


def example(*watch):
    messages = examples.student_messages(
        UserFeatures("u", watch=list(watch)), TAGS, PromptConfig(student_style="brief")
    )
    return Example("u", messages, ANSWER)


def rows(sequences, pieces, count, **student):
    dataset = supervised.dataset(sequences, pieces, SFTConfig(batch_size=2), StudentConfig(**student), count, seed=0)
    return dataset.to_list()


def test_the_loss_sees_the_answer_and_its_end_and_nothing_of_the_prompt(pieces):
    (row,) = rows([example("rose pruning", "weather tomorrow")], pieces, 1)
    seen = [token for token in row["labels"] if token != supervised.IGNORED_LABEL]
    assert pieces.decode(seen) == ANSWER + pieces.eos_token
    assert row["input_ids"][-len(seen) :] == seen
    prompt = examples.prompt_texts([example("rose pruning", "weather tomorrow").messages], pieces)[0]
    assert pieces.decode(row["input_ids"][: -len(seen)]) == prompt


def test_so_many_rows_as_the_epochs_take(pieces):
    sequences = [example("rose pruning")] * 5
    assert len(rows(sequences, pieces, 5)) == 5
    assert len(rows(sequences, pieces, 13)) == 13


def test_a_sequence_beyond_the_students_length_is_left_out_whole(pieces):
    short, long = example("rose pruning"), example(*["weather tomorrow"] * 60)
    found = rows([short, long], pieces, 2, max_prompt_tokens=40, max_completion_tokens=16)
    assert len(found) == 2
    assert found[0] == found[1] == rows([short], pieces, 1)[0]
    with pytest.raises(StudentError, match="max_prompt_tokens"):
        rows([long], pieces, 1, max_prompt_tokens=40, max_completion_tokens=16)
